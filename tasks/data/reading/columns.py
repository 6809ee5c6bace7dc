"""Check that a table has the columns that the settings name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from conf.errors import UserError
from conf.loading.introspect import suggest

SHOWN_COLUMNS, SHOWN_CHARACTERS = 30, 40  # of a header, in messages


class NoLabelColumn(UserError):
    """A table has no column of labels, nor one of a similar name; a table beside it may have it."""


def check_columns(available: Collection[str], wanted: Mapping[str, str], origin: str) -> None:
    """Raise a UserError for the first column of `wanted` (role to name) that `available` lacks or holds twice."""
    for role, name in wanted.items():
        key = "data.splits.column" if role == "split" else f"data.columns.{role}"
        if name not in available:
            similar = suggest(name, available)
            remedy = f"{similar}Name the column that holds the {role}."
            if role == "label":
                remedy += " Rows without label have an empty cell in it."
            error = NoLabelColumn if role == "label" and not similar else UserError
            raise error.about(key, name, f"the columns of {origin}: {_shown(available)}", remedy)
        if not isinstance(available, dict) and (times := list(available).count(name)) > 1:  # all but the last would be ignored
            remedy = f"The header of {origin} has it {times} times: rename all but one."
            raise UserError.about(key, name, "a column that occurs once", remedy)


def _shown(names: Collection[str]) -> str:
    """Names of columns; a first line of data in place of a header may be long."""
    cut = [name if len(name) <= SHOWN_CHARACTERS else f"{name[: SHOWN_CHARACTERS - 3]}..." for name in names]
    return ", ".join(cut[:SHOWN_COLUMNS]) + (f" and {len(cut) - SHOWN_COLUMNS} more" if len(cut) > SHOWN_COLUMNS else "") or "none"
