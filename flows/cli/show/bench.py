"""Text of `ladder bench`, within 80 columns."""

from __future__ import annotations

from typing import Any

from tasks.bench.scaling import Part, answer, cells, headline, parts, unit
from tasks.records.bench import RunBench
from tasks.records.format import NONE, mebibytes, milliseconds, seconds
from tasks.report.terminal import table_of, text_of


def bench_text(result: RunBench, root: str | None = None) -> str:
    """Latency by part and batch size, start and memory, and how speed scales with size."""
    measured, machine, first = parts(result.models, root), result.models[0].machine, result.models[0]
    what = f"{first.tokens} prompt tokens, {first.new_tokens} new ones" if first.new_tokens else f"{first.tokens} positions a request"
    lines: list[Any] = [
        f"{machine.processor}, {machine.device}, {machine.threads} thread{'s' * (machine.threads != 1)}, {machine.dtype}, "
        f"torch {machine.torch}; {what}; {first.rounds} rounds, the models in turn"
    ]
    for part in measured:
        lines += ["", part.title.capitalize(), table_of(*_speed(part))]
    lines += ["", "Start in a process of its own, and memory", table_of(*_memory(result))]
    main = headline(measured)
    if main:
        lines += ["", answer(main)]
        lines += ["Exponents, measured (roofline): " + "; ".join(f"{part.title} {_exponents(part)}" for part in measured)]
    return text_of(*lines)


def _speed(part: Part) -> tuple[list[str], list[list[str]]]:
    return ["model", "params", "p50 ms", "p95 ms", "p99 ms", "roofline", "speed-up", unit(part)], cells(part)


def _memory(result: RunBench) -> tuple[list[str], list[list[str]]]:
    headers, rows = ["model", "file MiB", "import s", "load s", "first ms", "peak MiB", "own MiB"], []
    for model in result.models:
        start = model.loading
        own = [NONE] * 5
        if start:
            own = [seconds(start.import_seconds), f"{start.load_seconds:.2f}", milliseconds(start.first_seconds)]
            own += [mebibytes(start.peak_bytes), mebibytes(start.peak_bytes - start.library_bytes)]
        rows.append([model.name, mebibytes(model.file_bytes), *own])
    return headers, rows


def _exponents(part: Part) -> str:
    fitted, roof = part.exponent, part.limit_exponent
    return f"{NONE if fitted is None else f'{fitted.value:.2f}'} ({NONE if roof is None else f'{roof.value:.2f}'})"
