"""`training.compile`: the same training but for last digits; no compiler, or one that fails, is one sentence."""

from collections.abc import Callable
from typing import Any, cast

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
from models.training.loop import Plan, Trained, train
from models.training.on_policy import OnPolicyBatches

# Of torch's own, while it compiles.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor is being accessed:UserWarning"),
]
Settings = Callable[..., Training]
Make = Callable[..., nn.Module]


def trained(corpus: Corpus, settings: Training, model_for: Make, features: tuple[Feature, ...] = (), writes: bool = False) -> Trained:
    student, teacher = model_for(corpus, layers=2), model_for(corpus, seed=1, hidden=32)
    vocabulary = corpus.info.vocabulary if corpus.info.workload == "causal-lm" else None
    batches = TrainingBatches(corpus, 8, 0)
    source = live(teacher, vocabulary)
    if settings.compile:
        compile_layers(teacher)
    watched = Features(features, student, teacher, 0) if features else None
    own = OnPolicyBatches(batches, student, Signals.model_validate({"source": "on-policy"}), settings.steps, "fp32") if writes else batches
    plan = Plan(settings, Objective(features=features, alpha=cast(Any, 1.0 if writes else 0.7)), 0, vocabulary, "cpu", settings.precision)

    def validate(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"nll": float(rows(model, batches.at(0), vocabulary).mean())}

    made = train(
        student,
        own,
        plan,
        signals=source,
        features=watched,
        validate=lambda model: {"nll": float(rows(model, batches.at(0), vocabulary).detach().mean())},
    )
    assert all(part._compiled_call_impl is None for part in student.modules())
    return made


def slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("case", "kind", "writes"),
    [
        slow("prose", None, False),
        slow("prose", None, True),
        slow("prose", "hidden", False),
        slow("sentences", None, False),
        slow("images", None, False),
    ],
)
def test_losses_are_the_same_but_for_their_last_digits(
    case: str, kind: str | None, writes: bool, request: pytest.FixtureRequest, training: Settings, model_for: Make
) -> None:
    corpus: Corpus = request.getfixturevalue(case)
    features = (Feature.model_validate({"kind": kind}),) if kind else ()
    plain, compiled = (
        trained(corpus, training(steps=4, precision="fp32", validate_every=2, compile=compiles), model_for, features, writes).curve
        for compiles in (False, True)
    )
    made, expected = ([(point["loss"], point["grad_norm"]) for point in curve["train"]] for curve in (compiled, plain))
    assert made != expected, "nothing was compiled"
    for one, other in zip(made, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_steps_alone_run_compiled(images: Corpus, training: Settings, model_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    traced, compile_layer = list[str](), nn.Module.compile

    def backend(graph: Any, examples: Any) -> Any:
        traced.append("with a gradient" if torch.is_grad_enabled() else "without one")
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda layer: compile_layer(layer, backend=backend))
    plain, compiled = (
        trained(images, training(steps=2, precision="fp32", validate_every=1, compile=on), model_for) for on in (False, True)
    )
    assert traced == ["with a gradient", "without one"], "student and teacher, and no validation"
    assert compiled == pytest.approx(plain, rel=1e-5)
