"""Teachers that take turns, early checkpoints of the root, and members of a rung: trained for real, on a few bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from conf.errors import RunCancelled, UserError
from conf.schema.ladder import Ladder
from models.losses.schedules import Turns
from tasks.data.prepare import prepare_data
from tasks.records.run import StageRecord
from tasks.runtime import cancellation
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.kept import KEPT, kept_name
from tasks.training.members import with_members
from tasks.training.student import student_work, train_student
from tasks.training.teaching import member_seed, planned_teaching

pytestmark = pytest.mark.thorough

SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "feed_forward": 24}
TRAINING = {"steps": 6, "batch_size": 4, "precision": "fp32", "checkpoint_every": 1}


def ladder_of(*stages: dict[str, Any], keep: tuple[float, ...] = ()) -> Ladder:
    return Ladder.model_validate(
        {
            "name": "tiny",
            "data": {"source": "files", "paths": ["texts/*.txt"], "sequence_length": 8, "valid_fraction": 0.2, "test_fraction": 0.2},
            "tokenizer": {"kind": "bytes"},
            "teacher": {"source": "train", "shape": SHAPE | {"layers": 3}, "training": TRAINING, "keep": list(keep)},
            "compute": {"at_once": None, "device": "cpu"},
            "evaluation": {"examples": 8},
            "stages": [
                {"name": f"s{place}", "student": {"shape": SHAPE | {"layers": 2 - place}}, "training": TRAINING, **given}
                for place, given in enumerate(stages)
            ],
        }
    )


Stop = Callable[[int, Callable[[], object]], None]


class Rungs(NamedTuple):
    """A home; trains the first models of a ladder in it, the root included."""

    home: Path
    base: Path

    def inputs(self, ladder: Ladder) -> StageInputs:
        self.home.mkdir(exist_ok=True)
        context = Context(run="run-1", ladder="tiny", home=str(self.home), base=str(self.base))
        return StageInputs(ladder, prepare_data(ladder, context), context)

    def trained(self, ladder: Ladder, stages: int | None = None) -> list[StageRecord]:
        inputs = self.inputs(ladder)
        lineage = [prepare_teacher(inputs)]
        for stage in ladder.stages[:stages]:
            first, *others = (train_student(stage, lineage, inputs, member=member) for member in range(stage.members))
            lineage.append(with_members(first, others))
        return lineage


@pytest.fixture
def rungs(tmp_path: Path) -> Callable[[str], Rungs]:
    (tmp_path / "texts").mkdir()
    for index in range(9):
        (tmp_path / "texts" / f"{index}.txt").write_text(
            f"def function_{index}(value):\n    return value * {index % 5} + len('{index}')\n" * 2
        )
    return lambda name: Rungs(tmp_path / name, tmp_path)


@pytest.fixture
def stopped_after(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Do something whose training is cancelled after so many steps of this attempt."""

    def stop(steps: int, act: Callable[[], object]) -> None:
        asked = iter([False] * (steps - 1) + [True])
        with monkeypatch.context() as patch:
            patch.setattr(cancellation, "requested", lambda: next(asked))
            with pytest.raises(RunCancelled):
                act()

    return stop


