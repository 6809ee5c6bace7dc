"""Identity: what changes a number changes the fingerprint, and nothing else does."""

from __future__ import annotations

import datetime
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from conf.schema.teacher import TrainedTeacher
from tasks.store.fingerprint import canonical, changes, fingerprint
from tasks.training.identity import numeric_settings, stage_identity, teacher_identity

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DATA, TEACHERS = "d" * 64, ("t" * 64,)

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=12
)
identities = st.dictionaries(st.text(max_size=5), trees, max_size=5)


def shuffled(value: Any, seed: int) -> Any:
    """The same tree with its keys in another order."""
    if isinstance(value, dict):
        names = list(value)
        random.Random(seed).shuffle(names)
        return {name: shuffled(value[name], seed) for name in names}
    return [shuffled(item, seed) for item in value] if isinstance(value, list) else value


@QUICK
@given(identities, st.integers(0, 100))
def test_the_order_of_keys_does_not_matter(identity: dict[str, Any], seed: int) -> None:
    assert fingerprint(shuffled(identity, seed)) == fingerprint(identity)


@QUICK
@given(identities)
def test_an_identity_survives_json(identity: dict[str, Any]) -> None:
    assert fingerprint(json.loads(json.dumps(identity))) == fingerprint(identity)


@QUICK
@given(st.integers(-(2**52), 2**52))
def test_an_integer_equals_its_float(number: int) -> None:
    assert fingerprint({"x": number}) == fingerprint({"x": float(number)})


@QUICK
@given(identities, identities)
def test_different_identities_differ(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (
        json.dumps(canonical(one), sort_keys=True) == json.dumps(canonical(other), sort_keys=True)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [(0.1, 0.1 + 1e-18), (-0.0, 0), (1e15, 10**15), ((1, 2), [1, 2])],
)
def test_the_same_number_in_another_dress(one: Any, other: Any) -> None:
    assert fingerprint({"x": one}) == fingerprint({"x": other})


@pytest.mark.parametrize(
    ("one", "other"), [(True, 1), (False, 0), (None, 0), ("1", 1), (1.5, 1), (0.1, 0.1 + 1e-16), ("", None), ([], None), ([1], 1)]
)
def test_values_that_are_not_the_same(one: Any, other: Any) -> None:
    assert fingerprint({"x": one}) != fingerprint({"x": other})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_write_is_refused(number: float) -> None:
    with pytest.raises(TypeError, match=r"^identity\.a\[1\]\.b is (nan|-?inf), which JSON cannot write"):
        fingerprint({"a": [0, {"b": number}]})


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, b"x", datetime.date(2026, 1, 1), np.float32(1), object(), len])
def test_a_type_without_identity_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=rf"^identity\.here is a {type(value).__name__}, which has no stable identity; pass"):
        fingerprint({"here": value})


def test_keys_are_strings() -> None:
    with pytest.raises(TypeError, match=r"^identity\.x has the key 1; keys must be strings"):
        fingerprint({"x": {1: 2}})


def digits(**overrides: Any) -> Ladder:
    return load("digits", [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]).ladder


def stage_mark(ladder: Ladder, **changed: Any) -> str:
    given = {"precision": "fp32", "data": DATA, "teachers": TEACHERS, **changed}
    return fingerprint(stage_identity(ladder, ladder.stages[0], **given))


def replaced(model: BaseModel, path: tuple[str, ...], value: Any) -> Any:
    """A copy with one field, at any depth, changed and nothing validated."""
    name, rest = path[0], path[1:]
    return model.model_copy(update={name: replaced(getattr(model, name), rest, value) if rest else value})


