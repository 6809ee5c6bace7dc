"""Plans: what a run would do, at what price, and why; checked against runs that were made."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.teacher import TrainedTeacher
from models.architectures.checkpoint import load_model
from models.architectures.shapes import size_of
from models.data.batches import TrainingBatches
from models.speed.matmul import matrix_product_peak
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, train
from tasks.data.prepare import prepare_data
from tasks.planning.plan import LadderPlan, make_plan
from tasks.planning.preflight import expected_interface
from tasks.records.run import StageRecord
from tasks.runtime.runs.run_registry import Context, save, store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.fingerprint import fingerprint
from tasks.teachers.teacher import teacher_work
from tasks.training.find_or_train import find_or_train
from tasks.training.student import student_work
from tests.factories import run_record

pytestmark = pytest.mark.thorough

LADDER = """
name: digits
workload: image-classification
data: {source: digits, valid_fraction: 0.2}
defaults:
  objective: {alpha: 0.7}
  training: {steps: 4, batch_size: 8, precision: fp32, checkpoint_every: 2}
teacher:
  source: train
  shape: {family: vit, hidden_size: 32, layers: 4, heads: 4, feed_forward: 64}
  training: {steps: 3, batch_size: 8, precision: fp32}
stages:
  - name: half
    student: {shape: {family: vit, hidden_size: 32, layers: 2, heads: 4, feed_forward: 64}, initialisation: layers}
  - name: quarter
    student: {shape: {family: vit, hidden_size: 24, layers: 2, heads: 4, feed_forward: 48}}
  - name: eighth
    student: {shape: {family: vit, hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}}
