"""Operations by formula and by PyTorch's counter agree, and the counter takes any architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conf.errors import UserError
from models.architectures.configs import build_from, fitted_config
from models.architectures.operations import WITH_FORMULA, by_counter, by_formula
from models.architectures.shapes import build, count
from models.base.interface import Interface

TEXT = Interface("causal-lm", 48, vocabulary=300, end_id=0, pad_id=1)
SENTENCES = Interface("sequence-classification", 48, vocabulary=300, end_id=0, pad_id=1, classes=5)
IMAGES = Interface("image-classification", 2, classes=10, image_shape=(3, 16, 16))

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}
CASES: dict[str, tuple[Interface, dict[str, Any]]] = {
    "llama": (TEXT, SIZES),
    "qwen2": (TEXT, SIZES),
    "qwen3": (TEXT, GROUPED),
    "gemma2": (TEXT, GROUPED),
    "mistral": (TEXT, GROUPED),
    "gpt2": (TEXT, {"n_embd": 32, "n_layer": 3, "n_head": 4}),
    "distilbert": (SENTENCES, {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}),
    "modernbert": (SENTENCES, SIZES),
    "deberta-v2": (SENTENCES, {**SIZES, **DEBERTA, "pooler_hidden_size": 32}),
    "vit": (IMAGES, {**SIZES, "patch_size": 4}),
    "convnext": (IMAGES, {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2}),
    "resnet": (IMAGES, {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]}),
}


def config(name: str) -> tuple[Any, Interface]:
    interface, sizes = CASES[name]
    return fitted_config({"model_type": name, **sizes}, interface, "student.config"), interface


@pytest.mark.parametrize("name", CASES)
def test_the_counter_without_weights_counts_what_a_real_pass_takes(name: str) -> None:
    made, interface = config(name)
    model = build(made, interface.workload).eval()
    inputs = {"input_ids": torch.randint(2, 300, (1, interface.sequence_length))}
    if interface.image_shape:
        inputs = {"pixel_values": torch.rand(1, *interface.image_shape)}
    model.requires_grad_(False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)
    size = count(build_from(made, interface.workload, "student.config", device="meta"), interface.sequence_length)
    assert size.forward_flops == pytest.approx(counter.get_total_flops(), rel=0.03)
    assert by_counter(model, interface.sequence_length) == counter.get_total_flops()
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert size.width == 32


@pytest.mark.parametrize("name", sorted(WITH_FORMULA & set(CASES)))
def test_the_formula_is_within_three_percent_of_the_counter(name: str) -> None:
    made, interface = config(name)
    model = build_from(made, interface.workload, "student.config", device="meta")
    assert by_formula(model, interface.sequence_length) == pytest.approx(by_counter(model, interface.sequence_length), rel=0.03)


class TestConfigurations:
    def test_the_data_decide_ids_classes_and_images(self) -> None:
        made = fitted_config({"model_type": "distilbert", "vocab_size": 9, "num_labels": 2, "pad_token_id": 7}, SENTENCES, "config")
        assert (made.vocab_size, made.num_labels, made.pad_token_id, made.eos_token_id) == (300, 5, 1, 0)
        assert (made.dropout, made.attention_dropout, made.seq_classif_dropout) == (0.0, 0.0, 0.0)
        assert fitted_config({"model_type": "distilbert", "dropout": 0.2}, SENTENCES, "config").dropout == 0.2
        made = fitted_config({"model_type": "vit", "image_size": 99}, IMAGES, "config")
        assert (made.image_size, made.num_channels, made.num_labels) == (16, 3, 10)

    def test_positions(self) -> None:
        long = Interface("sequence-classification", 600, vocabulary=300, end_id=0, pad_id=1, classes=5)
        assert fitted_config({"model_type": "bert"}, long, "config").max_position_embeddings == 600
        assert fitted_config({"model_type": "roberta"}, long, "config").max_position_embeddings == 602  # ids begin after the pad id
        with pytest.raises(UserError, match=r"^config\.max_position_embeddings: got 512; allowed: at least 600"):
            fitted_config({"model_type": "bert", "max_position_embeddings": 512}, long, "config")

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"model_type": "qwen33"}, r"^config\.model_type: got 'qwen33'; allowed: a configuration that transformers knows"),
            ({"model_type": "qwen3", "hidden_size": "wide"}, r"^config\.hidden_size: got 'wide'; allowed: a whole number"),
            ({"model_type": "llama", "auto_map": {"AutoConfig": "code.Config"}}, r"^config\.auto_map: .*never does"),
        ],
    )
    def test_what_transformers_does_not_know(self, given: dict[str, Any], says: str) -> None:
        with pytest.raises(UserError, match=says):
            fitted_config(given, TEXT, "config")

    def test_an_architecture_of_another_workload(self) -> None:
        made = fitted_config({"model_type": "vit"}, TEXT, "config")
        with pytest.raises(UserError, match=r"^config\.model_type: got 'vit'; allowed: a configuration that AutoModelForCausalLM builds"):
            build_from(made, "causal-lm", "config", device="meta")
