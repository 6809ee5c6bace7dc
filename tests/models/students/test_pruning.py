"""Pruning keeps the important parts and changes nothing where nothing is cut."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from conf.errors import UserError
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import load_model, save_model
from models.base.interface import Interface
from models.data.batches import Batch
from models.students.importance import Importance, measure_importance
from models.students.pruning import axes_of, prune

TEXT = Interface("causal-lm", 12, vocabulary=40, end_id=0, pad_id=1)
SENTENCES = Interface("sequence-classification", 12, vocabulary=40, end_id=0, pad_id=1, classes=3)
KEY = "stages[1].student"
COMMON: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "intermediate_size": 24,
    "pad_token_id": 1,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "initializer_range": 0.3,
}
CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **more: LlamaConfig(**(COMMON | {"attention_bias": True, "rms_norm_eps": 1e-9} | more)),
    "mistral": lambda **more: MistralConfig(**(COMMON | {"rms_norm_eps": 1e-9} | more)),
    "qwen2": lambda **more: Qwen2Config(**(COMMON | {"rms_norm_eps": 1e-9} | more)),
    "qwen3": lambda **more: Qwen3Config(**(COMMON | {"rms_norm_eps": 1e-9} | more)),
}


def shape(**changes: Any) -> Shape:
    same = {"hidden_size": 16, "layers": 3, "heads": 4, "key_value_heads": 2, "head_dim": 4, "feed_forward": 24, "tied_embeddings": False}
    return Shape.model_validate(same | changes)


def teacher_of(kind: str, **more: Any) -> Any:
    """A causal LM whose every weight and bias is random, norms included."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind](**more)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    return model


def encoder() -> Any:
    torch.manual_seed(4)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=24,
        pad_token_id=1,
        num_labels=3,
        initializer_range=0.3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config).eval()


def batches(count: int = 4, padded: bool = False) -> Iterable[Batch]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        inputs = {"input_ids": torch.randint(2, 40, (3, 12), generator=generator)}
        if padded:
            inputs["attention_mask"] = (torch.arange(12)[None, :] < torch.tensor([12, 7, 4])[:, None]).long()
        yield Batch(inputs, torch.zeros(3, 12, dtype=torch.int64), torch.zeros(3))


def pruned(teacher: nn.Module, wanted: Shape, interface: Interface = TEXT, **more: Any) -> Any:
    return prune(wanted, teacher, interface, batches, KEY, **more).model.eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(**batch.inputs).logits.flatten(0, -2) for batch in batches()])


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("tied", [False, True])
def test_pruning_to_the_same_shape_is_the_identity(kind: str, tied: bool) -> None:
    teacher = teacher_of(kind, tie_word_embeddings=tied)
    student = pruned(teacher, shape(tied_embeddings=tied))
    theirs = teacher.state_dict()
    assert student.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in student.state_dict().items())
    assert student.config.model_type == kind


def test_pruning_an_encoder_to_the_same_shape_is_the_identity() -> None:
    teacher = encoder()
    student = pruned(teacher, shape(family="bert", head_dim=None, key_value_heads=None), SENTENCES)
    assert torch.equal(logits(student), logits(teacher))