def numeric_paths(model: BaseModel, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, field in type(model).model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        value = getattr(model, name)
        if extra["identity"] is False:
            continue
        found += numeric_paths(value, (*prefix, name)) if isinstance(value, BaseModel) else [(*prefix, name)]
    return found


def other(value: Any) -> Any:
    """A value unlike `value`, of its kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "other" if isinstance(value, str) else 12345


STAGE = digits().stages[0]


@pytest.mark.parametrize("path", numeric_paths(STAGE), ids=".".join)
def test_any_setting_that_counts_changes_the_stage(path: tuple[str, ...]) -> None:
    ladder = digits()
    stage = ladder.stages[0]
    value: Any = stage
    for name in path:
        value = getattr(value, name)
    changed = replaced(stage, path, other(value))
    before = stage_identity(ladder, stage, "fp32", DATA, TEACHERS)
    after = stage_identity(ladder, changed, "fp32", DATA, TEACHERS)
    if path in {("training", "validate_every"), ("training", "precision")}:
        assert fingerprint(before) == fingerprint(after)  # it only watches; and the resolved precision is what counts
    else:
        assert fingerprint(before) != fingerprint(after)
        assert changes(before, after)


def test_the_paths_that_count() -> None:
    paths = {".".join(path) for path in numeric_paths(STAGE)}
    assert {"seed", "student.shape.hidden_size", "student.initialisation", "objective.alpha.start", "training.steps"} <= paths
    assert not {path for path in paths if path.startswith(("name", "notes", "gate")) or path == "training.checkpoint_every"}


@pytest.mark.parametrize(
    "overrides",
    [
        {"name": "renamed"},
        {"description": "more words"},
        {"stages[0]__name": "other"},
        {"stages[0]__notes": "more words"},
        {"stages[0]__training__checkpoint_every": 7},
        {"stages[0]__training__validate_every": 7},
        {"stages[0]__gate": "{max_parameters: 1, policy: warn}"},
        {"compute__threads": 1},
        {"compute__device": "cpu"},
        {"evaluation__examples": 7},
        {"evaluation__batch_size": 7},
        {"stages[1]__training__steps": 7},
        {"stages[2]__objective__alpha": 0.1},
        {"teacher__training__steps": 7},
        {"data__valid_fraction": 0.1},  # it counts by the content of the data, which has a hash of its own
    ],
    ids=str,
)
def test_what_does_not_count_for_a_stage(overrides: dict[str, Any]) -> None:
    assert stage_mark(digits(**overrides)) == stage_mark(digits())


@pytest.mark.parametrize(
    "overrides", [{"seed": 1}, {"stages[0]__seed": 1}, {"stages[0]__objective__alpha": 0.1}, {"defaults__training__steps": 3}]
)
def test_what_counts_for_a_stage(overrides: dict[str, Any]) -> None:
    assert stage_mark(digits(**overrides)) != stage_mark(digits())


def test_a_seed_of_its_own_that_is_the_ladders_is_the_same() -> None:
    assert stage_mark(digits(**{"stages[0]__seed": 0})) == stage_mark(digits())


def test_data_teachers_and_precision_count() -> None:
    ladder = digits()
    fingerprints = [
        stage_mark(ladder),
        stage_mark(ladder, data="e" * 64),
        stage_mark(ladder, teachers=("u" * 64,)),
        stage_mark(ladder, teachers=(*TEACHERS, "u" * 64)),
        stage_mark(ladder, precision="bf16"),
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_with_patience_validation_counts() -> None:
    patient = {"stages[0]__training__patience": 2}
    for more in ({"stages[0]__training__validate_every": 7}, {"evaluation__examples": 7}):
        assert stage_mark(digits(**patient)) != stage_mark(digits(**patient, **more))


def test_the_teachers_identity() -> None:
    def hashed(**overrides: Any) -> str:
        ladder = digits(**overrides)
        assert isinstance(ladder.teacher, TrainedTeacher)
        return fingerprint(teacher_identity(ladder, ladder.teacher, "fp32", DATA))

    for same in ({"name": "x"}, {"defaults__training__steps": 3}, {"teacher__training__checkpoint_every": 3}, {"stages[0]__seed": 4}):
        assert hashed(**same) == hashed()
    for different in ({"seed": 1}, {"teacher__training__steps": 3}, {"teacher__shape__layers": 3}, {"teacher__training__beta2": 0.9}):
        assert hashed(**different) != hashed()


def test_a_stage_never_equals_a_teacher() -> None:
    ladder = digits()
    assert isinstance(ladder.teacher, TrainedTeacher)
    kinds = {
        stage_identity(ladder, ladder.stages[0], "fp32", DATA, ())["kind"],
        teacher_identity(ladder, ladder.teacher, "fp32", DATA)["kind"],
    }
    assert kinds == {"stage", "teacher"}


def test_numeric_settings_are_plain_json() -> None:
    for stage in digits().stages:
        plain = numeric_settings(stage)
        assert json.loads(json.dumps(plain)) == plain
        assert "gate" not in plain


class TestChanges:
    def test_lines(self) -> None:
        old = {"objective": {"alpha": {"start": 0.9}}, "seed": 1, "data": "a" * 64, "teachers": ["b" * 64], "same": [1, {"x": 2}]}
        new = {
            "objective": {"alpha": {"start": 0.5}},
            "seed": 1.0,
            "data": "c" * 64,
            "teachers": [],
            "same": [1, {"x": 2.0}],
            "added": True,
        }
        assert changes(old, new) == [
            "added: None -> True",
            "data: aaaaaaaaaaaa -> cccccccccccc",
            "objective.alpha.start: 0.9 -> 0.5",
            "teachers: bbbbbbbbbbbb -> none",
        ]

    @QUICK
    @given(identities)
    def test_nothing_changed(self, identity: dict[str, Any]) -> None:
        assert changes(identity, json.loads(json.dumps(identity))) == []

    @QUICK
    @given(identities, identities)
    def test_something_changed(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        kept = (
            {key: value for key, value in old.items() if value is not None},
            {key: value for key, value in new.items() if value is not None},
        )
        if fingerprint(kept[0]) == fingerprint(kept[1]):
            assert changes(*kept) == []

    def test_a_settings_change_is_named_by_its_key(self) -> None:
        one, other = digits(), digits(**{"stages[0]__objective__alpha": 0.5})

        def identity(ladder: Ladder, stage: Stage) -> dict[str, Any]:
            return stage_identity(ladder, stage, "fp32", DATA, TEACHERS)

        start = one.stages[0].objective.alpha.start
        assert changes(identity(one, one.stages[0]), identity(other, other.stages[0])) == [f"objective.alpha.start: {start} -> 0.5"]
