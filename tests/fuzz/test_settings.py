"""Settings with anything in any place are refused in a message, or they are settings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import UserError
from conf.loading.load import load
from conf.loading.yaml_output import to_yaml
from tests.conf.tiny import TINY
from tests.fuzz.tried import tried

ODD: list[Any] = [None, True, "", "x", "\0", "\u2028", "a\x1b[31m", "${name}", "${", "${oc.env:HOME}", "~", "/", "1e400", "!!bool maybe"]
ODD += [
    0,
    -1,
    1,
    2**31,
    2**63,
    10**18,
    10**400,
    0.0,
    0.5,
    1e-300,
    1e300,
    float("inf"),
    float("nan"),
    [],
    {},
    [[]],
    {"a": {}},
    {"source": "x"},
]
ANYTHING = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every part of nested settings."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every setting of a ladder, defaults included."""
    path = tmp_path_factory.mktemp("whole") / "ladder.yaml"
    path.write_text(TINY, encoding="utf-8")
    return yaml.safe_load(to_yaml(load(str(path)).ladder))


def checked(path: Path, overrides: tuple[str, ...] = ()) -> None:
    said = "settings"
    try:
        load(str(path), overrides)
        tried("settings: accepted")
    except UserError as error:
        tried("settings: refused")
        said = str(error)
    assert said
    assert max(map(len, said.splitlines())) < 1500
    assert all(letter.isprintable() or letter == "\n" for letter in said), repr(said)


def test_a_wrong_value_in_any_place(whole: dict[str, Any], tmp_path: Path) -> None:
    @settings(settings.get_profile("fuzz"))
    @given(st.sampled_from(places(whole)[1:]), ANYTHING)
    def anywhere(place: tuple[Any, ...], value: Any) -> None:
        changed = copy.deepcopy(whole)
        holder: Any = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
        checked(tmp_path / "ladder.yaml")

    anywhere()


def test_bytes_changed_anywhere_in_a_file(tmp_path: Path) -> None:
    @settings(settings.get_profile("fuzz"))
    @given(
        st.integers(0, len(TINY)),
        st.integers(0, 5),
        st.binary(max_size=6) | st.text("[]{}:-,&*!|>'\"#%@?\n \t$\\", max_size=6).map(str.encode),
    )
    def bytes_changed(place: int, gone: int, new: bytes) -> None:
        content = TINY.encode()
        (tmp_path / "ladder.yaml").write_bytes(content[:place] + new + content[place + gone :])
        checked(tmp_path / "ladder.yaml")

    bytes_changed()


def test_any_override(tmp_path: Path) -> None:
    (tmp_path / "ladder.yaml").write_text(TINY, encoding="utf-8")

    @settings(settings.get_profile("fuzz"))
    @given(
        st.sampled_from(
            ["seed", "stages[0].training.steps", "stages.small.objective.alpha", "data", "stages", "teacher.shape", "", "a.b", "stages[9]"]
        )
        | st.text(max_size=8),
        st.text(max_size=12) | ANYTHING.map(lambda value: yaml.safe_dump(value, default_flow_style=True)),
    )
    def overridden(key: str, value: str) -> None:
        checked(tmp_path / "ladder.yaml", (f"{key}={value}",))

    overridden()
