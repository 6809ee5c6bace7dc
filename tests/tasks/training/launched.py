"""Trainings in processes of their own, on hosts of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

from tasks.records.run import StageRecord

NEVER = 10_000  # validations without improvement, before a training ends early
SECONDS = 900  # for anything that has to start: it imports much, and tests share their cores
# Trains the root; prints the kind of the error and its text, or nothing and the record.
TRAIN = """
import json, logging, sys
from pathlib import Path
from conf.errors import LadderError
from tasks.runtime import cancellation
from tasks.runtime.logs import log
from tests.tasks.training.test_workers import StageInputs, inputs_of, ladder_of, prepare_teacher
log.addHandler(logging.StreamHandler())
folder, home, workers, steps, compute = Path(sys.argv[1]), *sys.argv[2:]
ladder = ladder_of(int(workers), int(steps), 10_000, **json.loads(compute))
inputs = inputs_of(ladder, folder)
(folder / home).mkdir(exist_ok=True)
inputs = StageInputs(ladder, inputs.data, inputs.context.model_copy(update={"home": str(folder / home)}))
try:
    with cancellation.own_code():
        print(json.dumps(["", prepare_teacher(inputs).model_dump_json()]))
except LadderError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


class Outcome(NamedTuple):
    """How a training ended: the kind of its error and the text, or nothing and the record as JSON; and what it said."""

    kind: str
    text: str
    said: str

    @property
    def record(self) -> StageRecord:
        assert not self.kind, self.text
        return StageRecord.model_validate_json(self.text)


def training(folder: Path, home: str, workers: int, steps: int, compute: dict[str, object]) -> list[str]:
    """Arguments for Python that train the root of `ladder_of`, in a home in a folder."""
    return ["-c", TRAIN, str(folder), home, str(workers), str(steps), json.dumps(compute)]


def outcome(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    kind, text = json.loads(out.splitlines()[-1])
    return Outcome(kind, text, err)
