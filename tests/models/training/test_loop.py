import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from conf.errors import TrainingDiverged
from conf.schema.stage.objective import Objective
from conf.schema.stage.training import Training
from models.architectures import attention
from models.data.batches import IGNORE, Batch, TrainingBatches
from models.data.corpus import Corpus
from models.losses.schedules import learning_rate_at
from models.signals.sources import SignalSource, live
from models.training import step as training_step
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, Trained, parameter_groups, train

pytestmark = pytest.mark.thorough

Settings = Callable[..., Training]
Make = Callable[..., nn.Module]
OBJECTIVE = Objective.model_validate({"alpha": {"kind": "cosine", "start": 0.9, "end": 0.5}, "temperature": 2.0})


def plan_for(corpus: Corpus, training: Training, objective: Objective | None = None, seed: int = 0) -> Plan:
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    return Plan(training, objective, seed, vocabulary, "cpu", training.precision)


def taught(corpus: Corpus, teacher: nn.Module) -> SignalSource:
    return live(teacher, corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Padded(TrainingBatches):
    """Batches whose rows keep 1, 2, 3 ... valid positions, so that micro-batches differ in what they hold."""

    def at(self, step: int) -> Batch:
        batch = super().at(step)
        kept = torch.arange(batch.targets.shape[1])[None, :] <= (torch.arange(len(batch.targets)) ** 2 // 3)[:, None]
        return Batch(batch.inputs, torch.where(kept, batch.targets, IGNORE), batch.slices)


@pytest.mark.parametrize("batches", [TrainingBatches, Padded])
@pytest.mark.parametrize("teach", [False, True])
def test_micro_batches_equal_one_batch(
    prose: Corpus, training: Settings, model_for: Make, batches: type[TrainingBatches], teach: bool
) -> None:
    def run(accumulation: int) -> tuple[list[Step], dict[str, torch.Tensor]]:
        model, steps = model_for(prose), list[Step]()
        plan = plan_for(prose, training(accumulation=accumulation, steps=5), OBJECTIVE if teach else None)
        signals = taught(prose, model_for(prose, seed=1, hidden=32)) if teach else None
        train(model, batches(prose, 8, 0), plan, signals=signals, on_step=steps.append)
        return steps, weights(model)

    whole, expected = run(1)
    for accumulation in (2, 4):
        steps, found = run(accumulation)
        for one, other in zip(whole, steps, strict=True):
            assert (other.loss, other.ce, other.kd, other.grad_norm) == pytest.approx((one.loss, one.ce, one.kd, one.grad_norm), rel=1e-5)
            assert (other.teacher_ce or 0.0) == pytest.approx(one.teacher_ce or 0.0, rel=1e-5)
            assert (other.teacher_ce is not None) == teach
        for name in expected:
            # AdamW divides by the gradient's own size, so where a gradient is all but zero its rounding shows: 1e-5 is 0.3 % of a step.
            assert torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-5), name


def test_the_loss_is_a_mean_over_the_valid_positions_of_the_whole_step(prose: Corpus, training: Settings, model_for: Make) -> None:
    steps: list[Step] = []
    batches = Padded(prose, 8, 0)
    model = model_for(prose)
    batch = batches.at(0)
    with torch.no_grad():
        logits = model(**batch.inputs).logits
    expected = float(nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE))
    trained = train(model, batches, plan_for(prose, training(steps=1, accumulation=4)), on_step=steps.append)
    assert steps[0].loss == pytest.approx(expected, rel=1e-5)
    assert trained.tokens == int((batch.targets != IGNORE).sum())


@pytest.mark.parametrize("case", ["prose", "sentences", "images", "sentences by llama"])
def test_training_lowers_the_loss_of_every_workload(case: str, request: pytest.FixtureRequest, training: Settings, model_for: Make) -> None:
    corpus: Corpus = request.getfixturevalue(case.split()[0])
    family = "llama" if case.endswith("llama") else None
    teacher, student = model_for(corpus, seed=1, hidden=32, layers=2, family=family), model_for(corpus, family=family)
    lesson = training(steps=40, batch_size=12, learning_rate=5e-3)
    alone: list[Step] = []
    train(teacher, TrainingBatches(corpus, 12, 0), plan_for(corpus, lesson), on_step=alone.append)
    assert alone[-1].loss < 0.7 * alone[0].loss
    assert alone[0].teacher_ce is None
    steps: list[Step] = []
    train(
        student, TrainingBatches(corpus, 12, 0), plan_for(corpus, lesson, OBJECTIVE), signals=taught(corpus, teacher), on_step=steps.append
    )
    assert steps[-1].kd < 0.7 * steps[0].kd
    assert steps[-1].ce < 0.8 * steps[0].ce
    assert [step.step for step in steps] == list(range(1, 41))
    assert not student.training