@pytest.mark.parametrize("kind", CONFIGS)
def test_channels_that_are_zero_are_cut_and_nothing_is_lost(kind: str) -> None:
    teacher, dead = teacher_of(kind), [1, 2, 7, 15]
    with torch.no_grad():
        for name, tensor in teacher.named_parameters():
            if axes_of(name, kind)[0] == "hidden" and "norm" not in name:  # what writes into the stream
                tensor[dead] = 0.0
            if name.endswith("embed_tokens.weight"):
                tensor[:, dead] = 0.0
    student = pruned(teacher, shape(hidden_size=12))
    assert student.config.hidden_size == 12
    assert torch.allclose(logits(student), logits(teacher), atol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_units_that_are_zero_are_cut_layer_by_layer_and_nothing_is_lost(kind: str) -> None:
    teacher = teacher_of(kind)
    with torch.no_grad():
        for layer, dead in zip(teacher.model.layers, ([0, 5], [3, 23], [8, 9]), strict=True):
            layer.mlp.up_proj.weight[dead] = 0.0
    student = pruned(teacher, shape(feed_forward=22))
    assert student.model.layers[1].mlp.down_proj.weight.shape == (16, 22)
    assert torch.allclose(logits(student), logits(teacher), atol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_group_whose_values_are_zero_is_cut_with_its_queries_and_nothing_is_lost(kind: str) -> None:
    teacher = teacher_of(kind)
    with torch.no_grad():
        for layer, dead in zip(teacher.model.layers, (0, 1, 0), strict=True):
            values = layer.self_attn.v_proj
            values.weight[4 * dead : 4 * dead + 4] = 0.0
            if values.bias is not None:
                values.bias[4 * dead : 4 * dead + 4] = 0.0
    student = pruned(teacher, shape(heads=2, key_value_heads=1))
    assert (student.config.num_attention_heads, student.config.num_key_value_heads) == (2, 1)
    assert torch.allclose(logits(student), logits(teacher), atol=1e-4)


def test_a_query_head_is_cut_within_its_group() -> None:
    """Of groups (0, 1) and (2, 3), heads 1 and 2 are made weak by the scores that are planted; 0 and 3 keep their own keys."""
    teacher = teacher_of("llama")
    measured = measure_importance(teacher, batches())
    scores = torch.tensor([[5.0, 1.0, 2.0, 6.0]] * 3, dtype=torch.float64)
    planted = Importance(12, measured.hidden, scores, measured.feed_forward, measured.blocks, measured.energy)
    student = pruned(teacher, shape(heads=2), measured=planted)
    with torch.no_grad():
        for layer in teacher.model.layers:
            layer.self_attn.o_proj.weight[:, 4:12] = 0.0
    assert torch.allclose(logits(student), logits(teacher), atol=1e-4)


def test_an_encoders_planted_heads_and_units_are_cut_and_nothing_is_lost() -> None:
    teacher = encoder()
    with torch.no_grad():
        for layer, dead in zip(teacher.bert.encoder.layer, (0, 3, 2), strict=True):
            value = layer.attention.self.value
            value.weight[4 * dead : 4 * dead + 4] = 0.0
            value.bias[4 * dead : 4 * dead + 4] = 0.0
            layer.intermediate.dense.weight[5] = 0.0
            layer.intermediate.dense.bias[5] = 0.0
    student = pruned(
        teacher, shape(family="bert", head_dim=None, key_value_heads=None, feed_forward=23), SENTENCES
    )  # gelu(0) = 0, so the unit is idle
    assert torch.allclose(logits(student), logits(teacher), atol=1e-5)
    scores = measure_importance(teacher, batches()).heads
    assert [int(row.argmin()) for row in scores] == [0, 3, 2]


def test_an_encoder_becomes_narrower_and_shorter() -> None:
    student = pruned(
        encoder(), shape(family="bert", hidden_size=8, heads=2, head_dim=None, key_value_heads=None, layers=1, feed_forward=10), SENTENCES
    )
    assert student.bert.encoder.layer[0].attention.self.query.weight.shape == (8, 8)
    assert student.config.num_hidden_layers == 1
    assert bool(logits(student).isfinite().all())


@pytest.mark.parametrize("idle", [0, 1, 2])
@pytest.mark.parametrize("hidden", [16, 12])
def test_the_layer_that_does_nothing_is_the_one_removed(idle: int, hidden: int) -> None:
    teacher = teacher_of("qwen3")
    with torch.no_grad():
        teacher.model.layers[idle].self_attn.o_proj.weight.zero_()
        teacher.model.layers[idle].mlp.down_proj.weight.zero_()
    whole = pruned(teacher, shape(hidden_size=hidden))
    short = pruned(teacher, shape(hidden_size=hidden, layers=2))
    assert short.config.num_hidden_layers == len(short.config.layer_types) == 2
    assert torch.allclose(logits(short), logits(whole), atol=1e-5)


def test_a_padded_vocabulary_is_cut() -> None:
    teacher = teacher_of("llama")
    student = prune(shape(layers=2), teacher, replace(TEXT, vocabulary=38), batches, KEY).model
    assert torch.equal(cast(Any, student).get_input_embeddings().weight, teacher.get_input_embeddings().weight[:38])
    assert torch.equal(cast(Any, student).get_output_embeddings().weight, teacher.get_output_embeddings().weight[:38])


def test_importance_by_hand() -> None:
    """Two samples of different lengths: the mean over a sequence, the L2 norm over samples, padding left out."""
    teacher = encoder()
    inputs = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 1]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    found = measure_importance(teacher, [Batch(inputs, torch.zeros(2), torch.zeros(2))])
    kept: list[Tensor] = []
    hook = teacher.bert.encoder.layer[1].output.dense.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    states = teacher.bert(**inputs, output_hidden_states=True).hidden_states
    hook.remove()
    means = torch.stack([kept[0][0].abs().mean(dim=0), kept[0][1, :2].abs().mean(dim=0)])
    assert torch.allclose(found.feed_forward[1], means.square().sum(dim=0).sqrt().double(), rtol=1e-5)
    cosines = nn.functional.cosine_similarity(states[1], states[2], dim=-1)
    expected = 1 - torch.cat([cosines[0], cosines[1, :2]]).mean().detach()
    assert float(found.blocks[1]) == pytest.approx(float(expected), abs=1e-6)
    assert found.samples == 2


def test_a_heads_importance_is_the_norm_of_its_contribution() -> None:
    teacher, batch = teacher_of("llama"), next(iter(batches()))
    found, kept = measure_importance(teacher, [batch]), list[Tensor]()
    projection = teacher.model.layers[1].self_attn.o_proj
    with projection.register_forward_pre_hook(lambda _, given: kept.append(given[0])), torch.no_grad():
        teacher(**batch.inputs)
    parts = [kept[0][..., 4 * head : 4 * head + 4] @ projection.weight[:, 4 * head : 4 * head + 4].T for head in range(4)]
    lengths = torch.stack(parts, dim=2).norm(dim=-1)  # (S, L, A)
    assert torch.allclose(found.heads[1], lengths.mean(dim=1).square().sum(dim=0).sqrt().detach().double(), rtol=1e-5)


def test_importance_does_not_depend_on_how_it_is_batched() -> None:
    teacher = teacher_of("llama")
    whole = list(batches())
    ids = torch.cat([batch.inputs["input_ids"] for batch in whole])
    at_once = [Batch({"input_ids": ids}, torch.zeros(len(ids), 12), torch.zeros(len(ids)))]
    one, other = measure_importance(teacher, whole), measure_importance(teacher, at_once)
    for name in ("hidden", "heads", "feed_forward", "blocks"):
        assert torch.allclose(getattr(one, name), getattr(other, name), rtol=1e-5), name


def test_importance_is_written_and_read_and_serves_a_resumed_student() -> None:
    teacher = teacher_of("llama")
    first = prune(shape(hidden_size=12, layers=2, feed_forward=20), teacher, TEXT, batches, KEY)
    read = Importance.from_json(first.importance.to_json())

    def never() -> Iterable[Batch]:
        raise AssertionError("importance is known")

    again = prune(shape(hidden_size=12, layers=2, feed_forward=20), teacher, TEXT, never, KEY, measured=read)
    assert torch.allclose(logits(again.model), logits(first.model), atol=1e-4)


def test_pruning_does_not_change_the_teacher() -> None:
    teacher = teacher_of("qwen2").train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    state = torch.get_rng_state()
    student = pruned(teacher, shape(layers=2, hidden_size=12))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert teacher.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in teacher.modules())
    assert (teacher.config.hidden_size, teacher.config.num_hidden_layers, len(teacher.config.layer_types)) == (16, 3, 3)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_pruned_model_is_saved_and_loaded_with_heads_of_the_teachers_width(kind: str, tmp_path: Path) -> None:
    student = pruned(teacher_of(kind), shape(hidden_size=12, layers=2, heads=2, key_value_heads=1, feed_forward=10))
    assert student.config.head_dim == 4 != 12 // 2
    save_model(student, tmp_path, None)
    assert torch.equal(logits(load_model(tmp_path, "causal-lm").eval()), logits(student))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 20}, r"shape\.hidden_size: got 20; allowed: at most the teacher's 16"),
        ({"layers": 4}, r"shape\.layers: got 4; allowed: at most the teacher's 3"),
        ({"feed_forward": 25}, r"shape\.feed_forward: got 25; allowed: at most the teacher's 24"),
        ({"hidden_size": 12, "heads": 6, "key_value_heads": 2}, r"shape\.heads: got 6; allowed: at most the teacher's 4"),
        ({"heads": 4, "key_value_heads": 4}, r"shape\.key_value_heads: got 4; allowed: at most the teacher's 2"),
        (
            {"hidden_size": 12, "heads": 3, "key_value_heads": 1},
            r"shape\.heads / shape\.key_value_heads: got 3; allowed: at most the teacher's 2",
        ),
        ({"head_dim": 2}, r"shape\.heads: got '4 heads of 2 features'; allowed: heads of 4 features.*set shape\.head_dim=4"),
        ({"tied_embeddings": True}, r"shape\.tied_embeddings: got True; allowed: false"),
    ],
    ids=str,
)
def test_a_shape_that_cannot_be_cut_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        pruned(teacher_of("llama"), shape(**changes))
    assert str(caught.value).startswith(KEY)


def test_another_kind_of_teacher_is_refused_and_the_supported_ones_are_named() -> None:
    other = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0))
    with pytest.raises(UserError, match=r"a teacher of type llama, mistral, qwen2, qwen3\. The teacher is of type gpt2"):
        pruned(cast(nn.Module, other), shape())
    with pytest.raises(UserError, match=r"a teacher of type llama, mistral, qwen2, qwen3\. The teacher is of type bert"):
        pruned(encoder(), shape(), SENTENCES)
