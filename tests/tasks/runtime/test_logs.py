"""Log lines in Prefect: no flood, no passwords, none twice on the terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import pytest

from tasks.runtime.logs import BURST, NOT_ON_TERMINAL, _TerminalHandler, log

pytestmark = pytest.mark.thorough


def test_a_flood_is_cut_to_a_line_a_second_and_says_so(calm: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ladder")
    for number in range(1000):
        log.info("line %d", number)
    assert BURST <= len(caplog.records) <= BURST + 2
    log.error("this matters")
    assert caplog.messages[-1].startswith("this matters (left out before this line: 9")
    time.sleep(2.1)
    log.info("and on")
    assert caplog.messages[-1] == "and on"


def test_no_password_is_logged(calm: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ladder")
    log.warning("%s does not answer", "postgresql://ann:s3cret@db:5432/mlflow")
    log.warning("https://ann:s3cret@host/api and http://127.0.0.1:4200/api, mail@host")
    log.warning("http://ann:s3@cret@host and postgresql://h/db?password=s3cret and http://s3cret@host")
    assert caplog.messages == [
        "postgresql://ann:***@db:5432/mlflow does not answer",
        "https://ann:***@host/api and http://127.0.0.1:4200/api, mail@host",
        "http://ann:***@host and postgresql://h/db?password=*** and http://***@host",
    ]


def test_what_a_bar_shows_is_logged_and_not_printed(
    calm: None, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, logger="ladder")
    handler = _TerminalHandler()
    log.addHandler(handler)
    try:
        log.info("step 1", extra=NOT_ON_TERMINAL)
        log.info("found")
    finally:
        log.removeHandler(handler)
    assert caplog.messages == ["step 1", "found"]
    assert capsys.readouterr().err.split()[1:] == ["found"]


COMPUTATION = """
import logging, warnings
import numpy, scipy.stats, torch
from tasks.runtime.logs import BURST, log, show_logs
show_logs()
for _ in range(3):
    numpy.mean(numpy.array([]))
    scipy.stats.skew(numpy.ones(9))
    exec(compile("torch.ones(1).std()", "measure.py", "exec"), {"torch": torch, "__name__": "models.evaluation.measure"})
    warnings.warn("somebody's function has another name now", DeprecationWarning)
    warnings.warn("about something else")
    async def forgotten(): pass
    forgotten()
for number in range(BURST):
    log.info("step %d", number)
numpy.exp(numpy.array(1e4))
"""


@pytest.mark.processes
def test_a_warning_of_a_computation_is_logged_once_and_no_other() -> None:
    process = subprocess.run([sys.executable, "-c", COMPUTATION], capture_output=True, text=True, check=True)
    lines = [line.split(" ", 1)[1] for line in process.stderr.splitlines() if " step " not in line]
    said = (
        "warning: RuntimeWarning: Mean of empty slice",
        "warning: RuntimeWarning: invalid value encountered in",
        "warning: RuntimeWarning: Precision loss occurred in moment calculation",
        "warning: UserWarning: std(): degrees of freedom is <= 0",
        "warning: RuntimeWarning: overflow encountered in exp",
    )
    assert len(lines) == len(said), process.stderr
    for line, beginning in zip(lines, said, strict=True):
        assert line.startswith(beginning)
    assert "(measure.py, line 1)" in lines[3]
    assert process.stdout == ""


@pytest.mark.processes
def test_warnings_that_are_errors_stay_errors() -> None:
    code = "import numpy; from tasks.runtime.logs import log_warnings; log_warnings(); numpy.exp(numpy.array(1e4))"
    process = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONWARNINGS": "error"}, capture_output=True, text=True)
    assert process.returncode == 1
    assert "RuntimeWarning: overflow encountered in exp" in process.stderr.splitlines()[-1]
