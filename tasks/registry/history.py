"""The history of champions in the home, `promotions/<name>/<number>.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from conf.atomic import write_atomic
from conf.errors import reason_of
from conf.home import Home, disk_errors
from tasks.records.promotion import Promotion
from tasks.runtime.logs import log


class Numbered(NamedTuple):
    """An entry of the history."""

    number: int
    promotion: Promotion


def history(home: Home, name: str) -> list[Numbered]:
    """All entries of a ladder's model, the oldest first; one that cannot be read is named and left out."""
    found = []
    for path in (home.promotions / name).glob("*.json"):
        try:
            found.append(Numbered(int(path.stem), Promotion.model_validate_json(path.read_bytes())))
        except (OSError, ValueError) as fault:
            log.warning("%s is no record of a promotion (%s); left out", path, reason_of(fault))
    return sorted(found)


def keep(home: Home, promotion: Promotion, number: int | None = None) -> Numbered:
    """Write an entry whole: a new one at the end, or the one with this number again. The caller holds the model's lock.

    Raises:
        StoreError: The disk is full.
    """
    folder = home.promotions / promotion.name
    with disk_errors(home):
        folder.mkdir(parents=True, exist_ok=True)
        if number is None:
            number = 1 + max((int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal()), default=0)
        write_atomic(folder / f"{number}.json", promotion.model_dump_json(indent=1))
    return Numbered(number, promotion)


def champions(entries: Sequence[Numbered], uri: str) -> list[str]:
    """The line of champions in one MLflow, the present one last: a rollback takes those after it away again."""
    line: list[str] = []
    for _, promotion in entries:
        if promotion.state != "done" or promotion.mlflow_uri != uri:
            continue
        if promotion.previous is not None and (not line or line[-1] != promotion.previous):
            line.append(promotion.previous)  # made champion in another way
        if promotion.kind == "rollback" and promotion.version in line:
            del line[line.index(promotion.version) :]
        line.append(promotion.version)
    return line


def standing(home: Home, label: str | None) -> str | None:
    """Status of a version, `NAME/VERSION`, in a sentence: of its last move; None: no move yet."""
    if label is None:
        return None
    name, _, version = label.partition("/")
    entries = [promotion for _, promotion in history(home, name) if promotion.state in ("done", "refused")]
    moved = next((each for each in reversed(entries) if each.version == version), None)
    if moved is None:
        return None
    if moved.state == "refused":
        reasons = "; ".join(moved.judgement.reasons) if moved.judgement and moved.judgement.reasons else moved.reason
        return f"not promoted on {moved.time}: {reasons}"
    last = next(each for each in reversed(entries) if each.state == "done")
    if last.version == version:
        return words(moved)
    verb = "rolled back" if last.kind == "rollback" else "followed"
    return f"{words(moved)}; {verb} on {last.time}, the champion is {name}/{last.version}"


def words(promotion: Promotion) -> str:
    """A move in a sentence, for MLflow, the report and the terminal."""
    verb = "champion again" if promotion.kind == "rollback" else "champion"
    who = f", by {promotion.by}" if promotion.by else ""
    after = f", after {promotion.name}/{promotion.previous}" if promotion.previous else ""
    forced = ", forced" if promotion.forced else ""
    why = f": {promotion.reason}" if promotion.reason else ""
    return f"{verb} since {promotion.time}{after}{who}{forced}{why}"
