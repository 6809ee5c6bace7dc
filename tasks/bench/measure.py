"""Measure the latency, throughput and memory of models, with torch.

`tasks.bench.bench` finds earlier measurements without torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from conf.errors import LadderError
from conf.schema.ladder import Ladder
from models.architectures.checkpoint import load_model
from models.base.device import resolve_device
from models.base.files import weight_files
from models.speed.latency import DTYPES, RequestShape, RequestTimes, check_length, measure_rounds, sequence_tokens, threads_of
from models.speed.matmul import matrix_product_peak
from models.speed.roofline import Overhead, bandwidth, bytes_of, overhead, roofline_seconds
from tasks.records.bench import BenchMachine, Case, Limit, Loading, ModelBench, Spread
from tasks.records.format import estimate
from tasks.records.run import StageRecord
from tasks.runtime.environment import processor
from tasks.runtime.logs import log
from tasks.runtime.progress import LINE_SECONDS

ROOT = Path(__file__).parents[2]
START_SECONDS = 600.0  # a start that takes longer has hung


def measure_shortly(record: StageRecord, ladder: Ladder) -> ModelBench:
    """One model by itself, within `bench.stage_seconds`, without the roofline and without a start in a process of its own."""
    with _circumstances(ladder) as threads:
        return _measure([record], ladder, threads, ladder.bench.stage_seconds)[0]


def measure_in_turn(records: Sequence[StageRecord], ladder: Ladder) -> list[ModelBench]:
    """Models in turn, each round one request of each, within `bench.stage_seconds` for each, without roofline and start."""
    with _circumstances(ladder) as threads:
        return _measure(records, ladder, threads, ladder.bench.stage_seconds * len(records))


def measure_run(records: Sequence[StageRecord], ladder: Ladder) -> tuple[ModelBench, ...]:
    """All models of a run in turn, with their roofline; then each one's start and memory in a process of its own, if wanted.

    Raises:
        UserError: A request is longer than a model has positions for.
        LadderError: A model did not start in a process of its own.
    """
    with _circumstances(ladder) as threads:
        measured = _measure(records, ladder, threads, None)
        if not ladder.bench.start:
            return tuple(measured)
        starts = []
        for record in records:
            log.info("bench: %s in a process of its own", record.name)
            starts.append(_start(record, ladder, threads))
    return tuple(bench.model_copy(update={"loading": start}) for bench, start in zip(measured, starts, strict=True))


def _circumstances(ladder: Ladder) -> AbstractContextManager[int]:
    """The threads of the measurement, reset afterwards."""
    return threads_of(ladder.bench.threads or ladder.compute.threads)


def _measure(records: Sequence[StageRecord], ladder: Ladder, threads: int, most_seconds: float | None) -> list[ModelBench]:
    bench, device = ladder.bench, resolve_device(ladder.compute.device)
    asked = RequestShape(bench.prompt_tokens, bench.new_tokens)
    models = {r.name: load_model(Path(r.folder), ladder.workload, dtype=DTYPES[bench.dtype]).to(device).eval() for r in records}
    for name, model in models.items():
        check_length(model, name, ladder.workload, asked)
    rounds, sizes = bench.repeats, bench.batch_sizes
    on_round = _progress(bench.warmup + rounds)
    times = measure_rounds(models, ladder.workload, sizes, asked, rounds, bench.warmup, most_seconds=most_seconds, on_round=on_round)
    machine = BenchMachine(processor=_name_of(device), device=device, threads=threads, dtype=bench.dtype, torch=version("torch"))
    whole = most_seconds is None
    found = [_bench(record, models[record.name], times[record.name], ladder, asked, machine, tuple(models)) for record in records]
    return _with_limits(found, models, ladder, asked) if whole else found


def _bench(
    record: StageRecord,
    model: nn.Module,
    times: dict[int, RequestTimes],
    ladder: Ladder,
    asked: RequestShape,
    machine: BenchMachine,
    beside: tuple[str, ...],
) -> ModelBench:
    return ModelBench(
        name=record.name,
        weights_sha256=record.weights_sha256,
        parameters=record.parameters,
        file_bytes=sum(path.stat().st_size for path in weight_files(Path(record.folder))),
        tokens=sequence_tokens(model, ladder.workload, asked.tokens),
        new_tokens=asked.new_tokens if ladder.workload == "causal-lm" else 0,
        rounds=len(next(iter(times.values())).whole),
        beside=beside,
        cases=tuple(case_of(size, each) for size, each in times.items()),
        machine=machine,
    )


def case_of(batch_size: int, times: RequestTimes) -> Case:
    """Percentiles and throughput of measured times."""
    mean = float(np.mean(times.whole))
    decode = spread(times.decode)
    return Case(
        batch_size=batch_size,
        whole=cast(Spread, spread(times.whole)),
        prefill=spread(times.prefill),
        decode=decode,
        requests_per_second=batch_size / mean,
        tokens_per_second=batch_size / decode.mean if decode else None,
    )


def spread(seconds: Sequence[float]) -> Spread | None:
    """Median, 95th and 99th percentile (linear interpolation) and mean; None of nothing."""
    if not seconds:
        return None
    p50, p95, p99 = np.percentile(seconds, (50, 95, 99))
    return Spread(p50=float(p50), p95=float(p95), p99=float(p99), mean=float(np.mean(seconds)), count=len(seconds))


def _with_limits(found: list[ModelBench], models: dict[str, nn.Module], ladder: Ladder, asked: RequestShape) -> list[ModelBench]:
    """Add the roofline: the machine's constants measured now, right after the models."""
    device, dtype = torch.device(found[0].machine.device), DTYPES[ladder.bench.dtype]
    flops = matrix_product_peak(dtype=dtype, device=device.type)
    overheads: dict[str, Overhead] = {}  # by architecture, so that no two models of one differ by the noise of this measurement
    lined = []
    for bench in found:
        model = models[bench.name]
        kind = type(model).__name__
        if kind not in overheads:
            overheads[kind] = overhead(model, ladder.workload)
        fixed = overheads[kind]
        speed = bandwidth(bytes_of(model).weights, dtype, device)
        lines = [(size, roofline_seconds(model, ladder.workload, size, asked, fixed, speed, flops)) for size in ladder.bench.batch_sizes]
        machine = bench.machine.model_copy(update={"flops": flops, "layer_seconds": fixed.layer, "head_seconds": fixed.head})
        more = {"bandwidth": speed, "machine": machine}
        roof = tuple(Limit(batch_size=size, prefill=prefill, decode=decode) for size, (prefill, decode) in lines)
        lined.append(bench.model_copy(update={**more, "limits": roof}))
    return lined


def _start(record: StageRecord, ladder: Ladder, threads: int) -> Loading:
    bench, device = ladder.bench, resolve_device(ladder.compute.device)
    words = (record.folder, ladder.workload, bench.dtype, device, threads, max(bench.batch_sizes), bench.prompt_tokens, bench.new_tokens)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "models.speed.startup_probe", *map(str, words)],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=START_SECONDS,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LadderError(f"{record.name} did not start in a process of its own within {START_SECONDS:.0f} s") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LadderError(f"{record.name} did not start in a process of its own: {last}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Loading(**figures)


def _progress(rounds: int) -> Callable[[int], None]:
    """Says every few seconds how far the rounds are."""
    began = last = time.monotonic()

    def on_round(done: int) -> None:
        nonlocal last
        moment = time.monotonic()
        if moment - last >= LINE_SECONDS:
            last = moment
            log.info("bench: round %d/%d, %s left", done, rounds, estimate((rounds - done) * (moment - began) / done))

    return on_round


def _name_of(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else processor()
