"""Section of latency, throughput and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tasks.bench.scaling import Part, answer, cells, headline, parts, unit
from tasks.records.bench import ModelBench
from tasks.records.format import NONE, mebibytes, milliseconds
from tasks.records.run import RunRecord
from tasks.records.speeds import model_benches, read_bench
from tasks.report.plots.speed import speed_svg


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The measurements of `ladder bench`, or else those after each stage."""
    models = model_benches(record)
    if not models:
        return None
    found = parts(models, record.teacher.weights_sha256 if record.teacher else None)
    main = headline(found)
    shown = [part for part in (main, _largest(found)) if part is not None]
    plots = [(layout, Markup(svg)) for layout in ("wide", "narrow") if (svg := speed_svg(shown, layout))]
    return {
        "whole": read_bench(record) is not None,
        "machine": _machine(models[0]),
        "rounds": models[0].rounds,
        "tokens": models[0].tokens,
        "new_tokens": models[0].new_tokens,
        "answer": answer(main) if main and len(main.rows) > 1 else None,
        "plots": plots,
        "parts": [{"title": part.title, "unit": unit(part), "rows": cells(part), "exponent": _exponent(part)} for part in found],
        "memory": [_memory(model) for model in models],
    }


def _largest(found: list[Part]) -> Part | None:
    """A whole request at the largest batch size: the throughput that a served model has."""
    whole = [part for part in found if part.part == "whole"]
    return max(whole, key=lambda part: part.batch_size, default=None)


def _exponent(part: Part) -> str | None:
    fitted = part.exponent
    if fitted is None:
        return None
    ends = "" if fitted.low is None or fitted.high is None else f" ({fitted.low:.2f} to {fitted.high:.2f})"
    roof = "" if part.limit_exponent is None else f"; the roofline leaves {part.limit_exponent.value:.2f}"
    return f"Speed-up goes with size to the power of {fitted.value:.2f}{ends}{roof}."


def _memory(model: ModelBench) -> list[str]:
    start, file = model.loading, mebibytes(model.file_bytes)
    if start is None:
        return [model.name, file, NONE, NONE, NONE, NONE]
    times = [f"{start.load_seconds:.2f}", milliseconds(start.first_seconds)]
    return [model.name, file, *times, mebibytes(start.peak_bytes), mebibytes(start.peak_bytes - start.library_bytes)]


def _machine(model: ModelBench) -> str:
    machine = model.machine
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    return f"{machine.processor}, {threads}, {machine.dtype}, torch {machine.torch}"
