"""Text and JSON of `ladder promote`, `rollback` and `models`."""

from __future__ import annotations

from typing import Any

from conf.errors import UserError
from conf.home import Home
from tasks.records.promotion import Judgement, Promotion
from tasks.registry.judge import Contest
from tasks.registry.promotion import finish_interrupted
from tasks.registry.texts import HEAD, judgement_lines, judgement_rows, version_cells, version_json
from tasks.registry.versions import Version, list_names, list_versions, unknown_name
from tasks.report.terminal import WIDE, table_of, text_of
from tasks.tracking.tracker import Tracker


def comparison_text(asked: Contest, judgement: Judgement, outcome: str) -> str:
    """The comparison as people read it."""
    challenger, champion = asked.challenger.label, asked.champion.label if asked.champion else None
    head, *rows = judgement_rows(champion, challenger, judgement)
    return text_of(f"{challenger}: {outcome}", table_of(head, rows), *judgement_lines(judgement), width=WIDE, soft_wrap=True)


def promotion_json(moved: Promotion | None, judgement: Judgement | None, challenger: Version | None) -> dict[str, Any]:
    """A promotion, or a refused one, as scripts read it."""
    if moved is not None:
        return {"promoted": True, **moved.model_dump(mode="json")}
    assert judgement is not None
    assert challenger is not None
    return {"promoted": False, "name": challenger.name, "version": challenger.version, "judgement": judgement.model_dump(mode="json")}


def only_name(tracker: Tracker) -> str:
    """The only registered model.

    Raises:
        UserError: There are none, or several.
    """
    names = list_names(tracker)
    if len(names) != 1:
        raise UserError.about("NAME", "nothing", f"one of {', '.join(names) or 'none yet'}", "Name the model.")
    return names[0]


def versions_of(tracker: Tracker, home: Home, name: str | None) -> list[dict[str, Any]]:
    """The versions of a registered model, or of all, after moves that were interrupted are recorded.

    Raises:
        UserError: There is no such model.
    """
    names = list_names(tracker)
    if name is not None and name not in names:
        raise unknown_name(name, names)
    found = []
    for each in [name] if name is not None else names:
        finish_interrupted(tracker, home, each)
        found += [version_json(entry) for entry in list_versions(tracker, each)]
    return found


def versions_text(found: list[dict[str, Any]]) -> str:
    """Versions as people read them."""
    if not found:
        return "no versions yet; a finished ladder registers its last student"
    return text_of(table_of(HEAD, [version_cells(each) for each in found], left=("version", "aliases", "run")), width=WIDE + 40)
