"""Labels as sources write them, the classes that they name, and likely mistakes."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.base import NOT_TEXT
from conf.schema.data import Data
from conf.schema.tables import Columns
from models.data.classes import are_placeholders, match_classes
from models.data.corpus import SPLITS

Label = int | str

WHOLE_NUMBER = re.compile(
    r"([-+]?(?:0|[1-9][0-9]{0,17}))(\.0*)?"
)  # 10.0: pandas writes whole numbers so where a row of the column is empty
ZERO_PADDED = re.compile(r"0[0-9]+")
NO_CLASS = {"nan", "inf", "-inf", "<na>", "n/a", "#n/a", "null", "nat"}  # that programs write for an absent value, in any case
NO_CLASS_EXACTLY = {"NA", "None"}  # of R and Python; `none` and `Na` may be classes
SWITCHES = ("true", "false")
INVISIBLE = "\u200b\u2060\ufeff"  # spaces without width and the byte order mark, which no eye tells from nothing
IGNORED = -100  # that PyTorch's cross-entropy leaves out
RENAMED = "give it a name in the data, such as minus-100"  # classes that count from 0 have no room for it
FEW_ROWS = 10  # a class; with fewer on average the column is likely an id or a measurement
MANY_CLASSES = 20


@dataclass
class LabelTally:
    """Labels of the documents seen so far; memory grows with the number of different labels.

    Attributes:
        counts: Label as the source writes it -> documents that bear it.
        origins: Label -> where the first of them stands.
        unlabelled: Where the documents without label stand, the first alone, and their number.
    """

    counts: Counter[Label] = field(default_factory=Counter)
    origins: dict[Label, str] = field(default_factory=dict)
    unlabelled: int = 0
    first_unlabelled: str = ""

    def add(self, label: Label | None, origin: str) -> None:
        """Count the label of one document."""
        if label is None:
            self.first_unlabelled = self.first_unlabelled or origin
            self.unlabelled += 1
            return
        self.counts[label] += 1
        self.origins.setdefault(label, origin)


def clean_label(value: Any, columns: Columns, origin: str) -> Label | None:
    """The label in a cell without surrounding space, its letters composed; None for an empty cell, `True` and `False` for switches.

    Raises:
        UserError: Neither a number nor text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str) and not NOT_TEXT.search(value):
        return unicodedata.normalize("NFC", value).strip().strip(INVISIBLE).strip() or None
    raise UserError.about("data.columns.label", columns.label, "a column of integers or strings", f"{origin} holds {value!r}.")


def class_name(label: Label) -> str:
    """Name of a label: 10 for 10, `10` and `10.0`."""
    return str(label) if (number := _whole(label)) is None else str(number)


def stands_for_none(name: str) -> bool:
    """Whether programs write this name for a row without label."""
    return name == str(IGNORED) or name.casefold() in NO_CLASS or name in NO_CLASS_EXACTLY


