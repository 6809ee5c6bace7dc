"""Cost of orchestration: a `python-stdlib` stage against the bare training loop.

    python -m benchmarks.overhead [--steps 150] [--pairs 3] [KEY=VALUE ...]

Both train the first stage's student with its live teacher, from the same first weights on the same batches, for the same steps.

- Orchestrated: the flow `flows.distill.distill`, with the teacher already in the store, on Prefect's embedded server and MLflow's
  SQLite file, with validation, checkpoints and progress as shipped. Two times are taken. *Training* is `seconds` of the stage's
  record: the loop alone, with what it calls. *Task* is the run time of the student's task as Prefect recorded it: look-up in the
  store, loading, training, every checkpoint, publication.
- Bare: load the teacher, build the student, `models.training.loop.train` without validation, checkpoints, tracking or progress.
  *Training* is the seconds that the loop returns, *task* is the wall time of all three.

Pairs alternate in order, so that a drifting machine does not favour one side. The start of Prefect's server is measured apart and
is in neither. Everything happens in a temporary LADDER_HOME.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from benchmarks.common import fresh_model, machine, plan_for, shape_of, spread
from conf.home import home
from conf.loading.load import load
from conf.loading.yaml_output import to_yaml
from conf.schema.ladder import Ladder

TARGET = 1.05
PATIENCE = 60  # seconds that Prefect may take to record the end of a task


class Times(NamedTuple):
    """Seconds of one training, and of all that it needs."""

    training: float
    task: float


def one_stage(folder: Path, overrides: list[str], steps: int) -> Path:
    """A ladder with the first stage of `python-stdlib` alone, and a teacher of two steps: its answers cost as much as good ones."""
    ladder = load("python-stdlib", [*overrides, "route=as-written", "teacher.training.steps=2", f"stages[0].training.steps={steps}"]).ladder
    path = folder / "one-stage.yaml"
    stage = ladder.stages[0].model_copy(update={"gate": type(ladder.stages[0].gate)()})
    path.write_text(to_yaml(ladder.model_copy(update={"name": "overhead", "stages": (stage,)})), encoding="utf-8")
    return path


def orchestrated(path: Path, seed: int) -> Times:
    """Run the flow; the teacher and the data are found in the store, the stage is computed."""
    from flows.distill import distill
    from tasks.records.run import RunRecord

    record = distill(str(path), (f"stages[0].seed={seed}",))
    assert isinstance(record, RunRecord)
    assert record.teacher is not None
    stage = record.stages[0]
    assert not stage.reused
    assert stage.prefect_run_id
    return Times(stage.seconds, task_seconds(stage.prefect_run_id))


def task_seconds(flow_run_id: str) -> float:
    """Run time of the student's task in a stage's flow run; Prefect records it a moment after the task ended."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
    until = time.monotonic() + PATIENCE
    with get_client(sync_client=True) as client:
        while time.monotonic() < until:
            tasks = [t for t in client.read_task_runs(flow_run_filter=wanted) if t.task_key.startswith("train_student")]
            if tasks and tasks[0].state and tasks[0].state.is_completed():
                return tasks[0].total_run_time.total_seconds()
            time.sleep(0.5)
    raise TimeoutError(f"Prefect did not record the end of the student's task of flow run {flow_run_id}")


def bare(ladder: Ladder, teacher: Path, corpus_folder: Path, seed: int) -> Times:
    """Load the teacher, build the student, train it."""
    from models.architectures.checkpoint import load_model
    from models.data.batches import TrainingBatches
    from models.data.corpus import Corpus
    from models.signals.sources import live
    from models.training.loop import train

    began, stage = time.monotonic(), ladder.stages[0]
    corpus = Corpus(corpus_folder, "")
    interface = corpus.interface
    plan = plan_for(ladder, stage.training, stage.objective, interface.vocabulary, seed)
    signals = live(load_model(teacher, ladder.workload).to(plan.device), plan.vocabulary)
    student = fresh_model(shape_of(stage), interface, seed)
    trained = train(student, TrainingBatches(corpus, stage.training.batch_size, seed), plan, signals=signals)
    return Times(trained.seconds, time.monotonic() - began)


def measure(folder: Path, overrides: list[str], steps: int, pairs: int) -> None:
    """Measure all pairs and print them; in a process whose LADDER_HOME is temporary."""
    from flows.serving.environment import prepare_environment

    prepare_environment(home())
    from flows.serving.embedded.server import reach_server

    began = time.monotonic()
    reach_server(home())
    started = time.monotonic() - began
    from flows.distill import distill
    from models.base.device import use_threads
    from tasks.records.run import RunRecord
    from tasks.runtime.logs import show_logs

    show_logs()
    path = one_stage(folder, overrides, steps)
    ladder = load(str(path)).ladder
    use_threads(ladder)
    # Data, teacher, MLflow's database and all imports, out of the way of what is measured.
    ready = distill(str(path), ("stages[0].training.steps=2",))
    assert isinstance(ready, RunRecord)
    assert ready.teacher is not None
    assert ready.data is not None
    teacher, corpus = Path(ready.teacher.folder), Path(ready.data.folder)
    results: list[tuple[Times, Times]] = []
    for pair in range(1, pairs + 1):
        if pair % 2:
            flow, loop = orchestrated(path, pair), bare(ladder, teacher, corpus, pair)
        else:
            loop, flow = bare(ladder, teacher, corpus, pair), orchestrated(path, pair)
        results.append((flow, loop))
        print(json.dumps({"pair": pair, "orchestrated": flow._asdict(), "bare": loop._asdict()}), file=sys.stderr)
    report(ladder, steps, started, results)


def report(ladder: Ladder, steps: int, started: float, results: list[tuple[Times, Times]]) -> None:
    """Print each pair and the two ratios."""
    from models.base.device import resolve_device

    print(f"\nstage {ladder.stages[0].name} of python-stdlib, {steps} steps, {machine(resolve_device(ladder.compute.device))}")
    print(f"Prefect's embedded server started in {started:.1f} s, which is not counted\n")
    print(f"{'pair':<6}{'training: flow':>16}{'bare':>8}{'ratio':>8}{'task: flow':>14}{'bare':>8}{'ratio':>8}")
    for number, (flow, loop) in enumerate(results, 1):
        cells = [f"{a:>{w}.1f}{b:>8.1f}{a / b:>8.3f}" for a, b, w in zip(flow, loop, (16, 14), strict=True)]
        print(f"{number:<6}{''.join(cells)}")
    for name in Times._fields:
        ratios = [getattr(flow, name) / getattr(loop, name) for flow, loop in results]
        verdict = "met" if statistics.median(ratios) <= TARGET else "missed"
        print(f"\n{name}: ratio {spread(ratios, '{:.3f}')}; target at most {TARGET}: {verdict}", end="")
    print()


def main() -> None:
    """Measure in a process of its own, so that its server is gone before its temporary home is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=150, help="steps of each training; 150 are about a minute on two cores")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")
    options = parser.parse_args()
    if options.inside:
        measure(options.inside, options.overrides, options.steps, options.pairs)
        return
    with tempfile.TemporaryDirectory(prefix="ladder-overhead-") as folder:
        command = [sys.executable, "-m", "benchmarks.overhead", *sys.argv[1:], "--inside", folder]
        environment = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")}
        sys.exit(subprocess.run(command, env={**environment, "LADDER_HOME": str(Path(folder) / "home")}, check=False).returncode)


if __name__ == "__main__":
    main()
