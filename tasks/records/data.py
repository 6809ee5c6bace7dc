"""Record of remarks and counts from reading and preparing data."""

from __future__ import annotations

from pydantic import Field

from tasks.records.base import Record

COUNTS = "counts.json"  # beside `corpus.json`; it says how the corpus was made, and is no part of its content


class DataCounts(Record):
    """What was left out of a corpus or is remarkable in it.

    Attributes:
        dropped: `text`, `image` or `label` -> rows left out because they have none.
        notes: Remarks as the log showed them.
    """

    dropped: dict[str, int] = Field(default={})
    notes: tuple[str, ...] = ()
