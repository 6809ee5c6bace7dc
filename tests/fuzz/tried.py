"""Counts what the property tests tried, for `make fuzz`: Hypothesis' own statistics leave out tests inside of tests."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

COUNTS = "FUZZ_COUNTS"  # names the file of the counts
_tried = Counter[str]()


def tried(what: str) -> None:
    """Count an example by what became of it."""
    _tried[what] += 1


def write_counts() -> None:
    """Write the counts, if they are asked for."""
    if path := os.environ.get(COUNTS):
        Path(path).write_text(json.dumps(_tried), encoding="utf-8")