def test_a_step_reports_what_was_done(prose: Corpus, training: Settings, model_for: Make) -> None:
    steps: list[Step] = []
    lesson = training(steps=6, validate_every=4)
    trained = train(
        model_for(prose),
        TrainingBatches(prose, 8, 0),
        plan_for(prose, lesson, OBJECTIVE),
        signals=taught(prose, model_for(prose, seed=1)),
        validate=lambda model: {"nll": 1.5},
        on_step=steps.append,
    )
    assert [step.learning_rate for step in steps] == [learning_rate_at(lesson, i) for i in range(6)]
    assert [steps[0].alpha, steps[-1].alpha] == pytest.approx([0.9, 0.5])
    assert [step.valid for step in steps] == [None, None, None, {"nll": 1.5}, None, {"nll": 1.5}]
    for step in steps:
        assert step.loss == pytest.approx((1 - step.alpha) * step.ce + step.alpha * step.kd, rel=1e-6)
        assert step.temperature == 2.0
        assert step.tokens_per_second > 0
    assert trained == Trained(6, 6 * 8 * 24, trained.seconds, False, None, trained.curve)
    assert [point["loss"] for point in trained.curve["train"]] == [step.loss for step in steps]
    assert [point["step"] for point in trained.curve["valid"]] == [4, 6]


def test_a_teacher_is_never_changed(prose: Corpus, training: Settings, model_for: Make) -> None:
    teacher = model_for(prose, seed=1).train()
    before = weights(teacher)
    train(
        model_for(prose),
        TrainingBatches(prose, 8, 0),
        plan_for(prose, training(weight_decay=1.0, learning_rate=0.1), OBJECTIVE),
        signals=taught(prose, teacher),
    )
    assert equal(weights(teacher), before)
    assert all(not p.requires_grad and p.grad is None for p in teacher.parameters())
    assert not teacher.training


def test_a_teacher_without_weight_is_not_run(prose: Corpus, training: Settings, model_for: Make) -> None:
    def unasked(batch: Batch) -> None:
        raise AssertionError("asked")

    def run(objective: Objective | None, signals) -> dict[str, torch.Tensor]:
        model = model_for(prose)
        train(model, TrainingBatches(prose, 8, 0), plan_for(prose, training(), objective), signals=signals)
        return weights(model)

    assert equal(run(Objective.model_validate({"alpha": 0.0}), unasked), run(None, None))


ATTENTION = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "o_proj")
DECAYED = {
    "prose": {"embed_tokens", *ATTENTION[3:], "gate_proj", "up_proj", "down_proj"},
    "sentences": {"word_embeddings", "position_embeddings", "token_type_embeddings", *ATTENTION[:3], "dense", "classifier"},
    "images": {"projection", *ATTENTION[3:], "fc1", "fc2", "classifier"},
}


@pytest.mark.parametrize("case", DECAYED)
def test_the_weights_of_layers_decay_and_nothing_else(case: str, request: pytest.FixtureRequest, model_for: Make) -> None:
    model = model_for(request.getfixturevalue(case))
    decayed, kept = parameter_groups(model, 0.3)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    names = {parameter: name.split(".") for name, parameter in model.named_parameters()}
    assert {names[parameter][-1] for parameter in decayed["params"]} == {"weight"}
    assert {names[parameter][-2] for parameter in decayed["params"]} == DECAYED[case]
    left = {names[parameter][-1] for parameter in kept["params"] if parameter.ndim > 1}
    assert left == ({"cls_token", "position_embeddings"} if case == "images" else set())
    assert set(names) == {*decayed["params"], *kept["params"]}
    assert len(names) == len(decayed["params"]) + len(kept["params"])


