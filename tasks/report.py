"""The report of a run: one HTML file that needs nothing but itself, written again whenever the run's record changes.

Every figure comes from the record or from the curves in the models' folders; the template only lays them out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from conf.errors import StoreError
from conf.secrets import without_user
from tasks import plot, sections, tables
from tasks.records import RunRecord, StageRecord

TEMPLATES = Path(__file__).with_name("templates")
FEW = {tables.BITS.key: 1000, tables.ACCURACY.key: 30}  # tokens or examples below which a slice's figure is mostly chance
SLICES_SHOWN = 5  # worst and best ones, above the folded whole
ROWS = {tables.BITS.key: "tokens", tables.ACCURACY.key: "examples"}


class SliceRow(NamedTuple):
    """One slice of the held-out data, judged for the last student and the root teacher."""

    name: str
    size: int
    student: str
    root: str
    retention: float | None
    few: bool


def write_report(record: RunRecord, settings_yaml: str, folder: Path) -> Path:
    """Write `folder/report.html`, whole or not at all, over an older one.

    Args:
        record: The run, finished or not; whatever it holds is shown.
        settings_yaml: The resolved settings, shown as they are.
        folder: The run's folder; made when missing.

    Returns:
        The file's path.

    Raises:
        StoreError: The file could not be written.
    """
    html = render(record, settings_yaml)
    path = folder / "report.html"
    aside = folder / f".report.html.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            file.write(html)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StoreError(
            f"The report {path} could not be written: {error.strerror or error}. Free some space or check its permissions."
        ) from error
    return path


def render(record: RunRecord, settings_yaml: str) -> str:
    """The report's HTML."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "human": tables.human,
        "percent": tables.percent,
        "duration": duration,
        "operations": operations,
        "moment": moment,
        "no_password": without_user,
        "short": lambda text: text[:12],
        "numeric": tables.is_numeric,
    }
    headers, rows = tables.rows(record)
    curves, damaged = _curves(record)
    order = [model.name for model in tables.finished(record)]
    slices = slice_rows(record)
    found = sections.gather(record)
    verdict = next((str(section["verdict"]) for section in found.values() if "verdict" in section), None)
    return environment.get_template("report.html.j2").render(
        record=record,
        settings_yaml=settings_yaml,
        quality=tables.quality_of(record),
        models=tables.finished(record),
        headers=headers,
        rows=rows,
        tiles=tiles(record),
        verdicts=verdicts(record),
        judged=_judged(record),
        quality_plots=[(layout, Markup(svg)) for layout in ("wide", "narrow") if (svg := plot.quality_svg(record, layout))],
        curve_plots=[(layout, Markup(svg)) for layout in ("wide", "narrow") if (svg := plot.curves_svg(curves, order, layout))],
        without_curves=[name for name in order if name not in curves and name not in damaged],
        damaged=damaged,
        starts=starts(record, curves),
        slices=slices,
        worst=slices[:SLICES_SHOWN],
        best=slices[-SLICES_SHOWN:],
        fold=len(slices) > 2 * SLICES_SHOWN,
        few=FEW[tables.quality_of(record).key],
        unit=ROWS[tables.quality_of(record).key],
        costs=costs(record),
        packages=packages(record.environment),
        facts=facts(record.environment),
        machine=machine(record.environment),
        sections=found,
        verdict=verdict,
    )


def starts(record: RunRecord, curves: dict[str, plot.Curve]) -> list[dict[str, str]]:
    """Of each student: how it came by its first weights, and its validation loss before and after training, on the same examples."""
    found = []
    for stage in record.stages:
        curve = curves.get(stage.name)
        if "nll" in stage.initial and curve is not None and len(curve.valid):
            how = stage.identity.get("student", {}).get("initialisation", "-")
            found.append({"model": stage.name, "how": how, "before": f"{stage.initial['nll']:.3f}", "after": f"{curve.valid[-1, 1]:.3f}"})
    return found