def class_ids(
    labels: LabelTally, declared: Sequence[str] | None, data: Data, expected: int = 0, *, partial: bool = False
) -> tuple[tuple[str, ...], dict[Label, int]]:
    """Number the classes.

    Labels that are whole numbers, also when written as text (all of CSV is) or as 10.0, are the class itself where the source declares
    names or `data.classes` is set; otherwise, like names, they are numbered in sorted order, numbers by their value.

    Args:
        labels: The labels of all documents.
        declared: Names of the classes 0, 1, ... where the source itself has them.
        data: Its `classes` counts, and confirms labels that are a likely mistake.
        expected: Classes of the teacher, which confirm that there are many.
        partial: The labels are those of the first documents alone: what others could mend is no mistake.

    Returns:
        The names of the classes, and the class of every label that a document bears.

    Raises:
        UserError: No label at all, a label out of range, names that do not match `data.classes`, fewer than two classes, or
            labels that are likely not classes.
    """
    if not labels.counts and labels.unlabelled and not partial:
        remedy = f"All {labels.unlabelled:,} have none, the first {labels.first_unlabelled}: held-out examples need labels. Label some."
        raise UserError.about("data.columns.label", "no label", "labels in some of the examples", remedy)
    found = {label: class_name(label) for label in labels.counts}
    names = set(found.values())
    if len(names) < 2 and not partial:
        only = f"only the class {next(iter(labels.counts))!r}" if names else "no label"
        raise UserError.about("data", only, "at least 2 classes", "There is nothing to tell apart: add examples of another class.")
    whole = all(_whole(label) is not None for label in labels.counts)
    classes = len(declared) if declared else data.classes
    if data.classes is not None and classes != data.classes:
        raise UserError.about("data.classes", data.classes, f"{classes}, which the dataset declares", "Leave it out.")
    if whole and classes is not None:
        for label, name in found.items():
            if not 0 <= int(name) < classes:
                mend = (
                    f"data.unlabelled=['{name}'] if it stands for no label, or {RENAMED}"
                    if int(name) < 0
                    else "mend it, or set data.classes"
                )
                remedy = f"{labels.origins[label]} bears the label {label!r}: {mend}."
                raise UserError.about("data.classes", classes, f"labels from 0 to {classes - 1}", remedy)
        return tuple(declared or map(str, range(classes))), {label: int(name) for label, name in found.items()}
    if classes is None:
        _ask_back(labels, found, expected, partial)
    ordered = tuple(sorted(names, key=int if whole else _order if all(map(_is_number, names)) else str))
    if data.classes is not None and data.classes != len(ordered) and not partial:
        shown = ", ".join(ordered[:20])
        raise UserError.about(
            "data.classes", data.classes, f"{len(ordered)}, the number of named classes in the data", f"They are: {shown}."
        )
    number = {name: index for index, name in enumerate(ordered)}
    return ordered, {label: number[name] for label, name in found.items()}


def as_teacher(
    names: tuple[str, ...], labels: dict[Label, int], theirs: Sequence[str], *, numbered: bool
) -> tuple[tuple[str, ...], dict[Label, int]]:
    """The classes as `class_ids` gives them, numbered as the teacher numbers them; see `match_classes`."""
    matched, places = match_classes(names, theirs, numbered=numbered)
    return matched, {label: places[number] for label, number in labels.items()}


def unnamed_note(names: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """The assumption made where a teacher only numbers its classes and the data name them."""
    if not are_placeholders(theirs) or are_placeholders(names):
        return []
    pairs = ", ".join(f"LABEL_{number} for {name}" for number, name in enumerate(names[:8]))
    return [f"the teacher names no classes: its {pairs.replace(' for ', ' is taken for ', 1)}; teacher.classes=[...] says otherwise"]


def label_notes(labels: LabelTally, ids: Mapping[Label, int]) -> list[str]:
    """Remarks about labels that may be right: names that differ in case alone, and -1 beside 0.

    Args:
        labels: The labels of all documents.
        ids: Label -> class; a teacher may have one class for names that differ in case.
    """
    alike: dict[str, Counter[str]] = defaultdict(Counter)
    classes: dict[str, set[int]] = defaultdict(set)
    for label, count in labels.counts.items():
        alike[class_name(label).casefold()][class_name(label)] += count
        classes[class_name(label).casefold()].add(ids[label])
    names = {class_name(label) for label in labels.counts}
    marked = sum(count for label, count in labels.counts.items() if class_name(label) == "-1")
    minus = [f"labels: -1 ({marked:,} documents) is taken as a class; data.unlabelled=['-1'] says that it stands for none"]
    return (minus if marked and "0" in names else []) + [
        f"labels: {' and '.join(f'{name} ({count:,} documents)' for name, count in sorted(counts.items()))} differ in case alone, "
        f"and are taken as {'one class of the teacher' if len(classes[folded]) == 1 else 'different classes'}"
        for folded, counts in alike.items()
        if len(counts) > 1
    ]


def unlearned_note(names: Sequence[str], classes: NDArray[np.int64], parts: NDArray[np.uint8]) -> list[str]:
    """Classes of held-out documents that no training document bears.

    Args:
        names: Of the classes.
        classes: (n,) class of each document; negative: none.
        parts: (n,) index into `SPLITS` of each; larger numbers: none.
    """
    train = parts == SPLITS.index("train")
    held_out = (parts < len(SPLITS)) & ~train & (classes >= 0)
    lost = np.setdiff1d(classes[held_out], classes[train])
    if not len(lost):
        return []
    shown = ", ".join(str(names[number]) for number in lost[:8]) + (f", ... ({len(lost)})" if len(lost) > 8 else "")
    return [f"labels: no training document bears {shown}, which {int(np.isin(classes, lost)[held_out].sum()):,} held-out documents bear"]


def _whole(label: Label) -> int | None:
    if isinstance(label, int):
        return label
    match = WHOLE_NUMBER.fullmatch(label)
    return int(match[1]) if match else None


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name))
    except ValueError:
        return False


