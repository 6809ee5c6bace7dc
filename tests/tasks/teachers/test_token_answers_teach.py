"""Top-k answers teach as the live model would, cut to the same ids, and count as a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch

from conf.errors import UserError
from conf.home import Home
from conf.schema.stage.objective import DENSE_ONLY, Objective, ObjectiveKind
from conf.schema.stage.student import Shape
from models.architectures.shapes import config_for
from models.data.batches import TrainingBatches
from models.losses.loss import HiddenSignal, SparseSignal, StepObjective, distillation_loss
from models.signals.sources import live
from models.students.initialise import random_model
from tasks.audit.audit import audit_model
from tasks.evaluation.evaluate import evaluate_model
from tasks.planning.costs.calibration import StepSeconds, calibrate
from tasks.planning.plan import make_plan
from tasks.proof.arms import refuse
from tasks.proof.prepare_arms import arms_of
from tasks.records.run import StageRecord
from tasks.teachers.quality import accept_teacher
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student
from tests.factories import inputs_of
from tests.tasks.teachers.token_files import (
    LENGTH,
    SHAPE,
    TEXTS,
    TRAINING,
    VOCABULARY,
    folder_of,
    ladder_of,
    likely,
    log_probs,
    stored,
    write,
)

pytestmark = pytest.mark.thorough


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in get_args(ObjectiveKind) if kind not in DENSE_ONLY])
def test_the_loss_is_that_of_the_live_teacher_cut_to_the_same_ids(folder: Path, kind: ObjectiveKind) -> None:
    inputs = inputs_of(ladder_of(stage={"objective": {"kind": kind}}), folder)
    corpus = inputs.data.corpus()
    model = random_model(config_for(Shape.model_validate(SHAPE), corpus.interface), "causal-lm", 1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
        cast(Any, model).model.layers[0].self_attn.o_proj.weight.zero_()  # an answer hangs on the last id alone, not on the window
    every = {text: log_probs(model, text) for text in TEXTS}
    batch = TrainingBatches(corpus, 4, 0).at(0)
    student = torch.randn(4 * LENGTH, VOCABULARY, generator=torch.Generator().manual_seed(0))
    alive = live(model, VOCABULARY)(batch)
    assert isinstance(alive, HiddenSignal)
    for listed in (VOCABULARY, 5):
        top = {text: np.argsort(-values, axis=1)[:, :listed] for text, values in every.items()}
        write(folder, [top[text].tolist() for text in TEXTS], [np.take_along_axis(every[text], top[text], 1).tolist() for text in TEXTS])
        signals = {"file": live(stored(prepare_teacher(inputs)), VOCABULARY)(batch), "live": alive}
        if listed < VOCABULARY:
            log_p, ids = alive.logits.log_softmax(-1).topk(listed, -1)
            signals["live"] = SparseSignal(ids, log_p, torch.log1p(-log_p.exp().sum(-1)))
        for temperature in (1.0, 2.0):
            at = StepObjective(Objective(kind=kind), 0.7, temperature, taid_share=0.6)
            loss, gradient = dict[str, float](), dict[str, torch.Tensor]()
            for name, signal in signals.items():
                leaf = student.clone().requires_grad_()
                total = distillation_loss(leaf, [signal], batch.targets.flatten(), at).total
                loss[name], gradient[name] = float(total.detach()) / len(student), torch.autograd.grad(total, leaf)[0]
            assert loss["file"] == pytest.approx(loss["live"], abs=1e-6)
            assert torch.allclose(gradient["file"], gradient["live"], atol=1e-6)


def test_answers_are_the_cache_and_are_cut_to_fewer_ids(folder: Path) -> None:
    ids, logprobs = likely()
    ids[0][1], logprobs[0][1] = [7, 8, 9], [-3.0, -1.0, -2.0]
    write(folder, ids, logprobs)
    cached = {"source": "cached", "kind": "top-k"}
    stage = {"objective": {"kind": "jsd", "alpha": 1.0}, "training": {**TRAINING, "steps": 5}}
    ladders = {
        name: ladder_of(stage={**stage, "signals": signals})
        for name, signals in {"live": {}, "all": cached, "one": {**cached, "k": 1}}.items()
    }
    ladder, inputs = ladders["one"], inputs_of(ladders["one"], folder)
    root = prepare_teacher(inputs)
    made = {name: train_student(each.stages[0], [root], inputs_of(each, folder)) for name, each in ladders.items()}
    assert made["all"].signals == f"top-k, all 3 ids of the file ({root.fingerprint[:12]})"
    assert made["one"].signals == f"top-k, 1 ids of 3 in the file ({root.fingerprint[:12]})"
    assert made["all"].weights_sha256 == made["live"].weights_sha256 != made["one"].weights_sha256
    assert {record.flops for record in made.values()} == {made["live"].flops}
    assert made["one"].all_signal_seconds == 0
    assert not (folder / "home" / "store" / "signals").exists()
    planned = make_plan(ladder, folder, Home(folder / "home"))
    assert (planned.stages[0].action, planned.stages[0].flops) == ("reuse", made["one"].flops)
    assert "small: signals cached (as set): top-k, 1 ids at most, read from the root's answers, no copy" in planned.notes
    answers, batch = stored(root), TrainingBatches(inputs.data.corpus(), 64, 0).at(0)
    whole, cut = (SparseSignal(*answers.answers(batch.places, batch.targets, most)) for most in (None, 1))
    assert torch.equal(cut.ids[:, 0], whole.ids.gather(1, whole.log_probs.argmax(1, keepdim=True))[:, 0])
    assert torch.allclose(cut.log_probs.exp().sum(1) + cut.log_residual.exp(), torch.ones(()), atol=1e-6)


def test_arms_that_answers_cannot_teach_are_left_out(folder: Path) -> None:
    last = {"name": "last", "student": {"shape": SHAPE, "initialisation": "layers"}, "objective": {"kind": "dkd"}, "training": TRAINING}
    ladder = ladder_of(stages=[{"name": "small", "student": {"shape": SHAPE}, "training": TRAINING}, last])
    for arm, reason in {"staged-root": "objective.kind: got 'dkd'", "direct": "student.initialisation: got 'layers'"}.items():
        with pytest.raises(UserError, match=f"as {arm}, stages.*{reason}"):
            refuse(cast(Any, arm), ladder)
    refuse("staged", ladder)
    refuse("scratch", ladder)
    inputs = inputs_of(ladder, folder)
    arms = arms_of(ladder, inputs.data, inputs.context)
    assert set(arms.ladders) == {"staged", "scratch", "label-smoothing"}
    assert (arms.forwards.root.whole, len(arms.notes)) == (0, 6)
    plain = ladder_of(stages=[{**last, "student": {"shape": SHAPE}, "objective": {}, "name": name} for name in ("one", "two")])
    staged = arms_of(plain, inputs.data, inputs.context)
    assert "direct-matched" in staged.ladders
    matched = staged.ladders["direct-matched"].stages[0].training.steps
    assert matched == round(
        (3 + 3 + 1) / 3 * TRAINING["steps"]
    )  # passes in a step: three of each student, one of the parent, none of the root
    jump = make_plan(plain, folder, Home(folder / "home")).costs.jump
    assert jump is not None
    assert jump.steps == matched


def test_a_budget_takes_no_time_for_answers(folder: Path) -> None:
    inputs = inputs_of(ladder_of(), folder)
    seconds, _ = calibrate(inputs.ladder, inputs.data, inputs.context)
    assert seconds["teacher"] == StepSeconds(0.0, 0.0, 0.0)
    assert seconds["small"].step > 0


def test_they_teach_and_are_evaluated_and_audited_as_a_model(folder: Path) -> None:
    stage = {"objective": {"alpha": 1.0}, "student": {"shape": SHAPE}, "training": TRAINING}
    ladder = ladder_of(stages=[{**stage, "name": "small"}, {**stage, "name": "last", "teachers": ["root", "parent"]}])
    inputs = inputs_of(ladder, folder)
    root = accept_teacher(evaluate_model(prepare_teacher(inputs), [], inputs, "fp32"), inputs)
    assert (root.parameters, root.samples) == (10**6, ())
    assert root.metrics["accuracy"] == 1
    assert root.metrics["nll"] == pytest.approx(-np.log(0.9), abs=1e-4)
    student = evaluate_model(train_student(ladder.stages[0], [root], inputs), [root], inputs, "fp32")
    assert student.signals == "live"
    assert len(student.samples) > 0
    assert student.metrics["root_nll"] == pytest.approx(-np.log(0.9), abs=1e-4)
    assert student.metrics["nll"] < student.metrics["baseline_nll"]
    below = ladder.stages[1]
    last = evaluate_model(train_student(below, [root, student], inputs), [root, student], inputs, "fp32")
    assert last.teachers == ("small", "teacher")  # the one live and dense, the other stored and sparse
    assert last.metrics["nll"] < student.metrics["baseline_nll"]
    audited = audit_model(student, ladder.stages[0], [root], inputs, None)
    assert isinstance(audited, StageRecord)
    assert audited.audit is not None
    assert prepare_teacher(inputs).reused
    planned = make_plan(ladder, folder, Home(folder / "home"))
    assert (planned.teacher.action, planned.teacher.parameters) == ("reuse", 10**6)
