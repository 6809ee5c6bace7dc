"""Which class of the teacher each label of the data is."""

from __future__ import annotations

import pytest

from conf.errors import UserError
from models.data.classes import match_classes

DIGITS = tuple("0123456789")


@pytest.mark.parametrize(
    ("ours", "theirs", "numbered", "names", "places"),
    [
        (("negative", "positive"), ("POSITIVE", "NEGATIVE"), False, ("POSITIVE", "NEGATIVE"), [1, 0]),
        (("bad", "good"), (" Good ", "BAD\n"), False, (" Good ", "BAD\n"), [1, 0]),
        (("A", "a"), ("a", "A"), False, ("a", "A"), [1, 0]),  # what case tells apart is matched exactly
        (("bad", "good"), ("good", "so-so", "bad"), False, ("good", "so-so", "bad"), [2, 0]),  # the data lack a class
        (("0", "1"), ("negative", "positive"), False, ("negative", "positive"), [0, 1]),  # places in id2label
        (("0", "2"), ("LABEL_0", "LABEL_1", "LABEL_2"), False, ("0", "1", "2"), [0, 2]),
        (("1", "2"), ("LABEL_0", "LABEL_1", "LABEL_2"), True, ("0", "1", "2"), [1, 2]),
        (("LABEL_1", "LABEL_0"), ("LABEL_0", "LABEL_1"), False, ("0", "1"), [1, 0]),
        (("ape", "zebra"), ("LABEL_0", "LABEL_1"), False, ("ape", "zebra"), [0, 1]),  # the first of the data is the first of the teacher
        (("1", "2"), ("LABEL_0", "LABEL_1"), False, ("1", "2"), [0, 1]),
        (DIGITS, DIGITS, False, DIGITS, list(range(10))),
    ],
)
def test_classes_are_matched(
    ours: tuple[str, ...], theirs: tuple[str, ...], numbered: bool, names: tuple[str, ...], places: list[int]
) -> None:
    assert match_classes(ours, theirs, numbered=numbered) == (names, places)


@pytest.mark.parametrize(
    ("ours", "theirs", "numbered"),
    [
        (("negative", "positive"), ("LABEL_0", "LABEL_1", "LABEL_2"), False),
        (("1", "2"), ("LABEL_0", "LABEL_1", "LABEL_2"), False),
        (("neg", "pos"), ("NEGATIVE", "POSITIVE"), True),
        (("bad", "good", "new"), ("bad", "good"), False),
        (("1", "2"), ("one star", "two stars"), False),  # may count from 1
        (("0", "1", "2"), ("no", "yes"), False),
        (("-1", "0"), ("no", "yes"), False),
        (("bad", "good"), ("good", "Good"), False),
    ],
)
def test_what_stays_ambiguous_is_refused_with_both_lists(ours: tuple[str, ...], theirs: tuple[str, ...], numbered: bool) -> None:
    with pytest.raises(UserError) as caught:
        match_classes(ours, theirs, numbered=numbered)
    assert ", ".join(ours) in str(caught.value)
    assert ", ".join(theirs) in str(caught.value)
    assert "teacher.classes" in str(caught.value)
