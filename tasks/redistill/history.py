"""Decisions about re-distillation, as a list in words."""

from __future__ import annotations

from collections.abc import Sequence

from conf.home import home
from tasks.records.redistill import Redistillation
from tasks.redistill.decisions import decisions, names


def history_of(name: str | None) -> list[Redistillation]:
    """The decisions about a model, or about all, the newest first."""
    found = [each for model in ([name] if name else names(home())) for each in decisions(home(), model)]
    return sorted(found, key=lambda each: (each.time, each.number), reverse=True)


def history_text(found: Sequence[Redistillation]) -> str:
    """One line a decision."""
    rows = (f"{each.number:>4}  {each.time[:16].replace('T', ' ')}  {each.cause}  {each.words}" for each in found)
    return "\n".join(rows) or "No decision yet."
