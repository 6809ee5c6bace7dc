"""A student of a number of parameters has its teacher's architecture and proportions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, ConvNextConfig, ResNetConfig

from conf.errors import UserError
from conf.schema.stage.student import Shape
from models.architectures.configs import fitted_config
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.students.sizes import student_of_size

pytestmark = pytest.mark.thorough

SENTENCES = Interface("sequence-classification", 64, vocabulary=30522, end_id=102, pad_id=0, classes=5)
IMAGES = Interface("image-classification", 2, classes=10, image_shape=(3, 224, 224))


def text(vocabulary: int) -> Interface:
    return Interface("causal-lm", 64, vocabulary=vocabulary, end_id=0, pad_id=1)


def llama(width: int, layers: int, heads: int, groups: int, wide: int) -> Any:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": groups}
    return AutoConfig.for_model("llama", intermediate_size=wide, tie_word_embeddings=True, **sizes)


SMOLLM2 = llama(576, 30, 9, 3, 1536)
QWEN3 = AutoConfig.for_model(
    "qwen3", hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, intermediate_size=3072, num_key_value_heads=8, head_dim=128
)
CASES = {
    "llama": (SMOLLM2, text(49152), 40_000_000),
    "llama, mostly ids": (SMOLLM2, text(49152), 4_000_000),
    "tiny llama": (llama(64, 4, 4, 4, 160), text(258), 30_000),
    "bert": (AutoConfig.for_model("bert"), SENTENCES, 12_000_000),
    "vit": (AutoConfig.for_model("vit"), IMAGES, 12_000_000),
    "qwen3": (QWEN3, text(151_936), 200_000_000),
    "gpt2": (AutoConfig.for_model("gpt2"), text(50257), 20_000_000),
    "distilbert": (AutoConfig.for_model("distilbert"), SENTENCES, 12_000_000),
    "modernbert": (AutoConfig.for_model("modernbert"), SENTENCES, 12_000_000),
}


def made_config(made: Shape | dict[str, Any], interface: Interface) -> Any:
    return config_for(made, interface) if isinstance(made, Shape) else fitted_config(made, interface, "config")


@pytest.mark.parametrize(
    ("teacher", "wanted"),
    [(ConvNextConfig(), 7_000_000), (ResNetConfig(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic"), 2_000_000)],
)
def test_convolutions_become_narrower_and_stay_as_deep(teacher: Any, wanted: int) -> None:
    made = student_of_size(teacher, wanted, IMAGES, "student")
    assert isinstance(made, dict)
    config = fitted_config(made, IMAGES, "config")
    with torch.device("meta"):
        counted = sum(p.numel() for p in build(config, "image-classification").parameters())
    assert counted == pytest.approx(wanted, rel=0.03)
    assert config.depths == teacher.depths
    assert all(mine < theirs for mine, theirs in zip(config.hidden_sizes, teacher.hidden_sizes, strict=True))
    with pytest.raises(UserError, match="nearest is"):
        student_of_size(teacher, 10**10, IMAGES, "student")


@pytest.mark.parametrize("name", CASES)
def test_within_three_percent(name: str) -> None:
    teacher, interface, wanted = CASES[name]
    made = student_of_size(teacher, wanted, interface, "student")
    config = made_config(made, interface)
    with torch.device("meta"):
        counted = sum(p.numel() for p in build(config, interface.workload).parameters())
    assert counted == pytest.approx(wanted, rel=0.03)
    assert config.model_type == teacher.model_type
    assert config.num_hidden_layers < teacher.num_hidden_layers


def test_proportions_are_the_teachers() -> None:
    made = student_of_size(SMOLLM2, 40_000_000, text(49152), "student")
    assert isinstance(made, Shape)
    assert (made.hidden_size // made.heads, made.heads // (made.key_value_heads or made.heads)) == (64, 3)
    assert made.feed_forward / made.hidden_size == pytest.approx(1536 / 576, rel=0.2)
    assert made.layers / 30 == pytest.approx(made.hidden_size / 576, rel=0.4)
    made = student_of_size(QWEN3, 200_000_000, text(151_936), "student")
    assert isinstance(made, dict)
    assert made["head_dim"] == 128
    assert made["num_attention_heads"] == 2 * made["num_key_value_heads"]
    assert set(made) & {"vocab_size", "layer_types", "transformers_version"} == set()


def test_a_pruned_student_has_a_shape() -> None:
    assert isinstance(student_of_size(QWEN3, 200_000_000, text(151_936), "student", prune=True), Shape)


def test_what_cannot_be() -> None:
    said = r"^student\.parameters: got 'the gpt2 settings of the teacher'; .*config\.json\. \(transformers said: 'x'\)"
    with pytest.raises(UserError, match=said):
        student_of_size(AutoConfig.for_model("gpt2", activation_function="x"), 20_000_000, text(50257), "student")
    with pytest.raises(UserError, match=r"^stages\[0\]\.student\.parameters: got 300000; .*can have; the smallest has"):
        student_of_size(SMOLLM2, 300_000, text(49152), "stages[0].student")
    with pytest.raises(UserError, match="a transformer with heads and layers; it is of type mamba"):
        student_of_size(AutoConfig.for_model("mamba"), 300_000, text(300), "student")


def test_names_that_the_architecture_does_not_have_are_not_taken_over() -> None:
    settings = {**QWEN3.to_dict(), "of_another_program": 1}
    made = student_of_size(AutoConfig.for_model(**settings), 200_000_000, text(151_936), "student")
    assert isinstance(made, dict)
    assert "of_another_program" not in made
