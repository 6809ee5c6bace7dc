"""`ladder doctor`: check the requirements of a run, each with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from urllib.error import URLError
from urllib.request import urlopen

from conf.errors import LadderError
from conf.home import Home, protect
from conf.served import served
from flows.serving.environment import prepare_environment
from tasks.records.base import Record
from tasks.records.format import byte_size
from tasks.store.remote.results import open_remote, require_remote

LEAST_FREE = 2 * 2**30  # bytes; a small ladder with its checkpoints, Prefect's and MLflow's files


class Check(Record):
    """One requirement: its state and, where it fails, the remedy."""

    name: str
    ok: bool
    found: str
    remedy: str | None = None


def examine(home: Home) -> list[Check]:
    """Check everything; a failure is a result, not an error."""
    protect(home)
    services = [_guard("Prefect", lambda: _prefect(home)), _guard("MLflow", lambda: _mlflow(home))]
    return [_python(), _torch(), _store(home), *_object_store(home), _disk(home), *services]


def _python() -> Check:
    ok = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Check(name="Python", ok=ok, found=platform.python_version(), remedy=None if ok else "use Python 3.11, 3.12 or 3.13")


def _torch() -> Check:
    import torch

    from models.base.device import resolve_device, resolve_precision

    device = resolve_device("auto")
    what = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    return Check(
        name="torch", ok=True, found=f"{torch.__version__} on {device} ({what}), auto precision {resolve_precision('auto', device)}"
    )


def _store(home: Home) -> Check:
    try:
        home.store.mkdir(parents=True, exist_ok=True)
        probe = home.store / f".probe-{os.getpid()}"
        probe.write_text("x", encoding="utf-8")
        probe.unlink()
    except OSError as error:
        return Check(name="store", ok=False, found=f"{home.store}: {error}", remedy="set LADDER_HOME to a folder that you may write to")
    results = sum(1 for _ in home.store.glob("*/*/manifest.json"))
    return Check(name="store", ok=True, found=f"{home.store}, {results} results")


def _object_store(home: Home) -> list[Check]:
    """Nothing where `LADDER_STORE` is not set."""
    try:
        require_remote(home)
        remote = open_remote(home, lambda text: None)
        if remote is None:
            return []
        once = remote.learn_conditional(anew=True)
    except LadderError as error:
        return [Check(name="object store", ok=False, found=str(error), remedy="see the message, and docs/how-to/object-store.md")]
    writes = "conditional writes" if once else "no conditional writes: two machines may compute one result twice"
    return [Check(name="object store", ok=True, found=f"{remote.bucket.address} answers; {writes}")]


def _disk(home: Home) -> Check:
    place = next(p for p in (home.root, *home.root.parents) if p.exists())
    free = shutil.disk_usage(place).free
    ok = free >= LEAST_FREE
    remedy = None if ok else f"free at least {byte_size(LEAST_FREE)}, or set LADDER_HOME to a larger disk"
    return Check(name="disk", ok=ok, found=f"{byte_size(free)} free", remedy=remedy)


def _guard(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except (LadderError, OSError, ImportError) as error:
        return Check(
            name=name, ok=False, found=str(error), remedy="see the message; `pip install -c constraints.txt .` restores a tested set"
        )


def _prefect(home: Home) -> Check:
    prepare_environment(home)
    import prefect

    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return Check(name="Prefect", ok=True, found=f"{prefect.__version__}, embedded server, state in {home.prefect}")
    try:
        with urlopen(f"{url.rstrip('/')}/health", timeout=5) as answer:
            ok = answer.status == 200
    except (URLError, ValueError, OSError) as error:
        return Check(name="Prefect", ok=False, found=f"{url}: {error}", remedy="start that server, or unset PREFECT_API_URL")
    up = served(home)
    whose = f" of `ladder serve`, process {up.pid}" if up and up.prefect_api == url else ""
    return Check(name="Prefect", ok=ok, found=f"{prefect.__version__}, server at {url}{whose}")


def _mlflow(home: Home) -> Check:
    from tasks.tracking.client import OFF, tracking_uri, ui_command
    from tasks.tracking.tracker import connect

    if tracking_uri(home) == OFF:
        return Check(name="MLflow", ok=True, found=f"off: MLFLOW_TRACKING_URI={OFF}; runs are kept in the store alone")

    tracker = connect(home)
    up = served(home)
    look = up.mlflow_ui if up and up.mlflow_ui else f"look at it with: {ui_command(tracker.uri)}"
    return Check(name="MLflow", ok=True, found=f"{tracker.uri}; {look}")
