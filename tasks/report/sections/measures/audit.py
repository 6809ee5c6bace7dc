"""Section of the audits: each student against its teachers, and inherited errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from markupsafe import Markup

from conf.schema.workloads import answers_in_ids
from tasks.records import format as fmt
from tasks.records.audit import AuditFigure, AuditGroup, AuditRecord
from tasks.records.run import RunRecord, StageRecord

FEW = "too few"
SHARES = ("accuracy", "agreement", "knowledge_loss", "knowledge_gain", "inheritance")
OWN = {"accuracy": "accuracy", "nll": "nll, nats", "brier": "Brier score", "ece": "calibration error (ECE)"}
NAMES = {
    "agreement": "agreement",
    "kappa": "Cohen's kappa",
    "kl": "KL to the teacher, nats",
    "knowledge_loss": "wrong where the teacher is right",
    "knowledge_gain": "right where the teacher is wrong",
    "calibration": "calibration to the teacher",
    "inheritance": "same error where the teacher is wrong",
    "gap_closed": "gap closed from the control (nll)",
}
WHO = (("root", "the root's"), ("assistant", "an assistant's"), ("new", "its own"))


class Line(NamedTuple):
    """A figure against both teachers."""

    name: str
    parent: str
    root: str


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The template's values; None where no student was audited."""
    students = [(stage, stage.audit) for stage in record.stages if stage.audit is not None]
    if not students:
        return None
    from tasks.report.plots.reliability import reliability_svg

    errors = not answers_in_ids(record.workload)
    plots = [(layout, Markup(svg)) for layout in ("wide", "narrow") if (svg := reliability_svg(record, layout))]
    return {
        # Beside a teacher with another tokenizer an audit has a part of the rows, and the metric all.
        "intervals": {}
        if record.teacher and record.teacher.compared
        else {stage.name: ends for stage, audit in students if (ends := _interval(stage, audit, errors))},
        "students": [_student(stage, audit, errors) for stage, audit in students],
        "plots": plots,
        "unit": _unit(errors),
        "loss": _loss(errors),
    }


def _interval(stage: StageRecord, audit: AuditRecord, errors: bool) -> tuple[float, float] | None:
    """Ends of the interval of the metric that judges the models: accuracy, or bits per byte, which are nll in other units."""
    figure = audit.figures.get("accuracy" if errors else "nll")
    if figure is None or figure.low is None or figure.high is None:
        return None
    scale = 1.0 if errors else stage.metrics["bits_per_byte"] / stage.metrics["nll"]
    return scale * figure.low, scale * figure.high


def _unit(errors: bool) -> str:
    return "examples" if errors else "tokens"


def _loss(errors: bool) -> str:
    return "wrong" if errors else "nll, nats"


def _student(stage: StageRecord, audit: AuditRecord, errors: bool) -> dict[str, Any]:
    same = audit.parent == audit.root
    return {
        "name": stage.name,
        "parent": audit.parent,
        "root": audit.root,
        "same": same,
        "verdict": verdict(audit),
        "own": [(OWN[name], shown(audit.figures.get(name), name)) for name in OWN],
        "lines": lines(audit),
        "provenance": _provenance(audit),
        "groups": [_group(group, same, errors, audit.control is not None) for group in audit.groups],
        "few": audit.few,
        "judged": audit.judged,
        "worst": audit.worst,
        "controlled": audit.control is not None,
        "seconds": fmt.seconds(audit.seconds),
        "rows": audit.rows,
        "documents": audit.documents,
    }


def verdict(audit: AuditRecord) -> str:
    """A sentence on the flagged slices, and on those that could not be judged."""
    text = f"Nothing is flagged among {audit.judged} judged." if not audit.flagged else f"Flagged: {'; '.join(audit.flagged)}."
    if not audit.judged:
        text = "Nothing was judged: every slice has too few examples."
    elif audit.few:
        text += f" Too few examples in {len(audit.few)} more, which is no pass."
    if audit.control is None:
        text += " Without an untaught control (audit.control) no error can be called inherited."
    return text


