"""The sections of a run's report: each a module with a function, and a partial template of the same name.

`tasks/sections/<topic>.py` has `section(record) -> Mapping[str, Any] | None`; None: there is nothing to show, and the section is left out.
`tasks/templates/<topic>.html.j2` lays the mapping out: it is `section` there, beside `record`, `models` (the finished ones) and the
filters of `tasks.report`. It is one `<section>` with an `<h2>`, its tables in `<div class="scroll">`, its pictures in a `<figure>`.

Three keys of a mapping are for the frame, all optional:
    verdict: The sentence that the report begins with, its interval in it: text, not HTML.
    controls: `tasks.plot.Control`s, drawn beside the models in the picture of quality against parameters.
    intervals: Model -> (low, high) of its quality, as a fraction for accuracy and in bits per byte for language models.

A section reads what was computed and computes nothing itself; it imports neither torch nor scikit-learn.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from tasks.records import RunRecord

# In the order of the page: was it worth it, how good, at what price, how fast, what was inherited, where it comes from.
ORDER = ("proof", "economics", "bench", "audit")


def gather(record: RunRecord) -> dict[str, Mapping[str, Any]]:
    """The sections that have something to show, in the order of the page."""
    found = {name: importlib.import_module(f"{__name__}.{name}").section(record) for name in ORDER if _is_there(name)}
    return {name: section for name, section in found.items() if section is not None}


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(f"{__name__}.{name}") is not None