def test_clipping_bounds_the_gradient_and_reports_the_norm_before_it(prose: Corpus, training: Settings, model_for: Make) -> None:
    def first(clip: float) -> tuple[float, dict[str, torch.Tensor]]:
        model, steps = model_for(prose), list[Step]()
        lesson = training(steps=2, clip=clip, beta1=0.0, beta2=0.0)
        train(model, TrainingBatches(prose, 8, 0), plan_for(prose, lesson), on_step=steps.append)
        return steps[0].grad_norm, weights(model)

    (norm, free), (same_norm, clipped) = first(1e6), first(1e-9)
    assert norm == same_norm > 1e-9
    assert not equal(free, clipped)


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(prose: Corpus, training: Settings, model_for: Make) -> None:
    def run(precision: str) -> tuple[list[float], nn.Module]:
        model, steps = model_for(prose), list[Step]()
        plan = plan_for(prose, training(precision=precision))
        train(model, TrainingBatches(prose, 8, 0), plan, on_step=steps.append)
        return [step.loss for step in steps], model

    (full, _), (half, model) = run("fp32"), run("bf16")
    assert full != half
    assert half == pytest.approx(full, rel=2e-2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_nan_in_the_data_stops_the_training_and_names_the_step(
    images: Corpus, training: Settings, model_for: Make, tmp_path: Path
) -> None:
    pixels = np.load(images.folder / "train" / "values.npy")
    batches = TrainingBatches(images, 8, 0)
    bad = batches.at(4).inputs["pixel_values"][0].numpy()
    pixels[[i for i in range(len(pixels)) if np.array_equal(pixels[i], bad)]] = np.nan
    np.save(images.folder / "train" / "values.npy", pixels)
    lesson, checkpoints = training(), Checkpoints(tmp_path / "work")
    message = rf"The loss is nan .* at step 5, learning rate {learning_rate_at(lesson, 4):.3g}\. Lower training\.learning_rate"
    with pytest.raises(TrainingDiverged, match=message) as caught:
        train(model_for(images), TrainingBatches(images, 8, 0), plan_for(images, lesson), checkpoints=checkpoints)
    assert caught.value.exit_code == 1
    assert_last_checkpoint_is_good(checkpoints, model_for(images), 4)


def assert_last_checkpoint_is_good(checkpoints: Checkpoints, model: nn.Module, step: int) -> None:
    loaded = checkpoints.load(model, torch.optim.AdamW(parameter_groups(model, 0.1)))
    assert loaded is not None
    assert loaded[0] == step
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_an_exploding_loss_stops_the_training_and_names_the_step(
    prose: Corpus, training: Settings, model_for: Make, tmp_path: Path
) -> None:
    checkpoints, steps = Checkpoints(tmp_path / "work"), list[Step]()
    lesson = training(learning_rate=10.0, steps=50, warmup=0.2, checkpoint_every=1)
    with pytest.raises(TrainingDiverged, match=r"The loss exploded to \S+, above \S+, at step (\d+), learning rate (\S+)\. ") as caught:
        train(model_for(prose), TrainingBatches(prose, 8, 0), plan_for(prose, lesson), checkpoints=checkpoints, on_step=steps.append)
    last = steps[-1].step
    assert f"at step {last + 1}, learning rate {learning_rate_at(lesson, last):.3g}. " in str(caught.value)
    assert 3 * math.log(258) > steps[-1].loss
    assert_last_checkpoint_is_good(checkpoints, model_for(prose), last)


@pytest.mark.parametrize(("precision", "used"), [("bf16", True), ("fp32", False)])
def test_a_training_in_half_precision_uses_its_own_attention_and_restores_sdpa(
    prose: Corpus, training: Settings, model_for: Make, monkeypatch: pytest.MonkeyPatch, precision: str, used: bool
) -> None:
    model, asked = cast(Any, model_for(prose)), list[str]()
    plain = attention._wins
    monkeypatch.setattr(attention, "_wins", lambda *both: asked.append("attention") or plain(*both))
    train(model, TrainingBatches(prose, 8, 0), plan_for(prose, training(steps=1, precision=precision)))
    assert bool(asked) == used
    assert model.config._attn_implementation == "sdpa"


def test_a_head_with_large_logits_is_split_off_in_half_precision(
    prose: Corpus, training: Settings, model_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pretrained model's logits reach 30 and more, where half precision is coarse."""
    model, seen = model_for(prose), list[int]()
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight").mul_(300.0)
    plain = training_step.chunked_loss

    def watched(hidden: torch.Tensor, *args: Any, **more: Any) -> object:
        seen.append(len(hidden))
        return plain(hidden, *args, **more)

    monkeypatch.setattr(training_step, "chunked_loss", watched)
    train(model, TrainingBatches(prose, 8, 0), plan_for(prose, training(steps=2, precision="bf16", explosion=1e6)))
    assert seen == [8 * 24] * 2
