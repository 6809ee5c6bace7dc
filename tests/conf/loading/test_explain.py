"""`ladder explain` gives meaning, unit, bounds and default of every setting."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from conf.errors import UserError
from conf.loading.explain import explain_key
from conf.loading.introspect import allowed, classes
from conf.schema.ladder import Ladder


def keys(model: type[BaseModel] = Ladder, prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        found.append(prefix + name)
        for inner in classes(field.annotation):
            found += keys(inner, f"{prefix}{name}.")
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("key", keys())
def test_every_setting_is_explained(key: str) -> None:
    text = explain_key(key)
    first = text.splitlines()[0]
    assert first.startswith(f"{key}: ")
    assert "required" in first or "default " in first
    assert "typing." not in text
    assert "PydanticUndefined" not in text


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("seed", "seed: Seed of data order and initial weights [seed] (a whole number in [0, 2147483647]; default 0)"),
        (
            "stages.objective.alpha.start",
            "stages.objective.alpha.start: Weight of the teacher at the first step [fraction] (a number in [0, 1]; required)",
        ),
        ("stages.training.patience", "(a whole number in [1, 1000000], or none; default none)"),
        ("stages.training.schedule", "(cosine or warmup-stable-decay; default 'cosine')"),
        ("stages.objective.alpha", "(a number in [0, 1], or {kind: cosine, start: ..., end: ...}; default 0.9)"),
        ("stages", "(a list of Stage; required)"),
        ("data", "(StdlibData or DigitsData or FilesData or DatasetData; required)"),
        ("data.paths", "(a list of texts; default ())"),
        ("teacher.shape.tied_embeddings", "(true or false; default True)"),
    ],
)
def test_a_line(key: str, line: str) -> None:
    assert explain_key(key).splitlines()[0].endswith(line)


def test_nothing_asked_is_the_whole_ladder() -> None:
    text = explain_key("")
    assert text.splitlines()[0] == Ladder.__doc__
    for name in Ladder.model_fields:
        assert f"\n  {name}: " in text


@pytest.mark.parametrize(
    "key", ["stages[1].objective.alpha", "stages.100k.objective.alpha", "defaults.objective.alpha", "stages.objective.alpha"]
)
def test_a_key_as_it_is_written_in_a_ladder(key: str) -> None:
    assert "Weight of the teacher" in explain_key(key).splitlines()[0]


@pytest.mark.parametrize(
    ("key", "written_out"),
    [
        ("gate", "defaults.gate"),
        ("gate.policy", "defaults.gate.policy"),
        ("alpha.start", "defaults.objective.alpha.start"),
        ("stages.alpha.start", "stages.objective.alpha.start"),
        ("defaults.steps", "defaults.training.steps"),
        ("stages[0].temperature", "stages.objective.temperature"),
        ("stages.alpha.gate", "stages.alpha.gate"),  # of a stage with this name
        ("stages.alpha.objective.alpha", "stages.alpha.objective.alpha"),
    ],
)
def test_the_beginning_of_a_key_may_be_left_out(key: str, written_out: str) -> None:
    text = explain_key(key)
    assert text.splitlines()[0].startswith(f"{written_out}: ")
    assert "Also a setting" not in text


def test_a_word_with_several_places_names_them() -> None:
    lines = explain_key("training.steps").splitlines()
    assert lines[0].startswith("defaults.training.steps: ")
    assert lines[1] == "Also a setting: teacher.training.steps"


def test_all_members_of_a_union_are_shown() -> None:
    text = explain_key("data")
    for name in ("StdlibData", "DigitsData", "FilesData", "DatasetData"):
        assert f"\n{name}: " in text


@pytest.mark.parametrize(
    ("key", "above", "hint"),
    [
        ("sede", "a ladder", "'seed'"),
        ("stages.objective.alfa", "stages.objective", "'alpha'"),
        ("stages.objectiv.alpha", "stages", "'objective'"),
        ("data.pahts", "data", "'paths'"),
    ],
)
def test_an_unknown_key(key: str, above: str, hint: str) -> None:
    with pytest.raises(UserError, match=rf"^KEY: got '{key}'; allowed: a setting of {above}") as caught:
        explain_key(key)
    assert hint in str(caught.value)


def test_a_plain_setting_has_no_parts() -> None:
    with pytest.raises(UserError, match=r"^KEY: got 'seed\.more'; allowed: seed\. That setting has no parts\.$"):
        explain_key("seed.more")


def test_optional_and_bounded_words() -> None:
    from conf.schema.stage.gate import Gate
    from conf.schema.stage.student import Shape
    from conf.schema.stage.training import Training

    assert allowed(Training.model_fields["warmup"]) == "a number in [0, 1)"
    assert allowed(Training.model_fields["clip"]) == "a number in (0, 1e+06]"
    assert allowed(Gate.model_fields["min_root_retention"]) == "a number in [0, 2], or none"
    assert allowed(Shape.model_fields["family"]) == "llama, bert or vit"
