import copy
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from conf.errors import UserError
from conf.schema.stage.student import Shape, Student
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.students.initialise import evenly_spaced, layer_sources, make_student, random_model

TEXT = Interface("causal-lm", 16, vocabulary=40, end_id=0, pad_id=1)
SENTENCES = Interface("sequence-classification", 16, vocabulary=40, end_id=0, pad_id=1, classes=3)
IMAGES = Interface("image-classification", 2, classes=3, image_shape=(1, 4, 4))
KEY = "stages[1].student"


def shape(**changes) -> Shape:
    return Shape.model_validate({"hidden_size": 16, "layers": 4, "heads": 2, "feed_forward": 24} | changes)


def teacher_of(interface: Interface, **changes) -> nn.Module:
    torch.manual_seed(7)
    return build(config_for(shape(**changes), interface), interface.workload).eval()


def student_of(initialisation: str = "layers", **changes) -> Student:
    return Student.model_validate({"shape": shape(**changes), "initialisation": initialisation})


def made(teacher: nn.Module, interface: Interface = TEXT, seed: int = 0, initialisation: str = "layers", **changes) -> nn.Module:
    return make_student(student_of(initialisation, **changes), teacher, interface, seed, KEY).model.eval()


@pytest.mark.parametrize(
    ("teacher", "student", "kept"),
    [(12, 6, [0, 2, 4, 7, 9, 11]), (5, 3, [0, 2, 4]), (4, 2, [0, 3]), (4, 4, [0, 1, 2, 3]), (4, 1, [0]), (1, 1, [0])],
)
def test_evenly_spaced_by_hand(teacher: int, student: int, kept: list[int]) -> None:
    assert evenly_spaced(teacher, student) == kept


@given(st.integers(1, 80).flatmap(lambda teacher: st.tuples(st.just(teacher), st.integers(1, teacher))))
def test_evenly_spaced_takes_first_and_last_and_none_twice(depths: tuple[int, int]) -> None:
    teacher, student = depths
    kept = evenly_spaced(teacher, student)
    assert len(kept) == len(set(kept)) == student
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert student == 1 or kept[-1] == teacher - 1
    gaps = [b - a for a, b in pairwise(kept)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("interface", "family", "layer"),
    [
        (TEXT, "llama", "model.layers"),
        (SENTENCES, "bert", "bert.encoder.layer"),
        (SENTENCES, "llama", "model.layers"),
        (IMAGES, "vit", "vit.layers"),
    ],
    ids=["llama", "bert", "llama classifier", "vit"],
)
def test_layers_are_copied_exactly(interface: Interface, family: str, layer: str) -> None:
    teacher = teacher_of(interface, family=family, layers=5)
    student = made(teacher, interface, family=family, layers=3)
    theirs, ours = teacher.state_dict(), student.state_dict()
    assert any(name.startswith(f"{layer}.2.") for name in ours)
    for name, tensor in ours.items():
        origin = name
        for index, source in enumerate([0, 2, 4]):
            if name.startswith(f"{layer}.{index}."):
                origin = name.replace(f"{layer}.{index}.", f"{layer}.{source}.")
        assert torch.equal(tensor, theirs[origin]), name
    assert not {t.data_ptr() for t in ours.values()} & {t.data_ptr() for t in theirs.values()}


def test_a_student_with_every_layer_is_its_teacher() -> None:
    teacher = teacher_of(TEXT, key_value_heads=1)
    student = made(teacher, key_value_heads=1)
    ids = torch.arange(20).view(2, 10)
    assert torch.equal(student(input_ids=ids).logits, teacher(input_ids=ids).logits)


def test_settings_that_change_the_function_of_a_layer_are_taken_over() -> None:
    config = config_for(shape(), TEXT)
    config.update({"rms_norm_eps": 1e-2, "hidden_act": "gelu", "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}})
    torch.manual_seed(0)
    teacher = build(config, "causal-lm").eval()
    student = made(teacher)
    ids = torch.arange(40).view(2, 20)
    assert torch.allclose(student(input_ids=ids).logits, teacher(input_ids=ids).logits, atol=1e-6)
    student.config.rope_parameters["rope_theta"] = 1.0
    assert teacher.config.rope_parameters["rope_theta"] == 50.0


def test_a_padded_vocabulary_is_cut() -> None:
    wide = Interface("causal-lm", 16, vocabulary=64, end_id=0, pad_id=1)
    for tied in (True, False):
        teacher = teacher_of(wide, tied_embeddings=tied)
        student = made(teacher, layers=4, tied_embeddings=tied)
        ids = torch.arange(40).view(2, 20)
        assert student(input_ids=ids).logits.shape == (2, 20, 40)
        assert torch.allclose(student(input_ids=ids).logits, teacher(input_ids=ids).logits[..., :40], atol=1e-6)


def test_an_untied_student_may_take_a_tied_teachers_head() -> None:
    teacher = teacher_of(TEXT, tied_embeddings=True)
    student = made(teacher, tied_embeddings=False)
    ids = torch.arange(20).view(2, 10)
    assert torch.equal(student(input_ids=ids).logits, teacher(input_ids=ids).logits)
    assert student.get_output_embeddings().weight is not student.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"hidden_size": 8}, r"embed_tokens\.weight has shape \(40, 8\), the teacher has shape \(40, 16\)"),
        ({"feed_forward": 20}, r"gate_proj\.weight has shape \(20, 16\), the teacher has shape \(24, 16\)"),
        ({"heads": 4}, "num_attention_heads is 4 in the student and 2 in the teacher"),
        ({"key_value_heads": 1}, "num_key_value_heads is 1 in the student and 2 in the teacher"),
    ],
)
def test_layers_of_another_shape_are_refused_by_name(changes: dict[str, int], difference: str) -> None:
    with pytest.raises(UserError, match=difference) as caught:
        made(teacher_of(TEXT), **changes)
    assert str(caught.value).startswith("stages[1].student.initialisation: got 'layers'; allowed: ")
    assert str(caught.value).endswith("Make the shapes equal, or use initialisation=random.")


