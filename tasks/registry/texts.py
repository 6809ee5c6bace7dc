"""Comparisons and versions as tables, for the terminal, Prefect and MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tasks.records.format import NONE, milliseconds, percent
from tasks.records.promotion import Judgement
from tasks.tracking.versions import ListedVersion

HEAD = ("version", "aliases", "quality", "MiB", "ms", "requests/s", "run", "registered")


def quality_text(metric: str | None, value: float | None) -> str:
    """A figure of quality with its unit."""
    if metric is None or value is None:
        return NONE
    return percent(value, 2) if metric == "accuracy" else f"{value:.4f} bits/byte"


def judgement_rows(champion: str | None, challenger: str, judgement: Judgement) -> list[tuple[str, str, str]]:
    """Rows of the comparison: a figure, the champion's, the challenger's."""
    rows = [("quality", quality_text(judgement.metric, judgement.champion), quality_text(judgement.metric, judgement.challenger))]
    for name, figures, text in (
        ("time of a request", judgement.latency_ms, lambda ms: f"{milliseconds(ms / 1000)} ms"),
        ("size of the weights", judgement.mib, lambda mib: f"{mib:.2f} MiB"),
    ):
        cells = [text(figures[key]) if key in figures else NONE for key in ("champion", "challenger")]
        rows.append((name, cells[0], cells[1]))
    return [("", champion or "no champion", challenger), *rows]


def judgement_lines(judgement: Judgement) -> list[str]:
    """The difference with its interval, the data, and what was found, one sentence each."""
    lines = []
    if judgement.difference is not None and judgement.low is not None and judgement.high is not None:
        gain, low, high = (_signed(judgement.metric, value) for value in (judgement.difference, judgement.low, judgement.high))
        allowed = quality_text(judgement.metric, judgement.delta)
        lines.append(f"gain {gain}, between {low} and {high} with 95 % confidence; at most {allowed} may be lost")
    lines.append(
        f"judged on {judgement.data}: {judgement.rows:,} {'tokens' if judgement.metric != 'accuracy' else 'examples'} "
        f"of {judgement.documents:,} documents"
    )
    lines += [judgement.seen] if judgement.seen else []
    lines += [f"its gate: {judgement.gate}"] if judgement.gate else []
    return [*lines, *judgement.notes, *(f"against it: {reason}" for reason in judgement.reasons)]


def _signed(metric: str, value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{quality_text(metric, abs(value))}"


def judgement_markdown(challenger: str, champion: str | None, judgement: Judgement, outcome: str) -> str:
    """The comparison as a page of Prefect."""
    head, *rows = judgement_rows(champion, challenger, judgement)
    table = [f"| {' | '.join(head)} |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([f"# {challenger}: {outcome}", "", *table, "", *(f"- {line}" for line in judgement_lines(judgement))])


def version_json(entry: ListedVersion) -> dict[str, Any]:
    """A version as scripts read it; these names do not change."""
    tags = entry.tags
    return {
        "name": entry.name,
        "version": entry.version,
        "aliases": list(entry.aliases),
        "run": tags.get("ladder.run"),
        "stage": tags.get("ladder.stage"),
        "metric": tags.get("ladder.metric"),
        "quality": _number(tags.get("ladder.quality")),
        "parameters": int(tags["ladder.parameters"]) if "ladder.parameters" in tags else None,
        "mib": _number(tags.get("ladder.mib")),
        "latency_ms": _number(tags.get("ladder.latency_ms")),
        "requests_per_second": _number(tags.get("ladder.requests_per_second")),
        "gate": tags.get("ladder.gate"),
        "fingerprint": tags.get("ladder.fingerprint"),
        "weights_sha256": tags.get("ladder.weights_sha256"),
        "registered": datetime.fromtimestamp(entry.created, UTC).isoformat(timespec="seconds"),
        "promotion": tags.get("ladder.promotion"),
        "judgement": tags.get("ladder.judgement"),
        "rolled_back": tags.get("ladder.rolled_back"),
    }


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def version_cells(found: dict[str, Any]) -> Sequence[str]:
    """A version as a line of a table; see `HEAD`."""
    return (
        f"{found['name']}/{found['version']}",
        ", ".join(found["aliases"]) or NONE,
        quality_text(found["metric"], found["quality"]),
        NONE if found["mib"] is None else f"{found['mib']:.2f}",
        NONE if found["latency_ms"] is None else milliseconds(found["latency_ms"] / 1000),
        NONE if found["requests_per_second"] is None else f"{found['requests_per_second']:,.0f}",
        NONE if found["run"] is None else f"{found['run']}:{found['stage']}",
        found["registered"][:16].replace("T", " "),
    )