"""


class Made(NamedTuple):
    """A home in which data, teacher and first stage of `digits` are finished, and the second stage was interrupted at step 2."""

    home: Home
    teacher: StageRecord
    first: StageRecord


def digits(*overrides: str) -> Ladder:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.yaml"
        path.write_text(LADDER)
        return load(str(path), overrides).ladder


def plan(home: Home, *overrides: str, start_at: str | None = None, fresh: bool = False) -> LadderPlan:
    return make_plan(digits(*overrides), Path.cwd(), home, start_at, fresh)


def actions(made: LadderPlan) -> list[str]:
    return [made.teacher.action, *(stage.action for stage in made.stages)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    home = Home(tmp_path_factory.mktemp("home"))
    ladder = digits()
    context = Context(run="run-1", ladder="digits", home=str(home.root), base=str(Path.cwd()))
    data = prepare_data(ladder, context)
    assert isinstance(ladder.teacher, TrainedTeacher)
    teacher = find_or_train(teacher_work(ladder, ladder.teacher, data), StageInputs(ladder, data, context))
    first = find_or_train(student_work(ladder.stages[0], teacher, ladder, data), StageInputs(ladder, data, context))
    work = student_work(ladder.stages[1], first, ladder, data)
    half = work.training.model_copy(update={"steps": 2})
    checkpoints = Checkpoints(store_of(context).checkpoints(fingerprint(work.identity)))
    model = work.make(load_model(Path(first.folder), ladder.workload), checkpoints.folder)
    train(model, TrainingBatches(data.corpus(), 8, 0), Plan(half, None, 0, None), checkpoints=checkpoints)
    return Made(home, teacher, first)


class TestActions:
    def test_an_empty_home(self, tmp_path: Path) -> None:
        home = Home(tmp_path / "home")
        planned = plan(home)
        assert planned.data == "prepare"
        assert actions(planned) == ["compute"] * 4
        assert [model.fingerprint for model in planned.stages] == [None] * 3  # they hang on weights that nobody knows yet
        assert not home.root.exists()

    def test_reuse_resume_compute(self, made: Made) -> None:
        planned = plan(made.home)
        assert planned.data == "reuse"
        assert actions(planned) == ["reuse", "reuse", "resume", "compute"]
        assert planned.teacher.fingerprint == made.teacher.fingerprint
        assert planned.stages[0].fingerprint == made.first.fingerprint
        assert planned.stages[1].resume_step == 2
        assert planned.notes == ()

    def test_the_total_counts_what_is_to_be_done(self, made: Made) -> None:
        planned = plan(made.home)
        _, second, third = planned.stages
        assert planned.flops == pytest.approx(second.flops / 2 + third.flops)
        assert planned.seconds == pytest.approx(second.seconds / 2 + third.seconds)

    def test_planning_changes_nothing(self, made: Made) -> None:
        before = {path: path.stat().st_mtime_ns for path in made.home.root.rglob("*")}
        plan(made.home)
        assert {path: path.stat().st_mtime_ns for path in made.home.root.rglob("*")} == before

    def test_a_changed_stage_says_what_changed_and_what_comes_before_is_reused(self, made: Made) -> None:
        planned = plan(made.home, "stages[0].objective.alpha=0.25")
        assert actions(planned) == ["reuse", "compute", "compute", "compute"]
        start = digits().stages[0].objective.alpha.start
        assert planned.stages[0].changes == (f"objective.alpha.start: {start} -> 0.25",)

    def test_a_changed_teacher_changes_everything(self, made: Made) -> None:
        planned = plan(made.home, "teacher.training.steps=5")
        assert actions(planned) == ["compute"] * 4
        assert planned.teacher.changes == ("training.steps: 3 -> 5",)
        assert planned.stages[0].changes == (f"teachers: {made.teacher.weights_sha256[:12]} -> to be computed",)

    def test_changed_data_change_everything(self, made: Made) -> None:
        planned = plan(made.home, "data.valid_fraction=0.3")
        assert planned.data == "prepare"
        assert actions(planned) == ["compute"] * 4
        assert [line.split(":")[0] for line in planned.teacher.changes] == ["data"]

    def test_a_changed_gate_changes_nothing(self, made: Made) -> None:
        assert actions(plan(made.home, "defaults.gate={max_parameters: 1}")) == actions(plan(made.home))

    def test_a_damaged_result_is_computed_again(self, made: Made) -> None:
        weights = Path(made.first.folder) / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-1])
        try:
            assert plan(made.home).stages[0].action == "compute"
        finally:
            weights.write_bytes(whole)

    def test_fresh(self, made: Made) -> None:
        assert actions(plan(made.home, fresh=True)) == ["compute"] * 4
        assert actions(plan(made.home, start_at="quarter", fresh=True)) == ["reuse", "reuse", "compute", "compute"]

    def test_start_at_says_what_is_missing_before_it(self, made: Made) -> None:
        assert plan(made.home, start_at="quarter").notes == ()
        notes = plan(made.home, start_at="eighth").notes
        assert notes == ("quarter comes before --start-at eighth and is not finished with these settings; the run would refuse to start",)

    def test_an_unknown_start(self, made: Made) -> None:
        with pytest.raises(UserError, match=r"^--start-at: got 'quater'; .*Did you mean 'quarter'"):
            plan(made.home, start_at="quater")

    def test_what_cannot_run_is_refused(self, made: Made) -> None:
        with pytest.raises(UserError, match=r"^stages\[2\]\.student\.shape"):
            plan(made.home, "stages[2].student.shape.hidden_size=64")


class TestPrices:
    def test_three_forward_passes_of_the_student_and_one_of_its_teacher(self, made: Made) -> None:
        ladder = digits()
        assert isinstance(ladder.teacher, TrainedTeacher)
        interface = expected_interface(ladder, None)
        shapes = [ladder.teacher.shape, *(stage.student.shape for stage in ladder.stages)]
        sizes = [size_of(shape, interface) for shape in shapes]
        forward = [size.forward_flops / size.tokens for size in sizes]
        planned = plan(made.home)
        assert planned.teacher.tokens == 3 * 8 * sizes[0].tokens
        assert planned.teacher.flops == pytest.approx(planned.teacher.tokens * 3 * forward[0])
        for index, stage in enumerate(planned.stages, 1):
            assert stage.tokens == 4 * 8 * sizes[index].tokens
            assert stage.flops == pytest.approx(stage.tokens * (3 * forward[index] + forward[index - 1]))
            assert stage.parameters == sizes[index].parameters
            assert stage.ratio == pytest.approx(sizes[index - 1].parameters / sizes[index].parameters)

    def test_the_price_is_what_the_run_then_recorded(self, made: Made) -> None:
        planned = plan(made.home)
        assert planned.teacher.flops == pytest.approx(made.teacher.flops)
        assert planned.stages[0].flops == pytest.approx(made.first.flops)
        assert (planned.stages[0].parameters, planned.stages[0].non_embedding) == (made.first.parameters, made.first.non_embedding)

    def test_a_teacher_without_weight_in_the_loss_costs_nothing(self, made: Made) -> None:
        taught, alone = plan(made.home), plan(made.home, "defaults.objective.alpha=0")
        assert alone.stages[0].flops < taught.stages[0].flops
        assert alone.stages[0].flops == pytest.approx(3 * made.first.flops_per_token * alone.stages[0].tokens)

    def test_accumulation_saves_memory_and_nothing_else(self, made: Made) -> None:
        whole, split = plan(made.home).stages[0], plan(made.home, "defaults.training.accumulation=4").stages[0]
        assert split.memory_bytes < whole.memory_bytes
        assert split.flops == whole.flops

    def test_recomputing_saves_memory_and_changes_no_result(self, made: Made) -> None:
        kept, again = plan(made.home), plan(made.home, "teacher.training.recompute=true", "defaults.training.recompute=true")
        assert all(b.memory_bytes < a.memory_bytes for a, b in zip(kept.stages, again.stages, strict=True))
        assert actions(again) == actions(kept)


class TestPace:
    def test_nothing_ran_yet(self, tmp_path: Path) -> None:
        planned = plan(Home(tmp_path))
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "this machine's processor"
        assert "matrix product measured now on" in planned.basis
        assert where in planned.basis
        assert all(0 < model.seconds < 600 for model in (planned.teacher, *planned.stages))

    def test_what_ran_here_tells_how_long_it_takes(self, made: Made, tmp_path: Path) -> None:
        home = Home(tmp_path)
        models: Sequence[Any] = [made.teacher.model_copy(update={"seconds": 6.0}), made.first.model_copy(update={"seconds": 4.0})]
        gpus = ["a GPU"] if torch.cuda.is_available() else []
        record = run_record("digits-1", *models, ladder="digits", source="digits", environment={"gpus": gpus})
        save(home, record)
        planned = plan(home)
        assert planned.teacher.seconds == pytest.approx(6.0)
        assert planned.stages[0].seconds == pytest.approx(4.0)
        assert planned.stages[1].seconds > 0
        assert "digits-1" in planned.basis
        save(home, record.model_copy(update={"environment": {"gpus": [] if torch.cuda.is_available() else ["a GPU"]}}))
        assert "digits-1" not in plan(home).basis  # another device tells nothing

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_the_peak_is_a_peak(self, dtype: torch.dtype) -> None:
        assert 1e8 < matrix_product_peak(256, dtype) < 1e16


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> LadderPlan:
    loaded = load("llama-1b")
    return make_plan(loaded.ladder, tmp_path_factory.mktemp("base"), Home(tmp_path_factory.mktemp("home")))


class TestRealLadder:
    """`llama-1b`, without its data, its teacher or a GPU."""

    def test_it_is_quick(self, tmp_path: Path) -> None:
        loaded = load("llama-1b")
        began = time.process_time()
        make_plan(loaded.ladder, tmp_path, Home(tmp_path / "home"))
        assert time.process_time() - began < 30

    def test_it_says_what_is_missing(self, planned: LadderPlan) -> None:
        assert planned.data == "missing"
        assert planned.teacher.action == "import"
        assert [stage.action for stage in planned.stages] == ["compute"] * 3
        assert any(note.startswith("teacher.path: got 'teachers/llama-1b'") for note in planned.notes)
        assert any(note.startswith("data.paths[0]: got 'data/*.jsonl'") for note in planned.notes)

    def test_the_figures_are_sensible(self, planned: LadderPlan) -> None:
        for model, name in zip((planned.teacher, *planned.stages), (1e9, 3e8, 1e8, 3e7), strict=True):
            assert model.parameters == pytest.approx(name, rel=0.02)
        # Training costs about six operations a parameter and token, a teacher's forward two; attention and the head come on top.
        first = planned.stages[0]
        assert first.tokens == 11_400 * 256 * 2048
        assert 0.9 < first.flops / (first.tokens * (6 * 3e8 + 2 * 1e9)) < 1.5
        assert planned.flops == pytest.approx(sum(stage.flops for stage in planned.stages))
        assert planned.seconds > 0
        assert all(1e9 < stage.memory_bytes < 100e9 for stage in planned.stages)

    def test_without_its_shape_the_teachers_price_is_unknown_and_said_so(self, tmp_path: Path) -> None:
        loaded = load("llama-1b", ["teacher.shape=null"])
        planned = make_plan(loaded.ladder, tmp_path, Home(tmp_path / "home"))
        assert planned.teacher.parameters is None
        assert planned.stages[0].ratio is None
        assert planned.stages[1].ratio is not None
        assert any("the teacher's size is unknown" in note for note in planned.notes)


def test_a_stage_far_smaller_than_its_teacher_is_noted(tmp_path: Path) -> None:
    notes = {}
    for name in ("llama-1b", "smollm2"):
        loaded = load(name)
        notes[name] = make_plan(loaded.ladder, tmp_path, Home(tmp_path / "home")).notes
    gaps = [note for note in notes["llama-1b"] if "embeddings apart" in note]
    assert [note.split(" fewer")[0] for note in gaps] == ["30m: 4.2x"]
    assert "gate.policy insert" in gaps[0]
    assert any("40m: 10.0x" in note and "ladder prove --pilot" in note for note in notes["smollm2"])
