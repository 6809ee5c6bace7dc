"""Phases of a run as probes around its functions, one of which has the process killed."""

from __future__ import annotations

import functools
import importlib
import operator
import os
import pkgutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.flows.fork_server import LATE, MODULES

START, PACKAGES = "start", [str(Path(__file__).parents[1] / "flows")]
# Phase -> functions, as `module:name`, in the order in which they are wrapped: before the modules that import them by name.
PHASES: dict[str, tuple[str, ...]] = {
    START: (),
    "checkpoint": ("models.training.checkpoints:Checkpoints.save",),
    "training": ("models.training.loop:train",),
    "publication": ("tasks.store.store:Store.publish",),
    "opening in MLflow": ("tasks.tracking.tracker:Tracker.open_ladder", "tasks.tracking.tracker:Tracker.open_stage"),
    "recording in MLflow": ("tasks.tracking.tracker:Tracker.finish_stage", "tasks.tracking.tracker:Tracker.log_dataset"),
    "closing in MLflow": ("tasks.tracking.tracker:Tracker.close_children", "tasks.tracking.tracker:Tracker.close"),
    "signals": ("tasks.training.signals.signal_cache:signals_for",),
    "data": ("tasks.data.prepare:prepare_data",),
    "teacher": ("tasks.teachers.teacher:prepare_teacher",),
    "student": ("tasks.training.student:train_student",),
    "evaluation": ("tasks.evaluation.evaluate:evaluate_model", "tasks.evaluation.evaluate:answers_on_test"),
    "bench": ("tasks.bench.bench:bench_model",),
    "audit": ("tasks.audit.audit:train_control", "tasks.audit.audit:audit_model"),
    "gate": ("tasks.evaluation.gate:decide",),
    "proof": (
        "tasks.proof.prepare_arms:arms_of",
        "tasks.proof.proof:proof_of",
        "tasks.proof.proof:save_proof",
        "tasks.proof.proof:record_proof",
    ),
    "report": ("tasks.report.publish:publish_report",),
    "end": ("tasks.lifecycle.ladder_run:LadderRun.__exit__",),
    "between": (),
}


class Kill(NamedTuple):
    """A signal, sent some seconds after a phase has begun for the so-manieth time, and at its end at the latest."""

    phase: str
    occurrence: int
    seconds: float
    number: signal.Signals


_kill: Kill | None = None
_pending = threading.Lock()  # held by whoever strikes
_journal: Path | None = None
_seen: dict[str, int] = {}
_stack: list[str] = [START]


def install() -> None:
    """Put probes around the functions, before anything imports them by name, and import everything."""
    for phase, names in PHASES.items():
        for name in names:
            module, _, path = name.partition(":")
            owner, _, attribute = path.rpartition(".")
            place: Any = importlib.import_module(module)
            place = operator.attrgetter(owner)(place) if owner else place
            setattr(place, attribute, _probe(phase, getattr(place, attribute)))
    late = (name for names in LATE.values() for name in names)
    for name in (*MODULES, *late, "prefect.server.api.server", *(module.name for module in pkgutil.walk_packages(PACKAGES, "flows."))):
        importlib.import_module(name)


def plan(kill: Kill | None, journal: Path) -> None:
    """Have this process killed; its phases go into the journal."""
    global _kill, _journal, _started
    _kill, _journal = kill, journal
    _stack[:], _started = [START], time.monotonic()
    _begin(START)


def _begin(phase: str) -> int:
    number = _seen.get(phase, 0)
    _seen[phase] = number + 1
    if _kill is not None and (_kill.phase, _kill.occurrence) == (phase, number):
        threading.Thread(target=_strike, args=(_kill,), daemon=True).start()
    return number


def _strike(kill: Kill, after: float | None = None) -> None:
    time.sleep(kill.seconds if after is None else after)
    if not _pending.acquire(blocking=False):
        return
    _note(f"killed in {_stack[-1]}", kill.seconds)
    os.kill(os.getpid(), kill.number)


def _end(phase: str, number: int) -> None:
    """Strike now, where the phase that was drawn is over sooner than usual."""
    if _kill is not None and (_kill.phase, _kill.occurrence) == (phase, number):
        _strike(_kill, 0.0)


def _note(phase: str, seconds: float) -> None:
    if _journal is not None:
        handle = os.open(_journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, f"{phase} {seconds}\n".encode())
        os.close(handle)


def _probe(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return function(*args, **kwargs)
        if _stack == [START]:
            _end(START, 0)
            _note(START, time.monotonic() - _started)
            _stack[:] = ["between"]
        _stack.append(phase)
        number = _begin(phase)
        began = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            _end(phase, number)
            _note(phase, time.monotonic() - began)
            _stack.pop()

    return call


_started = time.monotonic()