def verdicts(record: RunRecord) -> list[str]:
    """A plain sentence for each finished model on what it keeps, and one for those that were not reached."""
    quality = tables.quality_of(record)
    root = record.teacher
    said = []
    if root:
        said.append(f"The root {root.name} has {tables.human(root.parameters)} parameters and scores {_scored(quality, root)}.")
    said += [_verdict(stage, root, quality) for stage in record.stages]
    missing = ", ".join(tables.not_run(record))
    reason = {"failed": "not finished, the run failed", "stopped": "not run, a gate stopped the run"}
    reason |= {
        "interrupted": "not finished, the run was interrupted",
        "cancelled": "not finished, the run was cancelled",
        "running": "not finished yet",
    }
    said += [f"{missing}: {reason.get(record.status, 'not run')}."] if missing else []
    return said


def _verdict(stage: StageRecord, root: StageRecord | None, quality: tables.Quality) -> str:
    parent = stage.teachers[0] if stage.teachers else None
    kept = []
    if stage.retention.parent is not None and parent and not (root and parent == root.name):
        kept.append(f"{tables.percent(stage.retention.parent)} of {parent}")
    if stage.retention.root is not None:
        kept.append(f"{tables.percent(stage.retention.root)} of the root")
    sentence = f"{stage.name} scores {_scored(quality, stage)}"
    if kept:
        sentence = f"{stage.name} keeps {' and '.join(kept)} ({quality.ratio})"
    if root:
        sentence += f" with {smaller(root.parameters, stage.parameters)} parameters"
    endings = {
        "passed": "its gate passed",
        "warned": "its gate warned",
        "stopped": "its gate refused it",
        "approved": "approved by a person",
    }
    ends = [sentence, *(["put in by the next gate"] if stage.inserted else []), *([endings[stage.gate]] if stage.gate else [])]
    return f"{'; '.join(ends)}."


def smaller(root: int, student: int) -> str:
    """How much smaller a student is: `9.1x fewer`."""
    ratio = root / student
    if ratio < 1:
        return f"{1 / ratio:.1f}x more"
    return "as many" if ratio < 1.05 else f"{ratio:.1f}x fewer" if ratio < 99.5 else f"{ratio:.0f}x fewer"


def _scored(quality: tables.Quality, model: StageRecord) -> str:
    score = tables.score(quality, model.metrics)
    return f"{score} bits per byte" if quality is tables.BITS else f"{score} accuracy"


def tiles(record: RunRecord) -> list[tuple[str, str]]:
    """The few figures a reader looks for first: value and what it is, of the last finished student."""
    quality, root = tables.quality_of(record), record.teacher
    shown = []
    if record.stages:
        last = record.stages[-1]
        shown = [
            (tables.human(last.parameters), f"parameters in {last.name}"),
            (tables.score(quality, last.metrics), f"{quality.unit} of {last.name}"),
        ]
        if root and last.retention.root is not None:
            shown.append((tables.percent(last.retention.root), f"of the root kept, {smaller(root.parameters, last.parameters)} parameters"))
    elif root:
        shown = [
            (tables.human(root.parameters), f"parameters in {root.name}"),
            (tables.score(quality, root.metrics), f"{quality.unit} of {root.name}"),
        ]
    return [*shown, (duration(record.seconds), "the last attempt took")] if shown and record.seconds is not None else shown


def slice_rows(record: RunRecord) -> list[SliceRow]:
    """The slices of the last student, the least retained first; those whose root was not judged come last."""
    if not record.stages:
        return []
    quality, last = tables.quality_of(record), record.stages[-1]
    root = record.teacher.slices if record.teacher else {}
    found = []
    for name, metrics in last.slices.items():
        count = int(metrics.get("count", 0))
        theirs = root.get(name, {})
        found.append(
            SliceRow(
                name=name,
                size=count,
                student=tables.score(quality, metrics),
                root=tables.score(quality, theirs),
                retention=_kept(quality, metrics, theirs),
                few=count < FEW[quality.key],
            )
        )
    return sorted(found, key=lambda row: (row.retention is None, row.retention or 0.0, row.name))


