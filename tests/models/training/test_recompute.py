"""`training.recompute` keeps less memory and gives the same weights."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import nn

from conf.errors import UserError
from conf.schema.stage.objective import Feature, Objective
from conf.schema.stage.training import Training
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.losses.features import Features
from models.signals.sources import live
from models.training.loop import Plan, train

Settings = Callable[..., Training]
Make = Callable[..., nn.Module]


def trained(corpus: Corpus, settings: Training, model_for: Make, features: tuple[Feature, ...]) -> tuple[nn.Module, int]:
    """A student after a training with a teacher, and how often the first products of its two layers were computed."""
    student, teacher, calls = model_for(corpus, layers=2), model_for(corpus, seed=1, hidden=32), list[str]()
    layers = next(part for part in student.modules() if isinstance(part, nn.ModuleList))
    for layer in layers:
        first = next(part for part in layer.modules() if isinstance(part, nn.Linear))
        first.register_forward_pre_hook(lambda *_: calls.append("product"))
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    plan = Plan(settings, Objective(features=features), 0, vocabulary, "cpu", settings.precision)
    watched = Features(features, student, teacher, 0) if features else None
    train(student, TrainingBatches(corpus, 8, 0), plan, signals=live(teacher, vocabulary), features=watched)
    return student, len(calls)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("case", "kind"), [("prose", None), ("prose", "hidden"), ("sentences", "minilm"), ("images", None)])
def test_the_weights_are_the_same_to_the_last_bit(
    case: str, kind: str | None, precision: str, request: pytest.FixtureRequest, training: Settings, model_for: Make
) -> None:
    corpus: Corpus = request.getfixturevalue(case)
    features = (Feature.model_validate({"kind": kind}),) if kind else ()
    kept, once = trained(corpus, training(steps=3, precision=precision), model_for, features)
    again, twice = trained(corpus, training(steps=3, precision=precision, recompute=True), model_for, features)
    probes = 4 if corpus.info.workload == "causal-lm" else 0  # before training a head is looked for: two layers, with it and without
    assert twice - probes == 2 * (once - probes) == 2 * 3 * 2
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), again.parameters(), strict=True))
    assert not cast(Any, again).is_activation_checkpointing
    assert not any(part._forward_hooks for name, part in again.named_modules() if "embed" in name)


def test_a_model_that_cannot_is_refused(prose: Corpus, training: Settings, model_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_for(prose)
    monkeypatch.setattr(model, "supports_gradient_checkpointing", False)
    plan = Plan(training(recompute=True), None, 0, prose.info.vocabulary)
    with pytest.raises(UserError, match=r"^training\.recompute: got True; allowed: false for a LlamaForCausalLM"):
        train(model, TrainingBatches(prose, 8, 0), plan)
