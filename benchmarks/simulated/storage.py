"""A store and a registry of runs that fill up: look-ups, lists and cleaning by the real code."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.simulated.curves import Point, measure
from benchmarks.simulated.planning import ladder_of, write_text
from conf.home import Home
from flows.cli.show.runs import run_row, runs_text
from models.base.files import file_sha256
from tasks.lifecycle.clean import clean
from tasks.planning.plan import make_plan
from tasks.records.run import StageRecord
from tasks.runtime.runs import run_registry
from tasks.runtime.runs.run_index import ShortRun
from tasks.runtime.runs.run_registry import list_runs, load_run, new_name
from tasks.store.fingerprint import fingerprint
from tasks.store.store import MANIFEST, SHOWN, Store
from tests.factories import model_record, run_record

DAY = 86400.0
CALLS = 10  # of the quick operations
PLANNED = 10  # stages of the ladder that is planned beside the results
START = time.time() - 20_000 * 60 - 60 * DAY


def identity_of(number: int) -> dict[str, object]:
    """Identity of a simulated result, hashed into its fingerprint."""
    return {"kind": "stage", "number": number}


def add_results(home: Home, numbers: range) -> None:
    """Add stages and the runs that made them, one each, as `Store.publish` and `save` write them but without waiting for the disk."""
    teacher = model_record("teacher", fingerprint=fingerprint({"kind": "teacher"}), weights_sha256="t" * 64)
    for number in numbers:
        key = fingerprint(identity_of(number))
        when = datetime.fromtimestamp(START + 60 * number, UTC).isoformat(timespec="seconds")
        more = {"teachers": ("teacher",), "teacher_fingerprints": (teacher.fingerprint,)}
        model = model_record("small", fingerprint=key, weights_sha256=fingerprint({"weights": number}), **more)
        _publish(home, model, number)
        folder = home.runs / f"simulated-{number:05d}"
        folder.mkdir(parents=True)
        settings = {"ladder": "simulated", "status": "done", "started": when, "finished": when, "settings_hash": f"{number:064d}"}
        record = run_record(folder.name, teacher, model, folder=str(folder), planned=("small",), **settings)
        (folder / "record.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")


def _publish(home: Home, model: StageRecord, number: int) -> None:
    folder = home.store / "stage" / f"small-{model.fingerprint[:SHOWN]}"
    folder.mkdir(parents=True)
    record = folder / "record.json"
    record.write_text(model.model_dump_json(), encoding="utf-8")
    files = {"record.json": {"bytes": record.stat().st_size, "sha256": file_sha256(record)}}
    made = {"run": f"simulated-{number:05d}", "ladder": "simulated"}
    manifest = {"fingerprint": model.fingerprint, "identity": identity_of(number), "name": "small", **made, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.utime(folder, (START, START))


def stores(base: Path, sizes: Sequence[int]) -> dict[str, list[Point]]:
    """Operations beside n results and n runs, for rising `sizes`."""
    write_text(base)
    home = Home(base / "home")
    store, curves, done = Store(home), defaultdict[str, list[Point]](list), 0
    make_plan(ladder_of(PLANNED), base, home)
    for n in sizes:
        add_results(home, range(done, n))
        new, done = done, n
        some = [(new + i * (n - new) // CALLS) for i in range(CALLS)]
        marks = [fingerprint(identity_of(number)) for number in some]
        curves["runs: list, those since the last size new"].append(measure(n, [lambda: list_runs(home)]))
        curves["store: peek at a result"].append(measure(n, [lambda mark=mark: store.peek("stage", mark) for mark in marks]))
        curves["store: find and verify it"].append(measure(n, [lambda mark=mark: store.find("stage", mark) for mark in marks]))
        extra = [{"kind": "stage", "extra": n + i} for i in range(3)]
        curves["store: publish another"].append(measure(n, [lambda one=one: _add(store, one) for one in extra]))
        curves["store: latest of a name (plan)"].append(measure(n, [lambda: store.latest("stage", "small", "simulated")]))
        curves[f"plan of {PLANNED} stages beside them"].append(measure(n, [lambda: make_plan(ladder_of(PLANNED), base, home)]))
        curves["runs: list again (index)"].append(measure(n, [lambda: list_runs(home)]))
        curves["runs: the text of `ladder runs`"].append(measure(n, [lambda: _text(list_runs(home))]))
        runs = [f"simulated-{number:05d}" for number in some]
        curves["runs: `ladder show` of one"].append(measure(n, [lambda run=runs[0]: load_run(home, run)]))
        curves["runs: a new name"].append(measure(n, [lambda: new_name(home, "simulated")]))
        curves["clean --dry-run, all kept"].append(measure(n, [lambda: _cleaned(home, 10 * 365 * DAY)]))
        curves["clean --dry-run, none kept"].append(measure(n, [lambda: _cleaned(home, DAY)]))
    return curves


def _cleaned(home: Home, older_than: float) -> None:
    """Look for what could go, as a process of its own does: without the few thousand records that this one has read before."""
    run_registry._parsed.cache_clear()
    clean(home, older_than, dry_run=True)


def _add(store: Store, identity: dict[str, object]) -> None:
    store.publish(
        "stage",
        "extra",
        identity,
        fingerprint(identity),
        {"run": "extra", "ladder": "other"},
        lambda folder: (folder / "record.json").write_text("{}", encoding="utf-8"),
    )


def _text(records: Sequence[ShortRun]) -> str:
    return runs_text([run_row(record) for record in records], 120)
