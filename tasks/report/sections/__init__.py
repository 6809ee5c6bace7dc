"""The sections of a run's report, in the order of the page.

A section is a module with `section(record) -> Mapping[str, Any] | None` (None: it is left out) and an entry in `SECTIONS`. The page lays
its mapping out by `templates/section.html.j2`, from these keys, all but the first optional:
    heading: The section's `<h2>`.
    sentence: A paragraph.
    plots: (layout, SVG as `Markup`) of each picture, layout `wide` or `narrow`.
    tables: Mappings of `headers`, `rows` of cells, and optionally `title`, `words` (headers of the columns of text, aligned on the left;
        by default the first) and `sums` (number of last rows that are sums).
    note: Small print at the end.

For another layout, a template `templates/<name>.html.j2`: there the mapping is `section`, beside `record`, `models` (the finished ones),
`quality` (the metric that they are judged by), `unit` (tokens or examples) and the page's filters. A template is one `<section>` with
an `<h2>`, its tables in `<div class="scroll">`, their heads in `<thead>`, its pictures in a `<figure>`.

Three more keys are for the page, all optional:
    verdict: The sentence that the report begins with, its interval in it: text, not HTML.
    controls: `tasks.report.plots.quality.Control`s, drawn beside the models in the picture of quality against parameters.
    intervals: Model -> (low, high) of its quality, as a fraction for accuracy and in bits per byte for language models.

A section reads records and computes nothing itself; it imports neither torch nor scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tasks.records.run import RunRecord
from tasks.report.sections import costs, curves, exports, lineage, models, outcome, quality, samples, settings, slices
from tasks.report.sections.choice import generation, route, search, teachers
from tasks.report.sections.measures import audit, bench, economics, proof

Section = Callable[[RunRecord], Mapping[str, Any] | None]

SECTIONS: dict[str, Section] = {
    "outcome": outcome.section,
    "quality": quality.section,
    "models": models.section,
    "search": search.section,
    "proof": proof.section,
    "route": route.section,
    "generation": generation.section,
    "costs": costs.section,
    "economics": economics.section,
    "bench": bench.section,
    "exports": exports.section,
    "audit": audit.section,
    "slices": slices.section,
    "curves": curves.section,
    "samples": samples.section,
    "lineage": lineage.section,
    "teachers": teachers.section,
    "settings": settings.section,
}


def gather(record: RunRecord) -> dict[str, Mapping[str, Any]]:
    """The sections that have something to show, in the order of the page."""
    found = {name: section(record) for name, section in SECTIONS.items() if name != "quality"}
    controls = [control for section in found.values() for control in (section or {}).get("controls", ())]
    intervals = {name: ends for section in found.values() for name, ends in (section or {}).get("intervals", {}).items()}
    found["quality"] = quality.section(record, controls, intervals)  # draws the controls and intervals of the others
    return {name: section for name in SECTIONS if (section := found[name]) is not None}
