"""Match the classes of a teacher with the labels of the data; no torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from conf.errors import UserError
from models.base.files import read_json

WHOLE = re.compile(r"0|-?[1-9][0-9]*")
PLACEHOLDER = re.compile(r"LABEL_(0|[1-9][0-9]*)", re.IGNORECASE)  # the names that transformers gives where nobody gave any
EMOJI_STYLE = "\ufe0f"  # asks for a sign in colour
SHOWN = 12  # names of a list in a message


def classes_in(folder: Path) -> tuple[str, ...]:
    """Names of a checkpoint's classes in the order of its outputs, by its `config.json`; those of transformers where it gives none.

    Raises:
        UserError: `id2label` and `label2id` contradict each other.
    """
    config = read_json(folder / "config.json")
    given = config.get("id2label")
    names = tuple(str(given[key]) for key in sorted(given, key=int)) if isinstance(given, dict) else ()
    turned = _by_place(config.get("label2id"))
    if turned and (not names or (len(turned) == len(names) and are_placeholders(names))):
        return turned
    if turned and set(turned) == set(names) and turned != names:
        found = f"{folder} with id2label {_listed(names)} and label2id {_listed(turned)}"
        remedy = "Name its classes in the order of its outputs: teacher.classes=[...]."
        raise UserError.about("teacher.path", found, "one order of the classes", remedy)
    return names or tuple(f"LABEL_{i}" for i in range(config.get("num_labels") or 2))


def _by_place(numbers: object) -> tuple[str, ...]:
    """The names in a `label2id` in the order of their numbers; none where those are not 0, 1, ..."""
    if not isinstance(numbers, dict) or sorted(map(str, numbers.values())) != sorted(map(str, range(len(numbers)))):
        return ()
    return tuple(str(name) for name in sorted(numbers, key=lambda name: int(numbers[name])))


def fold(name: str) -> str:
    """A name without regard to case, surrounding space, and how its letters and signs are composed."""
    return unicodedata.normalize("NFC", name.strip().casefold()).replace(EMOJI_STYLE, "")


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether names say nothing but the number of their class: LABEL_0, LABEL_1, ... or 0, 1, ..."""
    return all(fold(name) in (f"label_{i}", str(i)) for i, name in enumerate(names))


def match_classes(
    ours: Sequence[str], theirs: Sequence[str], *, numbered: bool = False, key: str = "teacher.path"
) -> tuple[tuple[str, ...], list[int]]:
    """The teacher's class of each label of the data.

    Labels are matched by name, ignoring case and surrounding space; then as whole numbers, which are places among the teacher's classes
    (`id2label`); then in their order, where the teacher only numbers its classes (LABEL_0, LABEL_1, ...) and has as many. By name or number
    the data may lack some classes.

    Args:
        ours: Names of the labels in the data; whole numbers as text.
        theirs: Names of the teacher's classes, in the order of its outputs.
        numbered: Whether the data themselves count their classes from 0.
        key: Dotted key of the teacher, for the message.

    Returns:
        The names of all classes, numbered as the teacher's outputs, and the number of each of `ours`.

    Raises:
        UserError: No rule decides, with both lists.
    """
    places = _by_name(ours, theirs)
    if places is None:
        places = _by_number(ours, theirs, numbered)
        own = {fold(name): number for number, name in enumerate(theirs)}
        if places is not None and any(own.get(fold(name), place) != place for name, place in zip(ours, places, strict=True)):
            places = None  # 0, 1, 2 of the data and 1, 2, 3 of the teacher: number and name say different things
    if places is None:
        raise UserError.about(
            key,
            f"classes {_listed(theirs)}",
            f"names, or places from 0 on, of the labels in the data: {_listed(ours)}",
            "Name the teacher's classes in the order of its outputs, as the data call them: teacher.classes=[...].",
        )
    names = list(theirs)
    if are_placeholders(theirs):
        for name, place in zip(ours, places, strict=True):
            names[place] = PLACEHOLDER.sub(r"\1", name)
        names = [PLACEHOLDER.sub(r"\1", name) for name in names]
    return tuple(names), places


def _by_name(ours: Sequence[str], theirs: Sequence[str]) -> list[int] | None:
    for same in (str, fold):
        place = {same(name): number for number, name in enumerate(theirs)}
        if len(place) == len(theirs) and all(same(name) in place for name in ours):
            return [place[same(name)] for name in ours]
    return None


def _by_number(ours: Sequence[str], theirs: Sequence[str], numbered: bool) -> list[int] | None:
    if all(WHOLE.fullmatch(name) for name in ours):
        numbers = [int(name) for name in ours]
        # Numbers without a 0 may count from 1.
        if (0 in numbers or numbered) and min(numbers) >= 0 and max(numbers) < len(theirs):
            return numbers
    return list(range(len(ours))) if len(ours) == len(theirs) and are_placeholders(theirs) else None


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