def test_a_tied_student_of_an_untied_teacher_is_refused() -> None:
    with pytest.raises(UserError, match="ties its output head"):
        made(teacher_of(TEXT, tied_embeddings=False), tied_embeddings=True)


def test_a_teacher_of_another_architecture_is_refused() -> None:
    config = Qwen2Config(
        vocab_size=40, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2, intermediate_size=24
    )
    config.pad_token_id = None
    with pytest.raises(UserError, match="model_type is llama in the student and qwen2 in the teacher"):
        made(AutoModelForCausalLM.from_config(config))


def test_a_teachers_weight_without_a_place_is_refused() -> None:
    config = config_for(shape(), TEXT)
    config.attention_bias = True
    with pytest.raises(UserError, match=r"the teacher's model\.layers\.0\.self_attn\.q_proj\.bias has no place in the student"):
        made(build(config, "causal-lm"))


def test_sources_are_known_without_memory() -> None:
    with torch.device("meta"):
        teacher = build(config_for(shape(layers=4), TEXT), "causal-lm")
        student = build(config_for(shape(layers=2), TEXT), "causal-lm")
    sources = layer_sources(student, teacher, TEXT, KEY)
    assert sources["model.layers.1.mlp.up_proj.weight"] == ("model.layers.3.mlp.up_proj.weight", 24)
    assert sources.keys() == student.state_dict().keys()


def test_random_weights_are_a_function_of_the_seed_and_leave_the_generator_alone() -> None:
    teacher = teacher_of(TEXT)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, other, third = (made(teacher, seed=seed, initialisation="random", hidden_size=8).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_a_teacher_is_not_changed() -> None:
    teacher = teacher_of(TEXT)
    before = copy.deepcopy(teacher.state_dict())
    student = made(teacher, layers=2)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_make_student_builds_the_given_shape(model_for: Callable[..., nn.Module]) -> None:
    student = made(teacher_of(TEXT), initialisation="random", hidden_size=8, layers=3, heads=2, key_value_heads=1, feed_forward=12)
    config = student.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (8, 3, 2, 1)
    assert (config.intermediate_size, config.vocab_size, config.tie_word_embeddings) == (12, 40, True)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("interface", "changes"),
    [
        (Interface("causal-lm", 16, vocabulary=258, end_id=256, pad_id=257), {"hidden_size": 128, "heads": 4}),
        (Interface("causal-lm", 16, vocabulary=258, end_id=256, pad_id=257), {"hidden_size": 16, "layers": 1}),
        (Interface("causal-lm", 16, vocabulary=258, end_id=256, pad_id=257), {"hidden_size": 64, "tied_embeddings": False}),
        (Interface("causal-lm", 16, vocabulary=8000, end_id=0, pad_id=1), {"hidden_size": 256, "layers": 1, "key_value_heads": 1}),
        (SENTENCES, {"family": "bert", "hidden_size": 24}),
        (SENTENCES, {"family": "llama", "hidden_size": 24}),
        (IMAGES, {"family": "vit", "hidden_size": 24}),
        (IMAGES, {"family": "vit", "hidden_size": 15, "heads": 1}),
    ],
    ids=["bytes", "narrow", "untied", "large vocabulary", "bert", "llama classifier", "vit", "odd width"],
)
def test_random_weights_begin_no_worse_than_a_uniform_guess(interface: Interface, changes: dict[str, object], seed: int) -> None:
    model = random_model(config_for(shape(**{"layers": 2} | changes), interface), interface.workload, seed).eval()
    outputs = interface.vocabulary if interface.workload == "causal-lm" else interface.classes
    assert outputs is not None
    inputs = torch.rand(8, 1, 4, 4) if interface.image_shape else torch.randint(2, interface.vocabulary or 0, (8, 16))
    logits = model(inputs).logits.flatten(0, -2)
    loss = nn.functional.cross_entropy(logits, torch.randint(0, outputs, (len(logits),)))
    assert float(loss.detach()) <= math.log(outputs) + 0.05
    loss.backward()
    head = dict(model.named_parameters()).get("lm_head.weight", next(reversed(list(model.parameters()))))
    assert head.grad is not None
    assert float(head.grad.norm()) > 1e-3, "the head learns from the first step on"