def shown(figure: AuditFigure | None, name: str = "") -> str:
    """A figure with its interval: `0.31 (0.22 to 0.40)`; `too few (11)`."""
    if figure is None:
        return fmt.NONE
    if figure.value is None:
        return f"{FEW} ({figure.rows:,})" if figure.low is None and name not in ("kappa", "gap_closed") else fmt.NONE
    scale, places = (100.0, 1) if name.startswith((*SHARES, "confident", "share", "provenance")) else (1.0, 3)
    places, unit = 1 if name == "times" else places, " %" if scale == 100 else ""
    text = f"{scale * figure.value:.{places}f}{unit}"
    if figure.low is None or figure.high is None:
        return text
    low, high = _possible(name, figure.low, figure.high)
    return f"{text} ({scale * low:.{places}f} to {scale * high:.{places}f})"


def _possible(name: str, low: float, high: float) -> tuple[float, float]:
    """An interval cut at what the figure can be: shares and errors from 0 to 1, losses from 0; differences are not cut."""
    if name.endswith("_excess"):
        return low, high
    if name.startswith((*SHARES, "confident", "provenance", "ece", "brier", "calibration")):
        return max(low, 0.0), min(high, 1.0)
    return (max(low, 0.0), high) if name in ("nll", "kl", "times") else (low, high)


def lines(audit: AuditRecord) -> list[Line]:
    """The figures against both teachers, in a fixed order."""
    bare = [name.removeprefix("parent.") for name in audit.figures if name.startswith("parent.") and name != "parent.amplification"]
    order = {name: place for place, name in enumerate(NAMES)}
    bare.sort(key=lambda name: (order.get(name.removesuffix("_excess"), len(order)), name))
    return [Line(_named(name), *(shown(audit.figures.get(f"{who}.{name}"), name) for who in ("parent", "root"))) for name in bare]


def _named(name: str) -> str:
    if name.endswith("_excess"):
        return f"{_named(name.removesuffix('_excess'))}, beyond the control's"
    if name.startswith("confident_inheritance_"):
        return f"{NAMES['inheritance']}, both {fmt.percent(float(name.rpartition('_')[2]), 0)} sure"
    if name.startswith("drop_"):
        return f"drop in task {name.removeprefix('drop_')}, main figure"
    return NAMES.get(name, name)


def _provenance(audit: AuditRecord) -> dict[str, Any] | None:
    found = {who: audit.figures[f"provenance.{who}"] for who, _ in WHO if f"provenance.{who}" in audit.figures}
    if not found:
        return None
    few = any(figure.value is None for figure in found.values())
    shares = [(text, 100 * (found[who].value or 0.0), shown(found[who], "provenance")) for who, text in WHO]
    return {"few": few, "rows": next(iter(found.values())).rows, "shares": shares}


def _group(group: AuditGroup, same: bool, errors: bool, controlled: bool) -> dict[str, Any]:
    def cell(name: str, kind: str = "") -> str:
        return shown(group.figures.get(name), kind)

    def times(teacher: str) -> str:
        """The student's gap over the teacher's; a dash where the teacher has none, and the gate's figure is over `audit.smallest`."""
        gap, theirs, ratio = (group.figures.get(name) for name in ("gap", f"{teacher}.gap", f"{teacher}.amplification"))
        if not (gap and theirs and ratio and gap.value is not None and theirs.value and ratio.value is not None):
            return fmt.NONE
        return shown(ratio, "times") if math.isclose(ratio.value * theirs.value, gap.value, rel_tol=1e-6) else fmt.NONE

    loss = "share" if errors else ""
    return {
        "name": group.name if group.kind == "slice" else f"tokens: {group.name}",
        "rows": group.rows,
        "few": group.few,
        "student": cell("student", loss),
        "parent": cell("parent", loss),
        "gap": cell("gap", loss),
        "amplification": times("parent"),
        "of_root": None if same else times("root"),
        "inherited": cell("parent.inherited", "share") if controlled else None,
        "worse": cell("worse", "share") if controlled else None,
        "flags": group.flags,
    }
