"""Rows of the table of exports, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.records.export import ExportRecord, FormatFigures
from tasks.records.format import NONE, mebibytes, milliseconds, percent

HEADERS = ("format", "MiB", "KL", "largest", "agreement", "quality", "student's", "p50 ms", "p95 ms", "peak MiB", "verdict")
STUDENT = "torch"  # the row of the student itself, as its exports are compared with it


def rows(exports: Sequence[ExportRecord], stage: str) -> list[list[str]]:
    """A row of `HEADERS` for the student itself, measured beside the newest export, and one for each of its exports."""
    own = [each for each in exports if each.stage == stage]
    if not own:
        return []
    newest = max(own, key=lambda each: each.made)
    lines = [
        [STUDENT, mebibytes(newest.student.bytes), NONE, NONE, NONE, _quality(newest.student.quality), NONE, *_cost(newest.student), "-"]
    ]
    for each in own:
        difference = each.difference
        verdict = "refused" if each.refused else "within tolerance"
        compared = [f"{difference.kl:.1e}", f"{difference.largest:.1e}", percent(difference.agreement, 2)]
        quality = [_quality(each.export.quality), _quality(difference.quality)]
        lines.append([each.name, mebibytes(each.export.bytes), *compared, *quality, *_cost(each.export), verdict])
    return lines


def _quality(found: Mapping[str, float]) -> str:
    bits = found.get("bits_per_byte")
    if bits is None:
        return percent(found["accuracy"], 2) if "accuracy" in found else NONE
    return f"{bits:.4f}"


def _cost(found: FormatFigures) -> list[str]:
    return [milliseconds(found.request.p50), milliseconds(found.request.p95), mebibytes(found.peak_bytes)]


def stages_of(exports: Sequence[ExportRecord]) -> list[str]:
    """Names of the students with exports, in the order in which these were made."""
    return list(dict.fromkeys(each.stage for each in exports))
