"""Rooms stay small, modules say what they do in one line, and a class name has one meaning."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

from benchmarks.rooms import circles, read

ROOT = Path(__file__).parents[1]
LAYERS = ("flows", "tasks", "models", "conf")
MOST_FILES = 13  # of a room; more, and a newcomer no longer finds the place of a change
LINE = 80  # characters of a module's first line


@cache
def modules() -> dict[Path, ast.Module]:
    return {path.relative_to(ROOT): ast.parse(path.read_text()) for layer in LAYERS for path in (ROOT / layer).rglob("*.py")}


def test_neither_modules_nor_rooms_import_one_another_in_a_circle() -> None:
    house = read(ROOT)
    assert len(house.rooms) > 100
    assert circles(house.modules) == []
    assert circles(set(house.rooms)) == []
    back = {(other, one) for one, other in house.rooms if (one, other) == ("tasks.store", "conf")}
    assert circles(set(house.rooms) | back), "a circle would be seen"


def files() -> dict[Path, ast.Module]:
    return {path: tree for path, tree in modules().items() if path.name != "__init__.py"}


def test_a_room_holds_few_files() -> None:
    rooms = Counter(path.parent.as_posix() for path in files())
    assert len(rooms) > 25
    assert {room: count for room, count in rooms.items() if count > MOST_FILES} == {}


def test_the_first_line_of_a_module_is_one_short_sentence() -> None:
    first = {path.as_posix(): (ast.get_docstring(tree) or "").partition("\n")[0] for path, tree in files().items()}
    assert {path: line for path, line in first.items() if not 0 < len(line) <= LINE or not line.endswith((".", "?"))} == {}


def test_a_class_name_has_one_meaning() -> None:
    places = defaultdict(list)
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path.as_posix())
    assert len(places) > 150
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