def _order(name: str) -> tuple[float, str]:
    return float(name), name


def _ask_back(labels: LabelTally, found: dict[Label, str], expected: int, partial: bool) -> None:
    """Refuse labels that are likely not classes, with their figures and the setting that confirms them."""
    names, rows = set(found.values()), labels.counts.total()
    confirm = f"data.classes={len(names)} confirms"

    def rows_of(name: str) -> int:
        return sum(count for label, count in labels.counts.items() if found[label] == name)

    def place(name: str) -> str:
        return next(labels.origins[label] for label in found if found[label] == name)

    for name in sorted(names):
        if stands_for_none(name):
            meant = f"If it is a class, {RENAMED}" if name == str(IGNORED) else f"{confirm} that it is a class"
            remedy = (
                f"Programs write it for a row without label ({place(name)}): data.unlabelled=['{name}'] says so, and the teacher alone "
                f"labels such rows; with data.missing=drop too they are left out. {meant}."
            )
            raise _unlikely(f"{rows_of(name):,} of {rows:,} rows with the label {name}", remedy)
    switches = [name for name in sorted(names) if name.casefold() in SWITCHES]
    digits = sorted(names & {"0", "1"})
    if switches and digits:
        found_there = f"{switches[0]} ({place(switches[0])}) beside {digits[0]} ({place(digits[0])})"
        remedy = f"Switches and numbers are different classes: write them alike. If they are meant so, {confirm} them."
        raise _unlikely(f"labels {found_there}", remedy)
    numbers = [name for name in names if _is_number(name)]
    padded = sorted(name for name in names if ZERO_PADDED.fullmatch(name))
    if padded and len(numbers) == len(names):
        remedy = f"Whole numbers lost or kept their zeros on the way: write them alike. If these are names, {confirm} them."
        raise _unlikely(f"{len(padded)} of {len(names)} labels padded with zeros, such as {padded[0]} ({place(padded[0])})", remedy)
    fractions = sorted((name for name in numbers if not float(name).is_integer()), key=_order)
    if fractions and len(numbers) == len(names):
        low, high = min(names, key=_order), max(names, key=_order)
        remedy = f"A measured quantity is no class: name a column of classes, or round it to some. If these are classes, {confirm} them."
        raise _unlikely(f"a column of fractions, {len(names):,} different ones from {low} to {high} in {rows:,} rows", remedy)
    many = (len(names) > MANY_CLASSES and len(names) * FEW_ROWS >= rows and not partial) or (rows >= MANY_CLASSES and len(names) * 2 > rows)
    if many and len(names) > expected:
        remedy = f"A column of ids or texts is no class: name another one. If these are classes, {confirm} them."
        raise _unlikely(f"{len(names):,} different labels in {rows:,} rows, such as {min(names)}", remedy)


def _unlikely(found: str, remedy: str) -> UserError:
    return UserError.about("data.columns.label", found, "a column of classes", remedy)
