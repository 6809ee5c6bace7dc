"""Loss before training and after N steps, by the kind of random first weights.

    OMP_NUM_THREADS=1 python -m benchmarks.first_weights [--shape NAME ...] [--kind NAME ...] [--steps 100] [--seeds 3]

Language models learn the standard library's source, as bytes or with a BPE; image models the digits; all from labels alone. Printed for
each shape: a uniform guess, then by kind of first weights the held-out nll (nats per id or image) at step 0, after a quarter of the steps
and at the end: mean over seeds (least - most).
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from benchmarks.common import machine
from conf.loading.load import load
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.architectures.shapes import build, config_for
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.students.initialise import BRANCH_END, PRE_NORM, random_model
from models.training.loop import Plan, Step, train
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluator import validator
from tasks.runtime.runs.run_registry import Context


class Trial(NamedTuple):
    """A shape, and the ladder and settings whose data it learns."""

    shape: dict[str, Any]
    ladder: str
    overrides: tuple[str, ...]
    batch_size: int


BPE = ("tokenizer={kind: bpe, vocabulary: 4096}", "data.max_documents=300")
BYTES = ("data.max_documents=300",)
TRIALS = {
    "bytes-64": Trial({"hidden_size": 64, "layers": 2, "heads": 2, "feed_forward": 160}, "python-stdlib", BYTES, 16),
    "bytes-128": Trial({"hidden_size": 128, "layers": 3, "heads": 4, "feed_forward": 352}, "python-stdlib", BYTES, 16),
    "bytes-128-untied": Trial(
        {"hidden_size": 128, "layers": 3, "heads": 4, "feed_forward": 352, "tied_embeddings": False}, "python-stdlib", BYTES, 16
    ),
    "bpe-128": Trial({"hidden_size": 128, "layers": 2, "heads": 4, "feed_forward": 352}, "python-stdlib", BPE, 8),
    "bpe-256": Trial({"hidden_size": 256, "layers": 2, "heads": 4, "feed_forward": 512}, "python-stdlib", BPE, 8),
    "bpe-128-untied": Trial(
        {"hidden_size": 128, "layers": 2, "heads": 4, "feed_forward": 352, "tied_embeddings": False}, "python-stdlib", BPE, 8
    ),
    "digits": Trial({"family": "vit", "hidden_size": 32, "layers": 3, "heads": 4, "feed_forward": 64}, "digits", (), 32),
}


def _before(config: Any, workload: str, seed: int) -> nn.Module:
    """The weights until NUMERICS 4: normal of hidden_size^-1/2, branches of pre-norm models begin at 0."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build(config, workload)
        for name, parameter in model.named_parameters():
            if config.model_type in PRE_NORM and BRANCH_END.search(name):
                parameter.zero_()
    return model


def _head(model: nn.Module) -> nn.Parameter:
    own = cast(Any, model)
    head = own.get_output_embeddings()
    return (head if head is not None else own.classifier).weight


def _norm(model: nn.Module) -> nn.Parameter:
    """Of the normalisation before the head."""
    body = cast(Any, model).base_model
    return next(module.weight for _, module in reversed(list(body.named_children())) if "Norm" in type(module).__name__)


def _scaled(weight: Callable[[nn.Module], nn.Parameter], factor: Callable[[int], float]) -> Callable[[Any, str, int], nn.Module]:
    def make(config: Any, workload: str, seed: int) -> nn.Module:
        model = _before(config, workload, seed)
        with torch.no_grad():
            weight(model).mul_(factor(config.hidden_size))
        return model

    return make


def _signs(factor: float) -> Callable[[Any, str, int], nn.Module]:
    """The final norm's weight in two halves of opposite sign: a tied head does not answer with its own input."""

    def make(config: Any, workload: str, seed: int) -> nn.Module:
        model = _before(config, workload, seed)
        with torch.no_grad():
            _norm(model).mul_(factor)[::2].neg_()
        return model

    return make


def _default(config: Any, workload: str, seed: int) -> nn.Module:
    config.initializer_range = 0.02
    return _before(config, workload, seed)


KINDS: dict[str, Callable[[Any, str, int], nn.Module]] = {
    "before": _before,
    "all 0.02": _default,
    "head h^-1": _scaled(_head, lambda width: width**-0.5),
    "head 0.1x": _scaled(_head, lambda _: 0.1),
    "head 0": _scaled(_head, lambda _: 0.0),
    "norm h^-1/2": _scaled(_norm, lambda width: width**-0.5),
    "norm 2h^-1/2": _scaled(_norm, lambda width: 2 * width**-0.5),
    "norm 0": _scaled(_norm, lambda _: 0.0),
    "signs": _signs(1.0),
    "signs 0.5x": _signs(0.5),
    "signs 0.3x": _signs(0.3),
    "now": random_model,
}


def curve(trial: Trial, corpus: Corpus, kind: str, seed: int, steps: int) -> list[float]:
    """Held-out nll at step 0, after a quarter of the steps and at the end."""
    ladder, info = load(trial.ladder, trial.overrides).ladder, corpus.info
    model = KINDS[kind](config_for(Shape.model_validate(trial.shape), corpus.interface), info.workload, seed)
    plain = {"learning_rate": 4e-3, "warmup": 0.1, "validate_every": max(steps // 4, 1), "precision": "fp32"}
    training = Training.model_validate({"steps": steps, "batch_size": trial.batch_size, **plain})
    evaluation = ladder.evaluation.model_copy(update={"examples": 512})
    validate = validator(corpus, evaluation, corpus.interface, "cpu", "fp32")
    found = [validate(model)["nll"]]

    def on_step(step: Step) -> None:
        if step.valid is not None:
            found.append(step.valid["nll"])

    plan = Plan(training, None, seed, corpus.interface.output_ids)
    train(model, TrainingBatches(corpus, trial.batch_size, seed), plan, validate=validate, on_step=on_step)
    return [found[0], found[1], found[-1]]


def main() -> None:
    """Train, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", nargs="*", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--kind", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    began = time.monotonic()
    print(f"{machine('cpu')}, {options.steps} steps, {options.seeds} seeds", flush=True)
    with tempfile.TemporaryDirectory() as home:
        context = Context(run="first-weights", ladder="first-weights", home=home, base=home)
        for name in options.shape:
            trial = TRIALS[name]
            corpus = prepare_data(load(trial.ladder, trial.overrides).ladder, context).corpus()
            outputs = corpus.interface.output_ids or corpus.info.classes
            print(f"\n{name}: a uniform guess {math.log(outputs):.3f}\n")
            print(f"| kind | step 0 | {options.steps // 4} | {options.steps} |\n|---|---|---|---|")
            for kind in options.kind:
                curves = zip(*(curve(trial, corpus, kind, seed, options.steps) for seed in range(options.seeds)), strict=True)
                cells = [f"{sum(each) / len(each):.3f} ({min(each):.3f} - {max(each):.3f})" for each in curves]
                print(f"| {kind} | {' | '.join(cells)} |", flush=True)
    print(f"\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