def _kept(quality: tables.Quality, student: Mapping[str, float], root: Mapping[str, float]) -> float | None:
    if quality is tables.ACCURACY:
        return student["accuracy"] / root["accuracy"] if root.get("accuracy") and "accuracy" in student else None
    return math.exp(root["nll"] - student["nll"]) if "nll" in root and "nll" in student else None


def costs(record: RunRecord) -> list[dict[str, str]]:
    """What each model cost, and last two sums: of what this run computed, and of what it reused."""

    def line(name: str, models: list[StageRecord], note: str = "", extra: float = 0.0) -> dict[str, str]:
        spent, tokens = sum(model.seconds for model in models), sum(model.tokens for model in models)
        return {
            "model": name,
            "steps": f"{sum(model.steps for model in models):,}",
            "tokens": tables.human(tokens),
            "FLOPs": operations(sum(model.flops for model in models)),
            "speed": tables.human(tokens / spent) if spent and tokens else tables.NONE,
            "time": duration(spent + extra),
            "origin": note,
        }

    done = tables.finished(record)
    lines = [line(model.name, [model], tables.origin(model)) for model in done]
    data = record.data
    if data:
        lines.insert(0, {**dict.fromkeys(("steps", "tokens", "FLOPs", "speed"), tables.NONE), "model": "data"})
        lines[0] |= {"time": duration(data.seconds), "origin": "reused" if data.reused else "computed"}
    if lines:
        for label, reused in (("computed in this run", False), ("reused", True)):
            extra = data.seconds if data and data.reused is reused else 0.0
            lines.append(line(f"Sum {label}", [model for model in done if model.reused is reused], extra=extra))
    return lines


def _judged(record: RunRecord) -> str | None:
    """How many held-out rows the models were judged by, as far as the slices tell."""
    models = tables.finished(record)
    counted = int(sum(metrics.get("count", 0) for metrics in models[-1].slices.values())) if models else 0
    return f"{counted:,} held-out {ROWS[tables.quality_of(record).key]}" if counted else None


def _curves(record: RunRecord) -> tuple[dict[str, plot.Curve], list[str]]:
    """The curves that can be read, and the names of the models whose file is damaged."""
    curves, damaged = {}, []
    for model in tables.finished(record):
        try:
            curve = plot.read_curve(Path(model.folder))
        except ValueError:
            damaged.append(model.name)
            continue
        if curve is not None:
            curves[model.name] = curve
    return curves, damaged


def duration(seconds: float) -> str:
    """Seconds for a reader: `4.2 s`, `42 s`, `3 min 12 s`, `5 h 12 min`."""
    if seconds < 99.5:
        return f"{tables.seconds(seconds)} s"
    whole = round(seconds)
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def operations(flops: float) -> str:
    """Floating-point operations with an SI prefix: `3.42 TFLOP`."""
    for size, prefix in ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if flops >= 0.9995 * size:
            return f"{flops / size:.3g} {prefix}FLOP"
    return f"{flops:,.0f} FLOP"


def moment(iso: str | None) -> str:
    """An ISO 8601 time as `2026-03-01 14:05 UTC`; a dash for none."""
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC") if iso else tables.NONE


def machine(environment: Mapping[str, Any]) -> str:
    """One line on the machine: its processor, cores, memory and GPUs, as far as they were recorded."""
    parts = [str(environment.get("processor") or environment.get("machine") or "")]
    parts += [f"{environment['cores']} cores"] if environment.get("cores") else []
    parts += [f"{environment['memory_gib']} GiB"] if environment.get("memory_gib") else []
    parts += map(str, environment.get("gpus") or ())
    return ", ".join(part for part in parts if part) or "an unrecorded machine"


def packages(environment: Mapping[str, Any]) -> dict[str, str]:
    """The packages that are installed and their versions, by name."""
    return {name: str(version) for name, version in sorted(environment.get("packages", {}).items()) if version}


def facts(environment: Mapping[str, Any]) -> dict[str, str]:
    """Everything else that the environment tells, by a name for readers."""
    told = {key.replace("_", " "): value for key, value in environment.items() if key != "packages" and value not in (None, "", [])}
    return {key: " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value) for key, value in told.items()}
