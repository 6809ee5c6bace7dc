from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from conf.schema.stage.student import Shape
from models.architectures.attention import LIMIT, NAME, _Attention, attention, single_precision_gradient
from models.architectures.shapes import build, config_for
from models.base.interface import Interface

TEXT = Interface("causal-lm", 64, vocabulary=300, end_id=0, pad_id=1)
IMAGES = Interface("image-classification", 2, classes=10, image_shape=(3, 16, 16))


class Layer(nn.Module):
    """What an attention function is told of the layer that asks."""

    def __init__(self, is_causal: bool, groups: int = 1) -> None:
        super().__init__()
        self.is_causal, self.num_key_value_groups = is_causal, groups


def inputs(heads: int = 3, of_keys: int = 3, length: int = 24, size: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, count, length, size, generator=generator) for count in (heads, of_keys, of_keys)]


def exact(given: list[Tensor], weights: Tensor, causal: bool) -> tuple[Tensor, ...]:
    """Output and gradients by the formula, in double precision."""
    q, k, v = (each.detach().double().requires_grad_() for each in given)
    groups = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(groups, 1).mT / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    found = (scores.softmax(-1) @ v.repeat_interleave(groups, 1)).transpose(1, 2)
    return (found.detach(), *torch.autograd.grad((found * weights).sum(), (q, k, v)))


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.detach().double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("of_keys", [3, 1])
@pytest.mark.parametrize("autocast", [True, False])
def test_values_and_gradients_are_those_of_the_formula(causal: bool, of_keys: int, autocast: bool, asked: list[str]) -> None:
    given = [each.bfloat16() for each in inputs(of_keys=of_keys)]
    weights = torch.randn(2, 24, 3, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    q, k, v = ((each.float() if autocast else each).detach().requires_grad_() for each in given)
    with torch.autocast("cpu", enabled=autocast):
        found, none = attention(Layer(causal, 3 // of_keys), q, k, v, None)
        assert none is None
        assert found.dtype == torch.bfloat16
    assert len(asked) == 1
    gradients = torch.autograd.grad((found.double() * weights).sum(), (q, k, v))
    for mine, wanted in zip((found, *gradients), exact(given, weights, causal), strict=True):
        assert error(mine, wanted) < 0.01  # bf16 keeps 8 bits, and the output is rounded before the gradient sees it


def test_the_gradient_is_as_exact_as_that_of_pytorch() -> None:
    given = [each.bfloat16() for each in inputs(length=96)]
    weights = torch.randn(2, 96, 3, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = exact(given, weights, True)[1:]
    leaves = [each.requires_grad_() for each in given]
    found, _ = attention(Layer(True), leaves[0], leaves[1], leaves[2], None)
    ours = torch.autograd.grad((found.double() * weights).sum(), leaves)
    plain = scaled_dot_product_attention(*leaves, is_causal=True).transpose(1, 2)
    theirs = torch.autograd.grad((plain.double() * weights).sum(), leaves)
    assert torch.equal(found, plain)
    for mine, other, true in zip(ours, theirs, wanted, strict=True):
        assert error(mine, true) <= 1.05 * error(other, true)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that the attention of this project computes something."""
    found, plain = list[str](), _Attention.apply
    monkeypatch.setattr(_Attention, "apply", lambda *inputs: found.append("asked") or plain(*inputs))
    return found


def wide(value: Tensor) -> Tensor:
    """The same numbers, the last dimension no longer side by side in memory."""
    return value.mT.contiguous().mT


WHOLE = torch.ones(2, 1, 24, 24, dtype=torch.bool)
ELSEWHERE = {
    "mask": ({}, {"attention_mask": WHOLE}),
    "dropout": ({}, {"dropout": 0.5}),
    "position bias": ({}, {"position_bias": torch.zeros(1, 3, 24, 24, dtype=torch.bfloat16)}),
    "long": ({"length": LIMIT // 16 + 1}, {}),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_options_that_it_does_not_support_go_to_sdpa(name: str, asked: list[str]) -> None:
    changed, more = ELSEWHERE[name]
    q, k, v = (each.bfloat16().requires_grad_() for each in inputs(**changed))
    attention(Layer(True), q, k, v, **{"attention_mask": None, **more})
    assert not asked


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_tensors_of_another_memory_layout_go_to_sdpa(name: str, asked: list[str]) -> None:
    given = {each: value.bfloat16() for each, value in zip(("query", "key", "value"), inputs(), strict=True)}
    expected, _ = attention(Layer(True), **{each: value.requires_grad_() for each, value in given.items()}, attention_mask=None)
    assert len(asked) == 1
    given[name] = wide(given[name].detach()).requires_grad_()
    found, _ = attention(Layer(True), **given, attention_mask=None)
    assert len(asked) == 1
    assert torch.allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(("name", "shape"), [("query", (2, 3, 12, 16)), ("value", (2, 3, 24, 8)), ("query", (1, 3, 24, 16))])
def test_tensors_of_other_shapes_go_to_sdpa(name: str, shape: tuple[int, ...], asked: list[str]) -> None:
    given = {each: value.bfloat16().requires_grad_() for each, value in zip(("query", "key", "value"), inputs(), strict=True)}
    given[name] = torch.randn(shape).bfloat16().requires_grad_()
    attention(Layer(False), **given, attention_mask=None)
    assert not asked


def test_single_precision_and_inference_go_to_sdpa(asked: list[str]) -> None:
    q, k, v = inputs()
    attention(Layer(True), q.requires_grad_(), k, v, None)
    with torch.no_grad():
        attention(Layer(True), q.bfloat16(), k.bfloat16(), v.bfloat16(), None)
    assert not asked
    attention(Layer(True), q.bfloat16(), k.bfloat16(), v.bfloat16(), None)
    assert asked


@pytest.mark.parametrize(("family", "interface"), [("llama", TEXT), ("vit", IMAGES)])
def test_a_model_is_switched_for_a_training_and_back(family: str, interface: Interface) -> None:
    shape = Shape.model_validate({"family": family, "hidden_size": 32, "layers": 2, "heads": 2, "feed_forward": 48})
    torch.manual_seed(0)
    model = cast(Any, build(config_for(shape, interface), interface.workload)).train()
    asked = {"input_ids": torch.arange(2, 42).view(2, 20)} if family == "llama" else {"pixel_values": torch.rand(2, 3, 16, 16)}

    def gradient() -> tuple[str, Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(**asked).logits.float()
        logits.logsumexp(-1).sum().backward()
        return model.config._attn_implementation, torch.cat([p.grad.flatten() for p in model.parameters()])

    plain = gradient()
    with single_precision_gradient(model):
        switched = gradient()
    assert (plain[0], switched[0], gradient()[0]) == ("sdpa", NAME, "sdpa")
    assert not torch.equal(plain[1], switched[1])  # or nothing was switched
    assert error(switched[1], plain[1].double()) < 0.02
    assert NAME not in str(model.config.to_dict())


def test_a_model_with_attention_of_its_own_is_left_alone() -> None:
    shape = Shape.model_validate({"hidden_size": 32, "layers": 2, "heads": 2, "feed_forward": 48})
    model = cast(Any, build(config_for(shape, TEXT), "causal-lm"))
    model.set_attn_implementation("eager")
    with single_precision_gradient(model):
        assert model.config._attn_implementation == "eager"
    with single_precision_gradient(nn.Linear(2, 2)):
        pass
