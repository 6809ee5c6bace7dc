"""A training shared by worker processes: the same model as of one process, whatever dies or stops on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from conf.errors import LadderError, RunCancelled, UserError
from conf.schema.compute import Compute
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import Objective
from models.base.files import read_json
from models.training.loop import Step
from tasks.records.run import StageRecord
from tasks.runtime import cancellation as stopping
from tasks.runtime.progress import TrainingProgress
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher, teacher_work
from tasks.tracking.curves import CurveLogger
from tasks.training.student import train_student
from tasks.training.workers import worker
from tasks.training.workers.check import check_workers
from tasks.training.workers.events import EventReader, EventWriter
from tasks.training.workers.order import OUTCOME, VERSIONS, WORK, versions
from tests.factories import inputs_of, write_functions

SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2, "key_value_heads": 1, "feed_forward": 24}


def ladder_of(workers: int, steps: int = 6, patience: int = 5, compiled: bool = False, **compute: Any) -> Ladder:
    training = {"steps": steps, "batch_size": 5, "precision": "fp32", "checkpoint_every": 2, "validate_every": 3, "compile": compiled}
    launched = {"launcher": "torchrun", "workers": workers} if workers else {}
    return Ladder.model_validate(
        {
            "name": "tiny",
            "data": {"source": "files", "paths": ["texts/*.txt"], "sequence_length": 8, "valid_fraction": 0.2, "test_fraction": 0.2},
            "teacher": {"source": "train", "shape": SHAPE, "training": training | {"patience": patience}, "allow_poor": True},
            "compute": {"at_once": None, "device": "cpu", "threads": 2, **launched, **compute},
            "evaluation": {"examples": 8},
            "tracking": "off",
            "stages": [{"name": "small", "student": {"shape": SHAPE | {"layers": 1}, "initialisation": "layers"}, "training": training}],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_functions(tmp_path)
    return tmp_path


def inputs_in(folder: Path, ladder: Ladder, home: str) -> StageInputs:
    """Inputs in a home of their own, so that nothing is reused."""
    (folder / home).mkdir()
    inputs = inputs_of(ladder, folder)
    return StageInputs(ladder, inputs.data, inputs.context.model_copy(update={"home": str(folder / home)}))


def weights(record: StageRecord) -> dict[str, torch.Tensor]:
    return load_file(Path(record.folder) / "model.safetensors")


def losses(record: StageRecord) -> list[float]:
    return [point["loss"] for point in read_json(Path(record.folder) / "curve.json")["train"]]


def apart(one: StageRecord, other: StageRecord) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def student(folder: Path, root: StageRecord, workers: int, home: str, **compute: Any) -> StageRecord:
    ladder = ladder_of(workers, **compute)
    return train_student(ladder.stages[0], [root], inputs_in(folder, ladder, home))


@pytest.mark.processes
@pytest.mark.slow
def test_two_workers_make_the_root_of_one_process_under_the_same_fingerprint(folder: Path) -> None:
    here, two = (prepare_teacher(inputs_in(folder, ladder_of(workers), f"w{workers}")) for workers in (0, 2))
    assert (here.fingerprint, here.steps, here.tokens, here.flops) == (two.fingerprint, two.steps, two.tokens, two.flops)
    assert losses(two) == pytest.approx(losses(here), abs=1e-5)
    assert apart(here, two) < 1e-5
    assert not list((folder / "w2" / "store").glob("*/checkpoints*/*")), "no checkpoint and no worker's file stays"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_two_and_four_workers_train_a_taught_student_alike(folder: Path, strategy: str) -> None:
    root = prepare_teacher(inputs_in(folder, ladder_of(0), "root"))
    plain = student(folder, root, 0, "plain")
    assert plain.signals == "live", "and so is the teacher of workers, whose weights are spread with fsdp"
    for workers in (1, 2, 4):
        made = student(folder, root, workers, f"w{workers}", strategy=strategy)
        assert losses(made) == pytest.approx(losses(plain), abs=1e-5), workers
        assert apart(plain, made) < 2e-5, workers
        assert made.fingerprint == plain.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_compiled_layers_are_trained_alike_by_workers(folder: Path, strategy: str) -> None:
    root = prepare_teacher(inputs_in(folder, ladder_of(0), "root"))
    plain = student(folder, root, 0, "plain")
    compiled = student(folder, root, 2, "compiled", compiled=True, strategy=strategy)
    assert losses(compiled) == pytest.approx(losses(plain), abs=1e-5)
    assert losses(compiled) != losses(plain), "nothing was compiled"
    assert apart(plain, compiled) < 2e-5
    assert compiled.fingerprint == plain.fingerprint


def answers_in(cache: Path) -> dict[bytes, bytes]:
    """Every example's answer, by its key."""
    found = {}
    for path in cache.glob("part-*.npy"):
        data = path.with_suffix(".bin").read_bytes()
        found |= {entry["key"].tobytes(): data[entry["begin"] : entry["begin"] + entry["bytes"]] for entry in np.load(path)}
    return found


