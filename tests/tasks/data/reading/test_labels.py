"""Labels: numbers by their value, names in sorted order, likely mistakes asked back."""

from __future__ import annotations

import numpy as np
import pytest

from conf.errors import UserError
from conf.schema.data import FilesData
from conf.schema.tables import Columns
from tasks.data.reading.labels import Label, LabelTally, class_ids, clean_label, label_notes, unlearned_note

FILES = FilesData(paths=("x",))
COLUMNS = Columns()


def tally(*labels: Label | None) -> LabelTally:
    made = LabelTally()
    for number, label in enumerate(labels):
        made.add(label, f"rows.csv:{number}")
    return made


def classes_of(
    *labels: Label | None, declared: tuple[str, ...] | None = None, classes: int | None = None
) -> tuple[tuple[str, ...], dict[Label, int]]:
    return class_ids(tally(*labels), declared, FILES.model_copy(update={"classes": classes}))


@pytest.mark.parametrize(
    ("labels", "declared", "classes", "names", "ids"),
    [
        (["pos", "neg", "pos"], None, None, ("neg", "pos"), {"pos": 1, "neg": 0}),
        ([10, 9, 2], None, None, ("2", "9", "10"), {10: 2, 9: 1, 2: 0}),
        (["10", "9", "2"], None, None, ("2", "9", "10"), {"10": 2, "9": 1, "2": 0}),
        ([2, 0], None, 4, ("0", "1", "2", "3"), {2: 2, 0: 0}),
        (["2", "0"], None, 4, ("0", "1", "2", "3"), {"2": 2, "0": 0}),
        (["-0", "5", "+5", "+10"], None, None, ("0", "5", "10"), {"-0": 0, "5": 1, "+5": 1, "+10": 2}),
        (["b", 1], None, None, ("1", "b"), {"b": 1, 1: 0}),
        ([1, 0], ("zebra", "ape"), None, ("zebra", "ape"), {1: 1, 0: 0}),
        (["a", "b"], None, 2, ("a", "b"), {"a": 0, "b": 1}),
    ],
)
def test_labels_are_numbered(
    labels: list[Label], declared: tuple[str, ...] | None, classes: int | None, names: tuple[str, ...], ids: dict[Label, int]
) -> None:
    assert classes_of(*labels, declared=declared, classes=classes) == (names, ids)


