"""What is logged reaches Prefect, too: no flood, no passwords, and nothing twice on the terminal."""

from __future__ import annotations

import logging
import time

import pytest

from tasks.runtime.logs import BURST, NOT_ON_TERMINAL, _Lines, log


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
    handler = _Lines()
    log.addHandler(handler)
    try:
        log.info("step 1", extra=NOT_ON_TERMINAL)
        log.info("found")
    finally:
        log.removeHandler(handler)
    assert caplog.messages == ["step 1", "found"]
    assert capsys.readouterr().err.split()[1:] == ["found"]
