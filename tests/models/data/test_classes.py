"""Which class of the teacher each label of the data is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from models.data.classes import classes_in, match_classes

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
        (("cafe\u0301", "\u2764"), ("\u2764\ufe0f", "caf\u00e9"), False, ("\u2764\ufe0f", "caf\u00e9"), [1, 0]),
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
        (("0", "1", "2"), ("1", "2", "3"), False),  # a 1 is a name of the teacher's, and another place
        (("LABEL_1", "LABEL_2"), ("LABEL_0", "LABEL_1"), False),
    ],
)
def test_what_stays_ambiguous_is_refused_with_both_lists(ours: tuple[str, ...], theirs: tuple[str, ...], numbered: bool) -> None:
    with pytest.raises(UserError) as caught:
        match_classes(ours, theirs, numbered=numbered)
    assert ", ".join(ours) in str(caught.value)
    assert ", ".join(theirs) in str(caught.value)
    assert "teacher.classes" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"id2label": {"10": "k", "2": "c", **{str(n): f"x{n}" for n in (0, 1, *range(3, 10))}}}, ("x0", "x1", "c", "x3")),
        ({"label2id": {"neg": 1, "pos": 0}}, ("pos", "neg")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"neg": 1, "pos": 0}}, ("pos", "neg")),
        ({"id2label": {"0": "pos", "1": "neg"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ("pos", "neg")),
        ({"label2id": {"neg": 1, "pos": 1}}, ("LABEL_0", "LABEL_1")),
        ({}, ("LABEL_0", "LABEL_1")),
    ],
)
def test_classes_of_a_checkpoint(tmp_path: Path, config: dict[str, Any], names: tuple[str, ...]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert classes_in(tmp_path)[:4] == names


def test_two_orders_of_the_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "neg", "1": "pos"}, "label2id": {"neg": 1, "pos": 0}}))
    with pytest.raises(UserError, match=r"id2label neg, pos and label2id pos, neg'; allowed: one order.*teacher\.classes"):
        classes_in(tmp_path)
