"""Who teaches a stage, and what of that is part of its identity."""

import pytest
from pydantic import ValidationError

from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from tasks.store.fingerprint import fingerprint
from tasks.training.identity import stage_identity, teachers_of

LINEAGE = ["root", "first", "second"]


def stage(teachers: object, **student: object) -> tuple[Ladder, Stage]:
    ladder = load("digits").ladder
    last = ladder.stages[-1]
    changed = Stage.model_validate(last.model_dump() | {"teachers": teachers, "student": last.student.model_dump() | student})
    return ladder, changed


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (["parent"], ("second",)),
        (["root"], ("root",)),
        (["root", "parent"], ("second", "root")),
        (["ancestors"], ("second", "first", "root")),
        ("ancestors", ("second", "first", "root")),
        ("rising", ("second", "first", "root")),
        ("checkpoints", ("root",)),
        ("none", ()),
    ],
)
def test_the_choice_of_teachers_nearest_first(choice: object, expected: tuple[str, ...]) -> None:
    _, chosen = stage(choice)
    assert teachers_of(chosen, LINEAGE) == expected
    assert teachers_of(chosen, ["root"]) == (() if choice == "none" else ("root",))


@pytest.mark.parametrize("choice", [["parent", "root"], ["grandparent"], [], ["root", "root"], 3])
def test_any_other_choice_is_refused(choice: object) -> None:
    allowed = r"allowed: \[parent\], \[root\], \[root, parent\], ancestors, rising, checkpoints, best or none\. Choose one of them\."
    with pytest.raises(ValidationError, match=allowed):
        stage(choice)


def hashed(choice: object, teachers: tuple[str, ...], parent: str | None = "b", **student: object) -> str:
    return fingerprint(stage_identity(*stage(choice, **student), "fp32", "data", teachers, parent))


def test_the_identity_holds_the_teachers_weights_in_order_and_not_what_they_are_called() -> None:
    assert hashed(["root"], ("b",)) == hashed(["parent"], ("b",)) == hashed("ancestors", ("b",))
    assert len({hashed("ancestors", each) for each in (("b",), ("b", "a"), ("a", "b"), ("c", "b"))}) == 4


def test_a_parent_that_does_not_teach_counts_where_first_weights_are_made_from_it() -> None:
    assert hashed(["root"], ("a",), "b") == hashed(["root"], ("a",), "c")
    assert hashed(["root"], ("a",), "b", initialisation="layers") != hashed(["root"], ("a",), "c", initialisation="layers")
    assert hashed(["parent"], ("b",), "b", initialisation="layers") == hashed(["parent"], ("b",), None, initialisation="layers")


def test_a_student_without_a_teacher_has_no_features_and_no_cached_answers() -> None:
    ladder = load("digits").ladder
    for change in ({"objective": {"features": [{"kind": "hidden"}]}}, {"signals": {"source": "cached"}}):
        bad = ladder.model_dump(mode="json")
        bad["stages"][1] |= change | {"teachers": ["none"]}
        with pytest.raises(ValidationError, match=r"stages\[1\]\.teachers: got 'none'; allowed: a teacher"):
            Ladder.model_validate(bad)