@pytest.mark.parametrize(
    ("labels", "declared", "classes", "says"),
    [
        ([0, 1, 3], None, 3, r"data\.classes: got 3; allowed: labels from 0 to 2\. rows\.csv:2 bears the label 3"),
        ([0, -1], None, 2, r"data\.classes: got 2; allowed: labels from 0 to 1\. rows\.csv:1 bears the label -1"),
        (["0", "5"], None, 3, r"rows\.csv:1 bears the label '5'"),
        (
            [None, None],
            None,
            None,
            r"data\.columns\.label: got 'no label'.*All 2 have none, the first rows\.csv:0: held-out examples need labels",
        ),
        ([4, 4, 4], None, None, r"data: got 'only the class 4'; allowed: at least 2 classes"),
        (["a", "a"], None, None, r"at least 2 classes"),
        (["a", "b", "c"], None, 2, r"data\.classes: got 2; allowed: 3, the number of named classes in the data\. They are: a, b, c"),
        ([0, 1], ("a", "b"), 3, r"data\.classes: got 3; allowed: 2, which the dataset declares"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    labels: list[Label | None], declared: tuple[str, ...] | None, classes: int | None, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        classes_of(*labels, declared=declared, classes=classes)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([f"{n}.0" for n in range(11)] * 4, tuple(map(str, range(11)))),
        ([float(n) for n in (10, 2, 0)] * 9, ("0", "2", "10")),
        (["1.0", "1", " 0"], ("0", "1")),
        (["positive", "positive ", "negative\t"], ("negative", "positive")),
        (["none", "all"], ("all", "none")),
        ([True, False, "True"], ("False", "True")),
        (["cafe\u0301", "caf\u00e9", "tea", "\u200btea"], ("caf\u00e9", "tea")),
        (["9" * 5000, "1"], ("1", "9" * 5000)),
        (["-1", "1"], ("-1", "1")),
    ],
)
def test_whole_numbers_and_names_are_read_as_meant(labels: list[float | str], names: tuple[str, ...]) -> None:
    cleaned = [clean_label(label, COLUMNS, "x") for label in labels]
    found, ids = classes_of(*cleaned)
    assert found == names
    assert {found[ids[label]] for label in cleaned if label is not None} == set(names)


@pytest.mark.parametrize("empty", [None, "", "  ", float("nan")])
def test_an_empty_cell_is_no_label(empty: float | str | None) -> None:
    assert clean_label(empty, COLUMNS, "x") is None


UNLIKELY: list[tuple[list[Label], str]] = [
    ([0, 1, -100] * 14, r"got '14 of 42 rows with the label -100'.*rows\.csv:2.*data\.unlabelled=\['-100'\].*data\.missing=drop"),
    ([0, 1, "inf"] * 14, r"got '14 of 42 rows with the label inf'"),
    (["0", "1", "nan"] * 14, r"got '14 of 42 rows with the label nan'.*data\.classes=3 confirms"),
    (["0", "1", "NaN"] * 2, r".*label NaN"),
    (["good", "bad", "None"] * 2, r".*label None"),
    (["True", "False", 1] * 2, r"got 'labels False \(rows\.csv:1\) beside 1 \(rows\.csv:2\)'.*write them alike.*data\.classes=3 confirms"),
    (["01", "02", "10"] * 14, r"got '2 of 3 labels padded with zeros, such as 01 \(rows\.csv:0\)'.*data\.classes=3 confirms"),
    (
        ["0.37", "0.82", "0.5", "1"] * 9,
        r"got 'a column of fractions, 4 different ones from 0\.37 to 1 in 36 rows'.*data\.classes=4 confirms",
    ),
    ([f"user{n}" for n in range(40)] * 9, r"got '40 different labels in 360 rows, such as user0'.*data\.classes=40 confirms"),
    (list(range(40)), r"got '40 different labels in 40 rows"),
]


@pytest.mark.parametrize(("labels", "says"), UNLIKELY)
def test_likely_mistakes_are_asked_back(labels: list[Label], says: str) -> None:
    with pytest.raises(UserError, match=rf"data\.columns\.label: {says}"):
        classes_of(*labels)


@pytest.mark.parametrize("labels", [labels for labels, _ in UNLIKELY if -100 not in labels])
def test_the_number_of_classes_confirms_them(labels: list[Label]) -> None:
    classes = len(set(labels))
    names, ids = classes_of(*labels, classes=classes)
    assert (len(names), sorted(ids.values())) == (classes, list(range(classes)))


def test_names_of_fractions_stand_in_the_order_of_their_values() -> None:
    assert classes_of("10.5", "9", "2.5", classes=3)[0] == ("2.5", "9", "10.5")


def test_as_many_classes_as_the_rows_bear_out_are_not_asked_back() -> None:
    assert len(classes_of(*map(str, range(40)), *(["7"] * 400))[0]) == 40


def test_classes_that_differ_in_case_alone_are_said() -> None:
    seen = tally("negative", "Negative", "positive", "Negative")
    (merged,) = label_notes(seen, {"negative": 0, "Negative": 0, "positive": 1})
    assert merged.endswith("taken as one class of the teacher")
    (note,) = label_notes(seen, {"negative": 0, "Negative": 2, "positive": 1})
    assert "Negative (2 documents) and negative (1 documents) differ in case alone" in note
    assert not label_notes(tally("a", "b"), {"a": 0, "b": 1})


def test_a_teacher_of_as_many_classes_confirms_many() -> None:
    labels = tally(*(f"intent {n}" for n in range(40)), *(f"intent {n}" for n in range(40)))
    assert len(class_ids(labels, None, FILES, expected=40)[0]) == 40
    with pytest.raises(UserError, match="40 different labels"):
        class_ids(labels, None, FILES, expected=39)


def test_minus_one_beside_zero_is_said() -> None:
    assert label_notes(tally("-1.0", 0, 1), {"-1.0": 0, 0: 1, 1: 2}) == [
        "labels: -1 (1 documents) is taken as a class; data.unlabelled=['-1'] says that it stands for none"
    ]
    assert not label_notes(tally(-1, 1), {-1: 0, 1: 1})


def test_classes_of_held_out_documents_alone_are_said() -> None:
    classes, parts = np.array([0, 1, 2, 2, -1, 3]), np.array([0, 0, 1, 2, 1, 255], dtype=np.uint8)
    assert unlearned_note(list("abcd"), classes, parts) == ["labels: no training document bears c, which 2 held-out documents bear"]
    assert not unlearned_note(list("abcd"), classes, np.zeros_like(parts))
