"""Section of the proof: scores and costs of the arms, and the ladder's gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tasks.proof.verdict_text import bounded, points, scored, spread, table, unit
from tasks.records.format import percent
from tasks.records.proof import ArmResult, Proof, read_proof
from tasks.records.run import RunRecord
from tasks.report.plots.kept import kept
from tasks.report.plots.quality import Control, possible
from tasks.report.plots.style import GRID, INK, MODELS, MUTED, Layout, dress, figure, svg
from tasks.report.tables import ACCURACY, BITS


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The proof of the run; None where it was none."""
    proof = read_proof(record)
    if proof is None or not proof.arms:
        return None
    headers, rows = table(proof)
    layouts: tuple[Layout, ...] = ("wide", "narrow")
    first = proof.contrasts[0].first if proof.contrasts else proof.arms[0].arm
    shown = {arm.arm: arm for arm in proof.arms}
    drawn_in_full = {stage.name for stage in record.stages}
    last = record.stages[-1].name if record.stages else None
    return {
        "verdict": proof.verdict,
        "proof": proof,
        "delta": f"{points(proof, proof.delta)} {unit(proof)}",
        "headers": headers,
        "rows": rows,
        "contrasts": [(contrast, spread(proof, contrast)) for contrast in proof.contrasts],
        "plots": [(layout, Markup(scores_svg(proof, layout))) for layout in layouts],
        "unit": "tokens" if proof.metric == "bits_per_byte" else "examples",
        "lost": [(each, percent(each.identified / each.rows)) for each in proof.identified],
        "controls": [_control(arm) for arm in proof.arms if arm.arm != first],
        "intervals": {last: span} if last in drawn_in_full and last and (span := bounded(shown[first].valid)) else {},
    }


def _control(arm: ArmResult) -> Control:
    mean = sum(each.valid for each in arm.replicates) / len(arm.replicates)
    return Control(arm.arm, arm.parameters, mean, *(bounded(arm.valid) or (None, None)))


@kept
def scores_svg(proof: Proof, layout: Layout) -> str:
    """Every replicate's score on the test split, and each arm's mean with its interval, as an `<svg>` element."""
    rows = len(proof.arms)
    drawing = figure((920, 90 + 38 * rows) if layout == "wide" else (340, 100 + 46 * rows))
    axes, scale = drawing.subplots(), 100 if proof.metric == "accuracy" else 1
    low, high = _range(proof)
    for row, arm in enumerate(reversed(proof.arms)):
        colour = MODELS[0] if arm.arm == (proof.contrasts[0].first if proof.contrasts else None) else MUTED
        scores = [scale * each.score for each in arm.replicates]
        shown = [score for score in scores if scale * low <= score <= scale * high]  # others would lie outside the axes
        axes.plot(shown, [row - 0.16] * len(shown), "o", clip_on=False, color=colour, alpha=0.5, markersize=5, markeredgewidth=0)
        if shown:
            axes.plot(sum(scores) / len(scores), row + 0.12, "D", clip_on=len(shown) < len(scores), color=colour, markersize=7)
        if span := bounded(arm.score):
            ends = possible(span, scale == 100)
            axes.hlines(row + 0.12, scale * ends[0], scale * ends[1], color=colour, linewidth=2)
    if proof.root is not None and low <= proof.root <= high:
        axes.axvline(scale * proof.root, color=GRID, linewidth=3, zorder=0)
        axes.annotate("root", (scale * proof.root, rows - 0.5), (-4, 0), textcoords="offset points", ha="right", color=MUTED, fontsize=12)
    axes.set_xlim(scale * low, scale * high)
    axes.set_ylim(-0.6, rows - 0.3)
    axes.set_yticks(range(rows), [arm.arm for arm in reversed(proof.arms)])
    axis = (BITS if proof.metric == "bits_per_byte" else ACCURACY).axis
    dress(axes, f"{axis if layout == 'wide' else axis.partition(' (')[0]}, test split", "")
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(False, axis="y")
    return svg(drawing, f"proof-{layout}", told(proof))


def _range(proof: Proof) -> tuple[float, float]:
    """The part of the axis that holds every score; intervals of few seeds would make it useless, and are cut at its ends."""
    scores = [each.score for arm in proof.arms for each in arm.replicates if arm.arm != "pruned-only" or len(proof.arms) == 1]
    scores += [proof.root] if proof.root is not None else []
    margin = max(0.25 * (max(scores) - min(scores)), 2 * proof.delta)
    return possible((min(scores) - margin, max(scores) + margin), proof.metric == "accuracy")


def told(proof: Proof) -> str:
    """The picture in words."""

    def words(arm: ArmResult) -> str:
        mean = sum(each.score for each in arm.replicates) / len(arm.replicates)
        ends = possible(span, proof.metric == "accuracy") if (span := bounded(arm.score)) else None
        between = f" ({points(proof, ends[0])} to {points(proof, ends[1])})" if ends else ""
        return f"{arm.arm} {scored(proof, mean)}{between}"

    root = f" The root scores {scored(proof, proof.root)}." if proof.root is not None else ""
    return f"Scores on the test split, each arm's mean and its interval: {'; '.join(map(words, proof.arms))}.{root}"
