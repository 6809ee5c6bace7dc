"""`training.compile`: the same training but for last digits, of which the steps alone run compiled."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from conf.schema.stage.objective import Feature, Objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.training import Training
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.losses.features import Features
from models.signals.sources import live, rows
from models.training.compiled import compile_layers
from models.training.loop import Plan, train
from models.training.on_policy import OnPolicyBatches

# Of torch's own, while it compiles.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor is being accessed:UserWarning"),
]
Settings = Callable[..., Training]
Make = Callable[..., nn.Module]


def trained(
    corpus: Corpus, settings: Training, model_for: Make, features: tuple[Feature, ...] = (), writes: bool = False
) -> list[tuple[float, float]]:
    """Loss and norm of the gradient of each step."""
    student, teacher = model_for(corpus, layers=2), model_for(corpus, seed=1, hidden=32)
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    batches, source = TrainingBatches(corpus, 8, 0), live(teacher, vocabulary)
    if settings.compile:
        compile_layers(teacher)
    watched = Features(features, student, teacher, 0) if features else None
    own = OnPolicyBatches(batches, student, Signals.model_validate({"source": "on-policy"}), settings.steps, "fp32") if writes else batches
    plan = Plan(settings, Objective(features=features, alpha=cast(Any, 1.0 if writes else 0.7)), 0, vocabulary, "cpu", settings.precision)

    def validate(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"nll": float(rows(model, batches.at(0), vocabulary).mean())}

    made = train(student, own, plan, signals=source, features=watched, validate=validate)
    assert all(part._compiled_call_impl is None for part in student.modules())
    return [(point["loss"], point["grad_norm"]) for point in made.curve["train"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "kind", "writes"),
    [("prose", None, False), ("prose", None, True), ("prose", "hidden", False), ("sentences", None, False), ("images", None, False)],
)
def test_steps_are_the_same_but_for_their_last_digits(
    case: str, kind: str | None, writes: bool, request: pytest.FixtureRequest, training: Settings, model_for: Make
) -> None:
    corpus: Corpus = request.getfixturevalue(case)
    features = (Feature.model_validate({"kind": kind}),) if kind else ()
    both = (training(steps=4, precision="fp32", validate_every=2, compile=compiles) for compiles in (False, True))
    plain, compiled = (trained(corpus, settings, model_for, features, writes) for settings in both)
    assert compiled != plain, "nothing was compiled"
    np.testing.assert_allclose(compiled, plain, rtol=1e-4)


def test_steps_alone_run_compiled(images: Corpus, training: Settings, model_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    traced, compile_layer = list[str](), nn.Module.compile

    def backend(graph: Any, examples: Any) -> Any:
        traced.append("with a gradient" if torch.is_grad_enabled() else "without one")
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda layer: compile_layer(layer, backend=backend))
    both = (training(steps=2, precision="fp32", validate_every=1, compile=compiles) for compiles in (False, True))
    plain, compiled = (trained(images, settings, model_for) for settings in both)
    assert traced == ["with a gradient", "without one"], "student and teacher, and no validation"
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)
