"""The sections of a run's report: each a module with a function, and a partial template of the same name.

`sections/<topic>.py` has `section(record) -> Mapping[str, Any] | None`; None: there is nothing to show, and the section is left out.
`templates/<topic>.html.j2` lays the mapping out: it is `section` there, beside `record`, `models` (the finished ones), `quality`
(what they are judged by), `unit` (tokens or examples) and the page's filters. It is one `<section>` with an `<h2>`, its tables
in `<div class="scroll">`, their heads in `<thead>`, its pictures in a `<figure>`.

Three keys of a mapping are for the frame, all optional:
    verdict: The sentence that the report begins with, its interval in it: text, not HTML.
    controls: `tasks.report.plots.quality.Control`s, drawn beside the models in the picture of quality against parameters.
    intervals: Model -> (low, high) of its quality, as a fraction for accuracy and in bits per byte for language models.

A section reads what was computed and computes nothing itself; it imports neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from tasks.records.run import RunRecord

# In the order of the page: was it worth it, how good, at what price, how fast, what was inherited, how it came about, from what.
ORDER = (
    "outcome",
    "quality",
    "models",
    "proof",
    "costs",
    "economics",
    "bench",
    "audit",
    "slices",
    "curves",
    "samples",
    "lineage",
    "settings",
)
LATE = "quality"  # draws what the others have found


def gather(record: RunRecord) -> dict[str, Mapping[str, Any]]:
    """The sections that have something to show, in the order of the page."""
    found = {name: _module(name).section(record) for name in ORDER if name != LATE and _is_there(name)}
    controls = [control for section in found.values() for control in (section or {}).get("controls", ())]
    intervals = {name: ends for section in found.values() for name, ends in (section or {}).get("intervals", {}).items()}
    found[LATE] = _module(LATE).section(record, controls, intervals)
    return {name: section for name in ORDER if (section := found.get(name)) is not None}


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(f"{__name__}.{name}") is not None
