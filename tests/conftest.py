"""Environment of all tests: no hub, one thread a process, as two processes share the cores. Libraries read it when imported.

Trainings take turns by locks in the temporary folder, so each test process has one of its own and waits for no other.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.native import ALLOCATOR

os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "true"})
os.environ.setdefault("OMP_NUM_THREADS", "1")


BEFORE = dict(os.environ)


def pytest_configure() -> None:
    """Libraries and tests are objects that stay: no collection goes through them while they are made, or afterwards."""
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of the whole project first: none has a process to itself at the end, while the others wait."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


def pytest_collection_finish() -> None:
    for name in ALLOCATOR.keys() - BEFORE.keys():  # `benchmarks` sets them when a test of one imports it; no other test is to see them
        os.environ.pop(name, None)
    gc.enable()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # what tests leave are few objects of large ones; looking for cycles took a twentieth of the time


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TMPDIR"] = tempfile.tempdir = str(tmp_path_factory.mktemp("turns"))
    yield
    tempfile.tempdir = before[1]
    os.environ.pop("TMPDIR") if before[0] is None else os.environ.update(TMPDIR=before[0])


@pytest.fixture(autouse=True)
def no_log_line_left_out() -> None:
    """The log passes a line a second in the long run; a test must not lose its own to those of the tests before."""
    if (logs := sys.modules.get("tasks.runtime.logs")) is not None:
        for rate in logs.log.filters:
            if isinstance(rate, logs._RateLimit):
                rate.allowed, rate.dropped = float(logs.BURST), 0


@pytest.fixture(autouse=True)
def own_handlers_of_signals() -> Iterator[None]:
    """A run that is cancelled in this process ignores SIGTERM from then on, and so would all processes that later tests start."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)
