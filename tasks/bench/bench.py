"""Find or measure the latency, throughput and memory of a run's models.

Measured shortly after each stage, in full by `ladder bench`; never twice.
A measurement is named by the model's weights, the settings and the machine. Finding one imports no torch.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conf.atomic import write_atomic
from conf.errors import UserError
from conf.home import disk_errors, home
from conf.schema.ladder import Ladder
from conf.schema.workloads import UNTIMED, refuse_unserved
from models.base.device import hardware, resolve_device
from tasks.records.bench import ModelBench, RunBench
from tasks.records.format import milliseconds, rate
from tasks.records.run import RunRecord, StageRecord
from tasks.records.speeds import FILE, read_bench
from tasks.runtime.environment import processor
from tasks.runtime.logs import log
from tasks.runtime.runs.at_hand import at_hand
from tasks.runtime.runs.run_registry import Context, now, store_of
from tasks.runtime.training_slots import BusyError, training_slot
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Store

KIND = "bench"  # part of the store
FORMAT = 2  # of the measurement: another number, and all is measured anew


def bench_identity(ladder: Ladder, weights: str | list[str]) -> dict[str, Any]:
    """Identity of a measurement: weights, settings of the requests, machine."""
    bench, device = ladder.bench, resolve_device(ladder.compute.device)
    unused = {"after_stage", *(("prompt_tokens",) if ladder.workload == "image-classification" else ())}
    unused |= {"new_tokens"} if ladder.workload != "causal-lm" else set()
    settings = bench.model_dump(mode="json", exclude={*unused, *(("start",) if isinstance(weights, str) else ("stage_seconds",))})
    threads = bench.threads or ladder.compute.threads or os.environ.get("OMP_NUM_THREADS")
    gpus = list(hardware().gpus) if device == "cuda" else []
    machine = {"processor": processor(), "cores": os.cpu_count(), "device": device, "gpus": gpus, "torch": version("torch")}
    return {"kind": KIND, "format": FORMAT, "weights": weights, "settings": {**settings, "threads": threads}, "machine": machine}


def bench_model(record: StageRecord, ladder: Ladder, context: Context) -> StageRecord:
    """Measure a model shortly, by itself, unless `bench.after_stage` is off; an unsupported model is skipped with a warning."""
    if not ladder.bench.after_stage or record.identity.get("kind") == "answers":  # which nothing computes here
        return record
    if ladder.workload in UNTIMED:
        log.info("%s: its speed is not measured, for workload %s", record.name, ladder.workload)
        return record

    def compute() -> Write:
        from tasks.bench.measure import measure_shortly  # torch is imported where something is computed

        # A training beside it would be measured too; but no run waits hours for another's training, to measure for a second.
        with training_slot(ladder.compute.at_once, context.run, wait=False):
            result = measure_shortly(record, ladder)
        return lambda folder: _write(folder, result)

    entry = Entry(KIND, record.name, bench_identity(ladder, record.weights_sha256), _read)
    try:
        found = find_or_compute(store_of(context), entry, context.made, compute, fresh=context.is_fresh(record.name))
    except UserError as error:
        log.warning("%s: its speed was not measured: %s", record.name, error)
        return record
    except BusyError as error:
        log.info("%s: its speed was not measured now, as %s; `ladder bench` does it", record.name, error)
        return record
    bench = _read(found.folder).model_copy(update={"name": record.name})
    measured = record.model_copy(update={"bench": bench})
    log.info("%s: %s", record.name, summary(bench))
    return measured


def summary(bench: ModelBench) -> str:
    """The median at the smallest and the throughput at the largest batch size, in one line."""
    first, last = bench.cases[0], max(bench.cases, key=lambda case: case.batch_size)
    what = f"{milliseconds(first.whole.p50)} ms for {first.batch_size} at once (median of {first.whole.count})"
    return f"{what}, {rate(last.requests_per_second)} requests/s at {last.batch_size}"


def bench_run(record: RunRecord, ladder: Ladder, fresh: bool = False) -> RunBench:
    """All finished models of a run, measured in turn, or as they were measured before under the same circumstances.

    Args:
        record: The run; of stopped or interrupted ones, the finished models.
        ladder: Its settings, with the caller's changes to `bench`.
        fresh: Measure again in any case.

    Raises:
        UserError: The run has no finished model, or a request does not fit a model.
    """
    models = record.models
    if ladder.workload in UNTIMED:
        refuse_unserved(ladder.workload, "RUN", record.run, "a measured run")
    if not models:
        raise UserError.about("RUN", record.run, "a run with a finished model", "This one ended before its teacher was ready.")
    store = Store(home(), log.warning)
    models = [at_hand(store, model) or model for model in models]
    missing = [model.name for model in models if not (Path(model.folder) / "config.json").is_file()]
    if missing:
        raise UserError.about("RUN", record.run, f"a run whose models are in the store; {missing[0]} is not", "Run the ladder again.")
    identity = bench_identity(ladder, [model.weights_sha256 for model in models])
    key = fingerprint(identity)
    earlier = read_bench(record)
    if earlier and earlier.mark == key and not fresh:
        return earlier
    from tasks.bench.measure import measure_run

    with training_slot(ladder.compute.at_once, record.run):
        measured = measure_run(models, ladder)
    result = RunBench(mark=key, measured=now(), workload=ladder.workload, models=measured)
    folder = Path(record.folder)
    with disk_errors(home()):
        write_atomic(folder / FILE, result.model_dump_json(indent=1))
    return result


def _read(folder: Path) -> ModelBench:
    return ModelBench.model_validate_json((folder / FILE).read_bytes())


def _write(folder: Path, result: ModelBench) -> None:
    (folder / FILE).write_text(result.model_dump_json(indent=1), encoding="utf-8")
