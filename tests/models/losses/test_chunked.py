"""The chunked loss equals the plain one and never holds all logits."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conf.schema.stage.objective import Objective
from models.data.batches import IGNORE, UNLABELLED, Batch
from models.losses import chunked
from models.losses.chunked import Head, chunked_loss
from models.losses.loss import HiddenSignal, LossSums, Signal, SparseSignal, StepObjective, TeacherSignal, distillation_loss
from models.signals.sources import hidden_rows, live, rows, split_head

N, H, V, PADDED = 23, 8, 50, 56
SIGNALS = ("none", "dense", "hidden", "top-k", "sampled")


def signals_of(kind: str, dtype: torch.dtype = torch.float32) -> list[Signal]:
    generator = torch.Generator().manual_seed(3)
    z = 2 * torch.randn(N, V, generator=generator, dtype=dtype)
    if kind == "none":
        return []
    if kind == "dense":
        z[:, 7] = -torch.inf
        return [TeacherSignal(z)]
    if kind == "hidden":
        made = [torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((N, 5), (V, 5), (V,))]
        return [HiddenSignal(*made)]
    values, ids = z.log_softmax(-1).topk(6, -1)
    if kind == "top-k":
        return [SparseSignal(ids, values, torch.log1p(-values.exp().sum(-1)))]
    ids[:, -1] = ids[:, 0]  # an unused place
    logs = torch.cat([values[:, :-1].log_softmax(-1), torch.full((N, 1), -torch.inf, dtype=dtype)], -1)
    return [SparseSignal(ids, logs, torch.full((N,), -torch.inf, dtype=dtype))]


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((N, H), (PADDED, H), (PADDED,)))
    targets = torch.randint(0, V, (N,), generator=generator)
    targets[::5] = IGNORE
    return hidden, weight, bias, targets


def both(
    signals: list[Signal], at: StepObjective, dtype: torch.dtype, unlabelled: slice | None = None, **more: Any
) -> list[tuple[LossSums, list[Tensor]]]:
    """(sums, gradients of hidden states, head and bias), plain and chunked; some rows without label."""
    *tensors, targets = inputs(dtype)
    if unlabelled is not None:
        targets[unlabelled] = torch.where(targets[unlabelled] == IGNORE, IGNORE, UNLABELLED)
    outcomes = []
    for form in ("plain", "chunked"):
        hidden, weight, bias = (each.clone().requires_grad_() for each in tensors)
        if form == "plain":
            sums = distillation_loss((hidden @ weight.T + bias)[:, :V], signals, targets, at)
            sums = sums._replace(total=0.3 * sums.total)
        else:
            sums = chunked_loss(hidden, Head(weight, bias), signals, targets, at, vocabulary=V, scale=0.3, **more)
        sums.total.backward()
        outcomes.append((LossSums(*(value.detach() for value in sums)), [hidden.grad, weight.grad, bias.grad]))
    return outcomes


def assert_equal(outcomes: list[tuple[LossSums, list[Tensor]]], tolerance: float = 1e-6) -> None:
    (plain, expected), (found, gradients) = outcomes
    for one, other in zip(plain, found, strict=True):
        assert float(other) == pytest.approx(float(one), rel=tolerance, nan_ok=True)
    for one, other in zip(expected, gradients, strict=True):
        assert (one - other).abs().max() <= tolerance * max(1.0, float(one.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("alpha", "temperature"), [(0.9, 1.0), (0.7, 2.0), (1.0, 1.0), (1.0, 0.5), (0.0, 1.0)])
@pytest.mark.parametrize("kind", SIGNALS)
def test_the_chunked_loss_equals_the_plain_one(
    kind: str, alpha: float, temperature: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "BLOCK_ELEMENTS", 3 * V)
    monkeypatch.setattr(chunked, "SLICE", 16)
    at = StepObjective(Objective(), alpha, temperature)
    for size in (7, 1, None):
        for unlabelled in (None, slice(None), slice(4, 20)):
            found = both(signals_of(kind, dtype), at, dtype, unlabelled, chunk=size)
            assert_equal(found, 1e-6 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize(
    "raw",
    [{"kind": kind} for kind in ("reverse-kl", "jsd", "skew-kl", "skew-reverse-kl", "tvd", "dkd", "taid")]
    + [{"wrong_teacher": "correct"}, {"wrong_teacher": "correct-only"}, {"standardize": True}, {"combine": "mean"}],
    ids=str,
)
def test_the_chunked_loss_equals_the_plain_one_for_every_objective(raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "AUTOGRAD_ELEMENTS", 4 * V)
    at = StepObjective(Objective.model_validate(raw), 0.7, 2.0, taid_share=0.6)
    several = [*signals_of("hidden"), *([TeacherSignal(torch.randn(N, V))] if "combine" in raw else [])]
    assert_equal(both(several, at, torch.float32, chunk=6), 2e-6)


def test_several_teachers_of_different_signals() -> None:
    at = StepObjective(Objective(), 0.7, 1.0)
    assert_equal(both([*signals_of("hidden"), *signals_of("top-k")], at, torch.float32, chunk=6))


def test_the_chunked_loss_does_not_change_the_signals() -> None:
    for kind in SIGNALS:
        given, again = signals_of(kind), signals_of(kind)
        both(given, StepObjective(Objective(), 0.5, 2.0), torch.float32)
        if given:  # and where every row counts, so that no row is selected
            hidden, weight, bias, _ = inputs()
            chunked_loss(
                hidden, Head(weight, bias), given, torch.zeros(N, dtype=torch.long), StepObjective(Objective(), 0.5, 2.0), vocabulary=V
            )
        for one, other in zip(given, again, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True) if a is not None)


def test_rows_without_a_label_never_reach_the_head() -> None:
    hidden, weight, bias, targets = inputs()
    hidden[targets == IGNORE] = torch.nan
    hidden.requires_grad_()
    sums = chunked_loss(hidden, Head(weight, bias), signals_of("hidden"), targets, StepObjective(Objective(), 0.5, 1.0), vocabulary=V)
    sums.total.backward()
    assert sums.total.isfinite()
    assert hidden.grad is not None
    assert not hidden.grad[targets == IGNORE].any()
    nothing = chunked_loss(hidden, Head(weight, bias), [], torch.full((N,), IGNORE), StepObjective(Objective(), 0.5, 1.0))
    nothing.total.backward()
    assert float(nothing.total.detach()) == 0


@pytest.mark.parametrize("kind", ["none", "hidden", "top-k"])
def test_under_autocast_products_are_bf16_and_sums_are_not(kind: str) -> None:
    *tensors, targets = inputs()
    at = StepObjective(Objective(), 0.7, 1.0)
    outcomes = []
    for form in ("plain", "chunked"):
        hidden, weight, bias = (each.clone().requires_grad_() for each in tensors)
        with torch.autocast("cpu", torch.bfloat16):
            signals = signals_of(kind)
            if form == "plain":
                logits = nn.functional.linear(hidden, weight, bias)[:, :V]
                assert logits.dtype == torch.bfloat16
            else:
                sums = chunked_loss(hidden, Head(weight, bias), signals, targets, at, vocabulary=V, chunk=7)
        if form == "plain":
            sums = distillation_loss(logits, signals, targets, at)
        sums.total.backward()
        assert sums.total.dtype == torch.float32
        outcomes.append((sums.total.detach(), weight.grad, hidden.grad))
    (total, *expected), (again, *found) = outcomes
    # A teacher given by hidden states has its product in bf16 in one form and fp32 in the other; all else rounds alike.
    assert float(again) == pytest.approx(float(total), rel=1e-2 if kind == "hidden" else 1e-6)
    for one, other in zip(expected, found, strict=True):
        assert (one - other).norm() <= 2e-2 * one.norm()


class Widest(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return made


@pytest.mark.parametrize("kind", SIGNALS[2:])
def test_no_tensor_is_larger_than_a_chunk_of_logits_or_the_head(kind: str) -> None:
    hidden, weight, bias, targets = inputs()
    with Widest() as seen:
        chunked_loss(
            hidden.requires_grad_(), Head(weight, bias), [], targets, StepObjective(Objective(), 0.5, 1.0), chunk=4
        ).total.backward()
    assert seen.elements <= PADDED * H < N * V
    signals, at = signals_of(kind), StepObjective(Objective(), 0.5, 2.0)
    with Widest() as seen:
        chunked_loss(hidden, Head(weight, bias), signals, targets, at, vocabulary=V, chunk=4).total.backward()
    assert seen.elements <= PADDED * H


def test_gradcheck_through_the_function() -> None:
    *tensors, targets = inputs(torch.float64)
    at, signals = StepObjective(Objective(), 0.6, 1.5), signals_of("hidden", torch.float64)
    for each in tensors:
        each.requires_grad_()

    def total(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return chunked_loss(hidden, Head(weight, bias), signals, targets, at, vocabulary=V, chunk=7).total

    assert torch.autograd.gradcheck(total, tuple(tensors))


def tiny(name: str, **more: Any) -> nn.Module:
    import transformers

    common = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = getattr(transformers, f"{name}Config")(**common, **more)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def test_the_head_is_split_off_where_the_logits_are_nothing_else() -> None:
    ids = torch.arange(12).view(2, 6)
    batch = Batch({"input_ids": ids}, ids, ids[:, 0])
    scaled = (tiny("Granite", logits_scaling=4.0), tiny("Cohere", logit_scale=0.25, bos_token_id=1, eos_token_id=1))
    for model in (tiny("Llama", tie_word_embeddings=True), tiny("Qwen2", num_key_value_heads=2), *scaled):
        training, head = model.training, split_head(model)
        assert head is not None
        assert model.training == training
        logits = rows(model, batch, 40)
        assert torch.allclose(hidden_rows(model, batch) @ head.weight.T, logits, atol=1e-5)
        assert torch.equal(rows(model, batch, 40), logits), "the head is in its place again"
        signal = live(model, 30)(batch)
        assert isinstance(signal, HiddenSignal)
        assert torch.allclose(signal.logits, logits[:, :30], atol=1e-5)


def test_capped_logits_stay_whole() -> None:
    ids = torch.arange(12).view(2, 6)
    batch = Batch({"input_ids": ids}, ids, ids[:, 0])
    model = tiny("Gemma2", head_dim=8, num_key_value_heads=2)
    assert split_head(model) is None
    signal = live(model, 30)(batch)
    assert isinstance(signal, TeacherSignal)
    assert torch.equal(signal.logits, rows(model, batch, 30))


def test_a_model_that_changes_its_logits_after_the_head_is_not_split() -> None:
    class Shifted(type(tiny("Llama"))):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            answer = super().forward(*args, **kwargs)
            answer.logits = answer.logits + 0.1
            return answer

    model = tiny("Llama")
    assert split_head(model) is not None
    model.__class__ = Shifted
    assert split_head(model) is None


def test_rounding_a_teachers_matrices_once_changes_nothing_under_autocast() -> None:
    ids = torch.arange(12).view(2, 6)
    batch = Batch({"input_ids": ids}, ids, ids[:, 0])
    answers = []
    for precision in ("fp32", "bf16"):
        source = live(tiny("Llama", tie_word_embeddings=True), 40, precision)
        with torch.autocast("cpu", torch.bfloat16):
            signal = source(batch)
        assert isinstance(signal, HiddenSignal)
        answers.append((signal.hidden, signal.weight))
    (hidden, weight), (again, rounded) = answers
    assert torch.equal(hidden, again)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(weight.bfloat16(), rounded)


def test_chunks_are_even() -> None:
    seen: list[int] = []
    original = chunked._chunk

    def watched(logits: Tensor, *rest: Any) -> Any:
        seen.append(len(logits))
        return original(logits, *rest)

    chunked._chunk = watched
    try:
        hidden, weight, bias, _ = inputs()
        chunked_loss(hidden, Head(weight, bias), [], torch.zeros(N, dtype=torch.int64), StepObjective(Objective(), 0.0, 1.0), chunk=10)
    finally:
        chunked._chunk = original
    assert sum(seen) == N
    assert all(a - b <= 2 for a, b in pairwise(seen))
    assert len(seen) == 3
