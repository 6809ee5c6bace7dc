"""Text of `ladder redistill`: a decision, and what would be done."""

from __future__ import annotations

from conf.errors import UserError
from conf.home import Home
from tasks.records.redistill import Redistillation
from tasks.redistill.prepare import Ready
from tasks.tracking.null import NullTracker
from tasks.tracking.recorder import tracker_of
from tasks.tracking.versions import CHAMPION, list_names, list_versions


def the_name(paths: Home) -> str:
    """The one model that has a champion.

    Raises:
        UserError: There is none, or there are several.
    """
    tracker = tracker_of(paths)
    found = []
    if not isinstance(tracker, NullTracker):
        found = [name for name in list_names(tracker) if any(CHAMPION in each.aliases for each in list_versions(tracker, name))]
    if len(found) != 1:
        remedy = "Name one." if found else "`ladder promote` makes a champion."
        raise UserError.about("NAME", ", ".join(found) or "no model with a champion", "one model with a champion", remedy)
    return found[0]


def outcome_text(decision: Redistillation) -> str:
    """A decision in a few lines."""
    rows = [f"{decision.name}, decision {decision.number}: {decision.words}"]
    if counts := decision.counts:
        rows.append(
            f"{counts.rows} rows of {counts.files} windows: {counts.transfer} train, {counts.labelled} of them with a label, each read "
            f"{counts.weight:g} times an epoch; {counts.held_out} judge, by {decision.judged_by or 'nothing'}"
        )
    if decision.asked is not None:
        rows.append(f"teachers answered {decision.asked} examples; {decision.copied} answers were copied")
    if decision.run:
        rows.append(f"run: {decision.run}")
    return "\n".join(rows)


def plan_of(ready: Ready | None, against: str) -> dict[str, str]:
    """Plan of a call: the run that it would begin, or the reason against it."""
    if ready is None:
        return {"would": "not run", "reason": against}
    counts = ready.data.counts
    return {
        "would": f"run {ready.origin.record.source} again",
        "champion": ready.champion.label,
        "windows": f"{counts.files} files, {counts.rows} rows, {counts.repeated} repeated, {counts.unusable} unusable",
        "train": f"{counts.transfer} rows, {counts.labelled} with a label, read {counts.weight:g} times an epoch",
        "judge": f"{counts.held_out} rows, by {ready.data.judged_by or 'nothing'}",
        "kept": ", ".join(ready.kept) or "nothing",
        "settings": "\n              ".join(ready.overrides),
    }
