"""Write the HTML page of a comparison into the folder of the newer run."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from tasks.records import format as fmt
from tasks.records.run import RunRecord, StageRecord
from tasks.report import tables
from tasks.report.comparison.compare import RunComparison
from tasks.report.page import templates, write_page
from tasks.report.plots.style import INK, MODELS, Layout, dress, figure, plain_log, svg


def write_comparison(found: RunComparison, a: RunRecord, b: RunRecord) -> Path:
    """Write the page, whole or not at all, over an older one.

    Raises:
        StoreError: It could not be written.
    """
    newer = max((a, b), key=lambda run: run.started)
    plots = [(layout, Markup(drawn)) for layout in ("wide", "narrow") if (drawn := chains_svg(a, b, layout))]
    page = templates().get_template("compare.html.j2").render(found=found, plots=plots, quality=tables.quality_of(b))
    return write_page(page, Path(newer.folder) / f"compare-{a.run}-{b.run}.html")


def chains_svg(a: RunRecord, b: RunRecord, layout: Layout) -> str | None:
    """Quality against parameters of both runs' models; None while neither has any."""
    quality = tables.quality_of(b)
    scale = 100 if quality is tables.ACCURACY else 1
    drawing = figure((920, 380) if layout == "wide" else (340, 350))
    axes = drawing.subplots()
    described = []
    for run, colour, marker, letter in ((a, MODELS[0], "s", "A"), (b, MODELS[1], "o", "B")):
        models = [model for model in run.models if quality.key in model.metrics]
        if models:
            points = [model.parameters for model in models], [scale * model.metrics[quality.key] for model in models]
            size = 8 if len(models) <= 30 else 4
            axes.plot(*points, marker=marker, color=colour, linewidth=1.4, markersize=size, label=letter)
            described.append(f"{letter}: " + ", ".join(_point(quality, models[i]) for i in sorted({0, len(models) - 1})))
    if not described:
        return None
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.2)
    plain_log(axes.xaxis)
    dress(axes, "parameters (log scale)", quality.axis)
    drawing.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=INK, fontsize=12.5)
    return svg(
        drawing,
        f"chains-{layout}",
        f"Quality against parameters of both runs, {quality.axis}, first and last model. {'; '.join(described)}.",
    )


def _point(quality: tables.QualityMetric, model: StageRecord) -> str:
    return f"{model.name} {tables.score(quality, model.metrics)} with {fmt.human(model.parameters)} parameters"
