"""YAML within limits: each kind of wrong file is one message, at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.loading.deployments import load_deployments
from conf.loading.introspect import classes
from conf.loading.load import load
from conf.schema.base import MOST_LETTERS
from conf.schema.ladder import Ladder
from tests.conf.tiny import TINY, refused, write

ALIASES = "\n".join(["l0: &l0 [x, x, x, x]", *(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 10))])
TEXTS = "\n".join(["v0: xxxxxxxxxx", *(f"v{i}: '{''.join([f'${{v{i - 1}}}'] * 10)}'" for i in range(1, 10))])
LISTS = "\n".join(["v0: [x, x]", *(f"v{i}: [{', '.join([repr(f'${{v{i - 1}}}')] * 10)}]" for i in range(1, 9))])
BESIDE = "\n".join(["w: {", *(f"  v{i}: '{''.join([f'${{.v{i - 1}}}'] * 10) if i else 'x' * 10}'," for i in range(10)), "}"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x: !!bool maybe", "a readable YAML file of settings"),
        ("x: !!timestamp x", "a readable YAML file of settings"),
        ("x: !!int x", "a readable YAML file of settings"),
        ("x: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("x: " + "[" * 60 + "]" * 60, "at most 50 levels of nesting"),
        ("x: " + "[" * 5000, "at most 50 levels of nesting"),
        ("x: " + "{a: " * 5000, "at most 50 levels of nesting"),
        (ALIASES, "aliases that stand for at most 1,000,000 letters and values"),
        ("x: &a [*a]", "aliases that stand for"),
        (TEXTS, "interpolations that stand for at most 1,000,000 letters and values"),
        (LISTS, "interpolations that stand for"),
        (BESIDE, "interpolations that stand for"),
        ("x: [" + "1," * 10_000 + "]", "at most 10,000 keys and values"),
        ("x: " + "y" * 1_000_000, "at most 1,000,000 bytes"),
        ('"a\\x01b": 1', "keys of at most 200 letters without control characters"),
        ('"a\\u2028b": 1', "without control characters"),
        ("? [a, b]\n: 1", "without control characters"),
        ("z" * 201 + ": 1", "keys of at most 200 letters"),
        ("seed: " + "9" * 5000, "Exceeds the limit"),
    ],
)
def test_what_no_ladder_needs_is_refused_at_once(tmp_path: Path, text: str, says: str) -> None:
    began = time.process_time()
    message = refused(write(tmp_path, f"{TINY}\n{text}\n"))
    assert says in message
    assert len(message) < 1000
    assert time.process_time() - began < 5


@pytest.mark.parametrize("text", ['"a\\0b"', '"a\\x1b[31mb"', "x" * (MOST_LETTERS + 1)])
def test_a_text_is_short_and_of_letters(tmp_path: Path, text: str) -> None:
    message = refused(write(tmp_path, f"{TINY}\ndescription: {text}\n"))
    assert message.startswith("description: got ")
    assert "at most 100,000 letters, without control characters" in message
    assert "\x1b" not in message


@pytest.mark.parametrize(
    "value", ["!!bool maybe", "[" * 60 + "]" * 60, "[" * 5000, "9" * 5000, "1e18", ".inf", ".nan", "!!python/name:x ''", "{a: "]
)
def test_overrides_pass_the_same_checks(tmp_path: Path, value: str) -> None:
    assert refused(write(tmp_path, TINY), [f"stages[0].training.steps={value}"]).startswith("stages[0].training.steps: got ")


def test_deployments_too(tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    for text in (ALIASES, "x: " + "[" * 5000, "limit: !!bool maybe", "a: 1\na: 2", "limit: " + "9" * 5000):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"^(--deployments|a): got "):
            load_deployments(path)


def test_interpolations_that_repeat_a_little_are_fine(tmp_path: Path) -> None:
    assert load(write(tmp_path, f"{TINY}\ndescription: ${{name}} ${{stages[0].name}} ${{.name}}\n")).ladder.description == "tiny 100k tiny"


def test_every_number_of_the_settings_has_bounds() -> None:
    seen, without = set(), []

    def look(model: type) -> None:
        if model in seen:
            return
        seen.add(model)
        for name, field in model.model_fields.items():
            rules = {rule for meta in field.metadata for rule in ("ge", "gt", "le", "lt") if getattr(meta, rule, None) is not None}
            kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
            if (int in kinds or float in kinds) and not (rules & {"le", "lt"} and rules & {"ge", "gt"}):
                without.append(f"{model.__name__}.{name}")
            for inner in classes(field.annotation):
                look(inner)

    look(Ladder)
    # Bounds of their own in a validator, and the base of alpha and temperature.
    assert set(without) == {"Audit.thresholds", "Bench.batch_sizes", "Comparison.seeds", "Objective.handover", "TrainedTeacher.keep"}