@pytest.mark.slow
def test_workers_fill_a_cache_together(folder: Path) -> None:
    root, made = prepare_teacher(inputs_in(folder, ladder_of(0), "root")), list[StageRecord]()
    for workers in (0, 2):
        ladder = ladder_of(workers)
        signals = ladder.stages[0].signals.model_copy(update={"source": "cached", "kind": "full"})
        given = inputs_in(folder, ladder, f"w{workers}")
        made.append(train_student(ladder.stages[0].model_copy(update={"signals": signals}), [root], given))
    one, two = made
    assert one.answers_asked == two.answers_asked
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert apart(one, two) < 2e-5
    caches = [next((folder / home / "store" / "signals").iterdir()) for home in ("w0", "w2")]
    assert answers_in(caches[0]) == answers_in(caches[1]), "the answers of one process, to the last bit"
    assert [len(list(cache.glob("part-*.json"))) for cache in caches] == [1, 2], "a part of each worker"


def wait_until(holds: Callable[[], Any], what: str, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def workers_in(folder: Path) -> list[psutil.Process]:
    """The workers that train in a folder now."""
    found = []
    for each in psutil.process_iter(["cmdline"]):
        words = each.info["cmdline"] or []
        if "tasks.training.workers.worker" in words and "torch.distributed.run" not in words and any(str(folder) in word for word in words):
            found.append(each)
    return found


def checkpoints_in(home: Path) -> list[Path]:
    return sorted(home.rglob("step-*"))


@pytest.mark.slow
def test_a_killed_worker_brings_all_back_from_the_last_checkpoint(folder: Path) -> None:
    plain = prepare_teacher(inputs_in(folder, ladder_of(0, steps=600), "plain"))
    inputs = inputs_in(folder, ladder_of(2, steps=600), "two")
    killed: list[int] = []

    def kill() -> None:
        wait_until(lambda: checkpoints_in(folder / "two"), "a checkpoint")
        victim = workers_in(folder / "two")[-1]
        victim.send_signal(signal.SIGKILL)
        killed.append(victim.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    root = prepare_teacher(inputs)
    thread.join()
    assert killed
    assert root.resumed_at is not None
    assert root.resumed_at >= 2
    assert apart(plain, root) < 1e-4


@pytest.mark.slow
def test_workers_that_die_again_and_again_are_an_error_that_keeps_the_checkpoints(folder: Path) -> None:
    inputs = inputs_in(folder, ladder_of(2, steps=2_000, max_failures=0), "two")

    def kill() -> None:
        wait_until(lambda: checkpoints_in(folder / "two"), "a checkpoint")
        workers_in(folder / "two")[0].send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(LadderError, match=r"Workers died more often than compute.max_failures allows \(0\)"):
        prepare_teacher(inputs)
    thread.join()
    assert checkpoints_in(folder / "two")
    assert not workers_in(folder / "two")


@pytest.mark.slow
def test_the_parts_that_two_workers_wrote_are_read_by_any_number(folder: Path) -> None:
    plain = prepare_teacher(inputs_in(folder, ladder_of(0, steps=300), "plain"))
    two = ladder_of(2, steps=300, strategy="fsdp", max_failures=0)

    def kill() -> None:
        wait_until(lambda: checkpoints_in(folder / "two"), "a checkpoint")
        workers_in(folder / "two")[0].send_signal(signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(LadderError, match="Workers died"):
        prepare_teacher(inputs_in(folder, two, "two"))
    thread.join()
    last = checkpoints_in(folder / "two")[-1]
    parts = [f"{name}-{rank:05d}.safetensors" for name in ("model", "optimizer") for rank in (0, 1)]
    assert sorted(path.name for path in last.iterdir()) == sorted(["state.json", *parts])
    sizes = [(last / part).stat().st_size for part in parts]
    assert max(sizes[:2]) < 0.7 * sum(sizes[:2]), "each holds about half"
    for workers in (0, 1, 3):
        ladder = ladder_of(workers, steps=300, strategy="fsdp" if workers else "ddp")
        inputs = inputs_in(folder, ladder, f"w{workers}")
        shutil.copytree(folder / "two", folder / f"w{workers}", dirs_exist_ok=True)
        made = prepare_teacher(inputs)
        assert made.resumed_at == int(last.name.removeprefix("step-"))
        assert apart(plain, made) < 1e-4, workers


@pytest.mark.slow
def test_a_stopped_run_ends_its_workers_with_a_checkpoint_and_goes_on(folder: Path) -> None:
    inputs = inputs_in(folder, ladder_of(2, steps=400), "two")

    def stop() -> None:
        wait_until(lambda: checkpoints_in(folder / "two"), "a checkpoint")
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(RunCancelled, match=r"at step \d+ of 400"), stopping.own_code():
        prepare_teacher(inputs)
    thread.join()
    stopping._request.reason, stopping._request.signals = None, 0
    assert not workers_in(folder / "two")
    last = int(checkpoints_in(folder / "two")[-1].name.removeprefix("step-"))
    assert prepare_teacher(inputs).resumed_at == last


RUN = """
import sys
from pathlib import Path
from tests.tasks.training.test_workers import inputs_of, ladder_of, StageInputs, prepare_teacher
folder = Path(sys.argv[1])
ladder = ladder_of(2, steps=3000)
inputs = inputs_of(ladder, folder)
prepare_teacher(StageInputs(ladder, inputs.data, inputs.context.model_copy(update={"home": str(folder / "two")})))
"""


@pytest.mark.slow
def test_workers_end_by_themselves_when_their_run_is_killed(folder: Path) -> None:
    (folder / "two").mkdir()
    run = subprocess.Popen([sys.executable, "-c", RUN, str(folder)])
    wait_until(lambda: checkpoints_in(folder / "two") or run.poll() is not None, "a checkpoint")
    assert len(workers_in(folder / "two")) == 2
    run.kill()
    run.wait()
    wait_until(lambda: not workers_in(folder / "two"), "the workers' end", 30)
    assert checkpoints_in(folder / "two")


def test_workers_need_a_launcher_and_an_example_each(folder: Path) -> None:
    with pytest.raises(
        ValidationError, match=r"got workers 2 with launcher 'local'; allowed: 1. Set launcher: torchrun, or leave workers out"
    ):
        Compute(workers=2)
    with pytest.raises(ValidationError, match=r"got strategy 'fsdp' with launcher 'local'; allowed: ddp. Set launcher: torchrun, or leave"):
        Compute(strategy="fsdp")
    hidden = ladder_of(2, strategy="fsdp")
    objective = Objective.model_validate({"alpha": 0.5, "features": [{"kind": "hidden"}]})
    work = replace(teacher_work(hidden, cast(Any, hidden.teacher), inputs_in(folder, hidden, "hidden").data), objective=objective)
    with pytest.raises(UserError, match=r"compute.strategy: got 'fsdp'; allowed: ddp for teacher, whose objective has losses on hidden"):
        check_workers(hidden.compute, work.training, work.objective, work.name)
    with pytest.raises(UserError, match=r"compute.workers: got 6; allowed: at most 5, the examples of a micro-batch of teacher"):
        prepare_teacher(inputs_in(folder, ladder_of(6), "six"))


@pytest.mark.parametrize("package", ["ladder-distillation", "torch"])
def test_a_worker_of_another_version_says_so_before_it_reads_its_order(tmp_path: Path, package: str) -> None:
    (tmp_path / VERSIONS).write_text(json.dumps(versions() | {package: "0.0.1"}))
    (tmp_path / WORK).write_bytes(b"an order that this version cannot read")
    worker.main(tmp_path)
    outcome = read_json(tmp_path / OUTCOME)
    assert outcome["kind"] == "UserError"
    assert re.match(rf"compute.launcher: got 'a worker with .*{package} (?!0.0.1).*'; allowed: .*{package} 0.0.1.*", outcome["text"])
    assert outcome["text"].endswith("Install the same versions for all workers.")


def test_the_run_records_each_step_of_its_workers_once(tmp_path: Path) -> None:
    def step(number: int) -> Step:
        return Step(number, 3.0, 3.0, 0.0, None, 0.1, 0.0, 1.0, 1.0, 100.0, {"nll": 2.0} if number == 3 else None)

    def recorded(reader: Callable[[EventReader], None]) -> list[tuple[str, int]]:
        curves = CurveLogger("small", cast(Any, None), cast(Any, None))  # it is not entered, and so sends nothing
        reader(EventReader(tmp_path, TrainingProgress("small", 3, "ex"), curves))
        return [(key, number) for key, _, number, _ in curves._held if key in ("train/loss", "curve/valid_nll")]

    with EventWriter(tmp_path) as events:
        for number in (1, 2, 1, 2, 3):  # after step 2 all workers were started anew
            events.on_step(step(number))
    once = [("train/loss", 1), ("train/loss", 2), ("train/loss", 3), ("curve/valid_nll", 3)]
    assert recorded(EventReader.read) == once
    assert recorded(EventReader.record_rest) == once, "which a run left that died"
