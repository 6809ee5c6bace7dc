"""A disk that fills at any step of a run: one message, and the same command goes on once there is space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.driver import Cli, clean_environment, half_written, home_with_database, run_python
from tests.flows.ladders import TINY
from tests.machine import small_disk

LADDER = (
    TINY.partition("  - name: three")[0]
    .replace("steps: 120", "steps: 40")
    .replace("\ndefaults:\n", "\ndefaults:\n  signals: {source: cached, kind: full}\n")
    + """
audit: {control: true, min_count: 5, min_documents: 5, resamples: 200}
bench: {stage_seconds: 0.2}
"""
)
# Fills the disk when the function is called, and calls it.
FILLING = """
import functools, importlib, operator, sys
from pathlib import Path
from tests.machine import fill

disk, step, *words = sys.argv[1:]
module, _, path = step.partition(":")
owner, _, name = path.rpartition(".")
place = importlib.import_module(module)
place = operator.attrgetter(owner)(place) if owner else place
plain = getattr(place, name)

@functools.wraps(plain)
def call(*args, **kwargs):
    setattr(place, name, plain)
    fill(Path(disk))
    return plain(*args, **kwargs)

setattr(place, name, call)
sys.argv[1:] = words
from flows.cli.app import main
main()
"""
STEPS = {
    "opening in MLflow": "tasks.tracking.tracker:Tracker.open_ladder",
    "data": "tasks.data.prepare:prepare_data",
    "teacher": "tasks.teachers.teacher:prepare_teacher",
    "signals": "tasks.training.train_model:signals_for",
    "checkpoint": "models.training.checkpoints:Checkpoints.save",
    "student": "tasks.training.student:train_student",
    "evaluation": "tasks.evaluation.evaluate:evaluate_model",
    "bench": "tasks.bench.bench:bench_model",
    "audit": "tasks.audit.audit:audit_model",
    "recording in MLflow": "tasks.tracking.tracker:Tracker.finish_stage",
    "record": "tasks.lifecycle.ladder_run:LadderRun.keep",
    "report": "tasks.report.publish:publish_report",
    "end": "tasks.lifecycle.ladder_run:LadderRun.save_end",
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "60m") as place:
        yield place


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "tiny.yaml"
    path.write_text(LADDER)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, empty_database: Path, ladder: Path) -> Cli:
    """A home in which the ladder ran undisturbed."""
    cli = Cli(home_with_database(tmp_path_factory.mktemp("whole") / "home", empty_database), {"PREFECT_API_URL": prefect_api})
    cli("run", ladder)
    return cli


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_fills_at_a_step(step: str, disk: Path, ladder: Path, whole: Cli, empty_database: Path):
    cli = Cli(home_with_database(disk / "home", empty_database), dict(whole.env))
    env = clean_environment(LADDER_HOME=str(cli.home), **cli.env)
    failed = run_python(FILLING, disk, STEPS[step], "run", ladder, env=env)
    said = failed.out + failed.err
    print(said)
    assert (disk / "ballast").stat().st_size > 2**20, "the step was not reached"
    assert failed.code == 1
    assert "Traceback" not in said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "No space left on device" in said or "disk is full" in said
    assert str(cli.home) in error
    assert "Free some space" in error
    assert sum("Free some space" in line for line in said.splitlines() if " | " not in line) == 1, "said once, beside Prefect's own log"

    (disk / "ballast").unlink()
    cli("run", ladder)
    assert half_written(cli.home) == []
    assert list(cli.home.glob("store/checkpoints/*")) == []
    assert cli.hashes() == whole.hashes()
    shown = cli.json("show")
    assert (shown["status"], shown["unrecorded"]) == ("done", [])
    assert Path(shown["report"]).is_file()
