"""Record of remarks and counts from reading and preparing data."""

from __future__ import annotations

from pydantic import Field

from tasks.records.base import Record
from tasks.records.format import percent

COUNTS = "counts.json"  # beside `corpus.json`; it says how the corpus was made, and is no part of its content


class DataCounts(Record):
    """Counts of rows left out of a corpus, and remarks on it.

    Attributes:
        dropped: `text`, `image` or `label` -> rows left out because they have none.
        conflicting: Documents whose content bears another label elsewhere.
        shared: `test in train` -> documents of a given test split that stand in the training split too, and so on; kept in both.
        cut: Split -> texts that are longer than `data.sequence_length` and cut to it.
        cut_share: Split -> share of all its ids that this leaves out.
        shared_lines: Held-out split -> share of its lines and sentences that stand in the training split too.
        notes: Remarks as the log showed them.
        labelled: Training examples of a classifier that have a label; None for language models.
        unlabelled: Those that have none.
        transfer: Training documents that came from `data.transfer`.
    """

    dropped: dict[str, int] = Field(default={})
    conflicting: int = 0
    shared: dict[str, int] = Field(default={})
    cut: dict[str, int] = Field(default={})
    cut_share: dict[str, float] = Field(default={})
    shared_lines: dict[str, float] = Field(default={})
    notes: tuple[str, ...] = ()
    labelled: int | None = None
    unlabelled: int | None = None
    transfer: int = 0

    @property
    def labels_in_words(self) -> str | None:
        """A sentence on examples without label; None where all have one."""
        if not self.unlabelled:
            return None
        labelled = self.labelled or 0
        rows = self.unlabelled + labelled
        return (
            f"Of {rows:,} training examples {labelled:,} have a label; the other {self.unlabelled:,} ({percent(self.unlabelled / rows)}) "
            "serve the models that have a teacher, whose answers are their only target there."
        )

    @property
    def cut_in_words(self) -> str | None:
        """A sentence on texts that are cut; None where none is."""
        parts = [f"{count:,} in {name}, {percent(self.cut_share[name])} of its ids" for name, count in self.cut.items() if count]
        return f"texts longer than data.sequence_length lose their ends: {'; '.join(parts)}" if parts else None

    @property
    def shared_in_words(self) -> str | None:
        """A sentence on lines that held-out splits share with the training split; None where there are none."""
        parts = [f"{percent(share)} of {name}'s" for name, share in self.shared_lines.items() if share]
        return f"{' and '.join(parts)} lines and sentences (from 24 characters on) stand in the training split too" if parts else None
