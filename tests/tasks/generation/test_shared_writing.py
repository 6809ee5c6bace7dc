"""Writing shared among workers: the texts of one process, and no part twice, whoever is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from conf.errors import LadderError
from conf.schema.compute import Compute
from conf.schema.generate import Generate
from models.generation.writers import Ask, WrittenAnswer
from tasks.generation import write
from tasks.generation.answers import write_all
from tasks.generation.generate import read_prompts
from tasks.generation.spool import read_answers
from tasks.records.run import StageRecord
from tasks.runtime.shares import Share
from tasks.runtime.stage_inputs import StageInputs
from tests.tasks.generation.conftest import Made

PARTS = 6
SLOW_SECONDS = 0.5
# As `write_counted`, in a run of its own: inputs and root come by cloudpickle.
RUN = """
import sys
from pathlib import Path
import cloudpickle
from tests.tasks.generation.test_shared_writing import write_counted
write_counted(*cloudpickle.loads(Path(sys.argv[1]).read_bytes()))
"""


def shared(inputs: StageInputs, workers: int) -> StageInputs:
    """The inputs with so many workers."""
    launched: dict[str, Any] = {"launcher": "torchrun", "workers": workers} if workers > 1 else {}
    compute = Compute(at_once=None, device="cpu", threads=workers, **launched)
    return replace(inputs, ladder=inputs.ladder.model_copy(update={"compute": compute}))


@pytest.fixture
def many(inputs: Made, tmp_path: Path) -> Callable[[str, int], StageInputs]:
    """Inputs in a home of this name, with so many workers and `PARTS` parts."""
    (tmp_path / "prompts.txt").write_text("".join(f"say {'the word ' * (n % 5)}{n}\n" for n in range(4 * PARTS)))
    given = inputs(batch_size=1)

    def make(home: str, workers: int) -> StageInputs:
        (tmp_path / home).mkdir(exist_ok=True)
        return shared(replace(given, context=given.context.model_copy(update={"home": str(tmp_path / home)})), workers)

    return make


def written(inputs: StageInputs, root: StageRecord) -> tuple[list[list[WrittenAnswer]], int]:
    """All answers, and how many were written now."""
    settings = inputs.ladder.data.generate
    assert settings is not None
    found = write_all(settings, read_prompts(inputs).prompts, root, inputs)
    return found.answers, found.written


def write_counted_share(
    inputs: StageInputs, settings: Generate, root: StageRecord, parts: Sequence[Sequence[Ask]], folder: Path, share: Share
) -> None:
    """As `write_share`, slowly; the home's file `written` has a line for each part that a worker has written."""
    original = write.write_part

    def counted(folder: Path, number: int, answers: Sequence[tuple[str, WrittenAnswer]]) -> None:
        original(folder, number, answers)
        with (Path(inputs.context.home) / "written").open("a") as file:
            file.write(f"{os.getpid()} {answers[0][0]}\n")
        time.sleep(SLOW_SECONDS)

    write.write_part = counted  # in the worker's process
    write_share(inputs, settings, root, parts, folder, share)


write_share = write.write_share


def write_counted(inputs: StageInputs, root: StageRecord) -> tuple[list[list[WrittenAnswer]], int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "write_share", write_counted_share)
        return written(inputs, root)


def parts_written(home: Path) -> list[str]:
    """The first key of every part that a worker has written."""
    path = home / "written"
    return [line.split()[1] for line in path.read_text().splitlines()] if path.is_file() else []


def wait_until(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_texts_of_two_workers_are_those_of_one_process(root: StageRecord, many: Callable[[str, int], StageInputs], tmp_path: Path) -> None:
    alone = written(many("alone", 1), root)
    together = written(many("together", 2), root)
    assert together == alone
    assert alone[1] == 4 * PARTS
    assert len({answer.text for (answer,) in alone[0]}) > PARTS
    assert not list((tmp_path / "together" / "store" / "writing").iterdir())


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_message_and_the_next_run_goes_on(
    root: StageRecord, many: Callable[[str, int], StageInputs], tmp_path: Path
) -> None:
    home, inputs = tmp_path / "killed", many("killed", 2)

    def kill() -> None:
        wait_until(lambda: len(parts_written(home)) >= 2)
        pid = int((home / "written").read_text().split()[0])
        psutil.Process(pid).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(LadderError, match=r"^process [01] of the generation died: it said nothing$"):
        write_counted(inputs, root)
    thread.join()
    (spool,) = home.glob("store/checkpoints/*/answers.jsonl")
    before = len(read_answers(spool))
    assert 4 <= before < 4 * PARTS
    answers, new = write_counted(inputs, root)
    assert new == 4 * PARTS - before
    assert answers == written(many("alone", 1), root)[0]
    assert len(set(parts_written(home))) == len(parts_written(home)) == PARTS


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_what_its_workers_had_finished(
    root: StageRecord, many: Callable[[str, int], StageInputs], tmp_path: Path
) -> None:
    import cloudpickle

    home, inputs = tmp_path / "killed", many("killed", 2)
    (tmp_path / "order").write_bytes(cloudpickle.dumps((inputs, root)))
    run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "order")])
    wait_until(lambda: len(parts_written(home)) >= 2)
    run.kill()
    run.wait()
    answers, new = write_counted(inputs, root)  # at once: its workers may still be there
    assert 0 < new < 4 * PARTS
    assert answers == written(many("alone", 1), root)[0]
    assert len(set(parts_written(home))) == len(parts_written(home)) == PARTS
    assert not list(home.glob("store/checkpoints/*"))