def weights(record: StageRecord, *below: str) -> dict[str, torch.Tensor]:
    return load_file(Path(record.folder, *below) / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_rising_with_one_ancestor_is_the_ordinary_stage_to_the_last_bit(rungs: Callable[[str], Rungs]) -> None:
    plain, rising = rungs("plain").trained(ladder_of({})), rungs("rising").trained(ladder_of({"teachers": "rising"}))
    assert equal(weights(plain[1]), weights(rising[1]))
    assert (plain[1].fingerprint, plain[1].flops) == (rising[1].fingerprint, rising[1].flops), "so it is found again"


def test_a_rising_stage_learns_from_each_ancestor_in_its_own_steps_alone(rungs: Callable[[str], Rungs]) -> None:
    here = rungs("home")
    ladder = ladder_of({}, {"teachers": "rising", "objective": {"handover": [1.0, 2.0]}})
    assert planned_teaching(ladder, 1).turns == Turns((1, 1), (1.0, 2.0))
    root, first, second = here.trained(ladder)
    assert second.teachers == ("s0", "teacher"), "the smallest first"
    examples, own = 4, 3 * second.flops_per_token * 8 * 24
    assert second.flops == own + examples * 8 * (2 * first.flops_per_token + 4 * root.flops_per_token)
    ordinary = here.trained(ladder_of({}, {}))[2]
    assert second.fingerprint != ordinary.fingerprint
    early = ladder_of({}, {"teachers": "rising", "objective": {"handover": [5.5, 0.5]}})
    assert not equal(weights(here.trained(early)[2]), weights(second))


@pytest.mark.slow
def test_a_killed_hand_over_goes_on_to_the_same_weights(rungs: Callable[[str], Rungs], stopped_after: Stop) -> None:
    ladder = ladder_of({}, {"teachers": "rising"})
    undisturbed, disturbed = rungs("one").trained(ladder), rungs("two")
    disturbed.trained(ladder, 1)
    for _ in range(2):
        stopped_after(2, lambda: disturbed.trained(ladder))
    resumed = disturbed.trained(ladder)[2]
    assert resumed.resumed_at == 4, "after the second teacher had taken over"
    assert equal(weights(resumed), weights(undisturbed[2]))
    assert resumed.flops == undisturbed[2].flops


def test_early_checkpoints_are_the_roots_weights_at_their_steps(rungs: Callable[[str], Rungs], stopped_after: Stop) -> None:
    ladder, plain = ladder_of({"teachers": "checkpoints"}, keep=(0.3, 0.9)), ladder_of({})
    here = rungs("kept")
    stopped_after(4, lambda: here.trained(ladder, 0))  # after the first was kept, and before the second
    root, student = here.trained(ladder)
    other = rungs("plain")
    inputs = other.inputs(plain)
    for step in (2, 5):
        anew = inputs.context.model_copy(update={"fresh": True, "run": f"run-{step}"})
        stopped_after(step, lambda anew=anew: prepare_teacher(StageInputs(plain, inputs.data, anew)))
        [checkpoint] = other.home.rglob(f"step-{step:08d}/model.safetensors")
        early = load_file(checkpoint)
        kept = weights(root, KEPT, kept_name(step))
        assert all(torch.equal(kept[name], early[name]) for name in kept)
    assert equal(weights(root), weights(other.trained(plain, 0)[0])), "keeping them changes nothing"
    assert student.teachers == ("teacher@2", "teacher@5", "teacher")
    assert student.flops == 3 * student.flops_per_token * 8 * 24 + root.flops_per_token * 8 * 24, "one teacher at every step"
    other.trained(plain)
    with pytest.raises(UserError, match="no weights of teacher after step 2 were kept"):
        student_work(ladder.stages[0], other.trained(plain, 0)[0], ladder, inputs.data)


@pytest.mark.slow
def test_members_that_are_equal_teach_as_one(rungs: Callable[[str], Rungs]) -> None:
    here, objective = rungs("home"), {"temperature": 2.0, "alpha": 0.8}
    ladder = ladder_of({"members": 3}, {"objective": objective})
    root, rung = here.trained(ladder, 1)
    inputs = here.inputs(ladder)
    alone = rung.model_copy(update={"members": ()})
    equals = rung.model_copy(update={"members": (alone, alone)})
    one, several = (train_student(ladder.stages[1], [root, first], inputs) for first in (alone, equals))
    assert one.fingerprint != several.fingerprint
    for name, value in weights(one).items():
        assert torch.allclose(value, weights(several)[name], atol=2e-5), name
    ensemble = train_student(ladder.stages[1], [root, rung], inputs)
    assert not equal(weights(ensemble), weights(several)), "members differ"
    assert ensemble.flops == 3 * ensemble.flops_per_token * 8 * 24 + 3 * alone.flops_per_token * 8 * 24


def test_members_are_trainings_of_the_rung_with_seeds_of_their_own(rungs: Callable[[str], Rungs]) -> None:
    here = rungs("home")
    _, rung = here.trained(ladder_of({"members": 2}, {}), 1)
    seed = member_seed(0, 1)
    _, other = here.trained(ladder_of({"seed": seed}, {}), 1)
    _, single = here.trained(ladder_of({}, {}), 1)
    assert other.reused
    assert other.fingerprint == rung.members[0].fingerprint
    assert single.fingerprint == rung.fingerprint, "the first seed is the product, whatever the others"
    assert rung.flops == single.flops + other.flops
    assert rung.members[0].name == "s0.2"


@pytest.mark.parametrize(
    ("stages", "keep", "words"),
    [
        ([{"teachers": "checkpoints"}], (), r"stages\[0\].teachers: got 'checkpoints'; allowed: checkpoints, with teacher.keep"),
        ([{"objective": {"handover": [1.0]}}], (), r"stages\[0\].objective.handover: got \[1.0\]; allowed: none, but for teachers rising"),
        ([{}, {"teachers": "rising", "objective": {"handover": [1.0]}}], (), r"stages\[1\].objective.handover: .* 2 numbers"),
        ([{"teachers": "checkpoints", "objective": {"handover": [1.0]}}], (0.5,), r"stages\[0\].objective.handover: .* 2 numbers"),
        ([{"teachers": "rising", "objective": {"handover": [0.0]}}], (), r"got \[0.0\]; allowed: numbers above 0"),
        ([{"members": 2}], (), r"stages\[0\].members: got 2; allowed: 1 for the last stage"),
        ([{"members": 2, "training": TRAINING | {"patience": 2}}, {}], (), r"stages\[0\].training.patience: got 2; allowed: none"),
        ([{"members": 2, "gate": {"policy": "extend"}}, {}], (), r"stages\[0\].gate.policy: got 'extend'; allowed: stop, warn, insert"),
        ([{"members": 2}, {"teachers": "ancestors"}], (), r"stages\[1\].teachers: .* allowed: \[parent\], \[root\] or rising, below s0"),
        (
            [{"members": 2}, {"signals": {"source": "cached"}}],
            (),
            r"stages\[1\].signals.kind: got 'sampled'; allowed: full, or",
        ),
        ([{}], (0.5, 0.2), r"teacher.*got \[0.5, 0.2\]; allowed: rising numbers between 0 and 1"),
    ],
)
def test_teaching_that_cannot_be_is_refused(stages: list[dict[str, Any]], keep: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){words}"):
        ladder_of(*stages, keep=keep)
