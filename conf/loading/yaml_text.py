"""Read a YAML file within limits of size, nesting, repetition and keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from conf.errors import UserError, foreign_errors, shown

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it: ten times faster
LARGEST = 1_000_000  # bytes of a file, and letters and values that aliases and interpolations may make of it
DEEPEST = 50  # levels of nesting
MOST_VALUES = 10_000  # keys and values of a file, each once
LONGEST_KEY = 200  # letters
PATH = re.compile(r"\$\{([\w.\[\]-]+)\}")


def read_yaml_text(path: Path, key: str, example: str) -> str:
    """The text of a YAML file after a check that parsing it is safe and cheap.

    Args:
        path: The file.
        key: What names it in messages, such as `ladder` or `--deployments`.
        example: Remedy that names a file of the right form.

    Raises:
        UserError: It is unreadable, too large, nests too deep, grows by its aliases, or holds a key twice or one that is no text.
    """
    with foreign_errors(key, str(path), "a readable YAML file", f"It does not parse. {example}", "PyYAML"):
        size = path.stat().st_size
        if size > LARGEST:
            raise UserError.about(
                key, f"{path} of {size:,} bytes", f"at most {LARGEST:,} bytes", "Move data out of it into files of their own."
            )
        text = path.read_text(encoding="utf-8-sig")
        check_nesting(text, key, str(path))
        node = yaml.compose(text, Loader=LOADER)
        _check_keys(node, "", str(path), set())
        if _size_of(node, {}) > LARGEST:
            allowed = f"aliases that stand for at most {LARGEST:,} letters and values in all"
            raise UserError.about(key, str(path), allowed, "It repeats itself: write out what is meant.")
    return text


def check_nesting(text: str, key: str, place: str) -> None:
    """Refuse deep nesting and endless lists by the parser's events, one after another: it builds trees by recursion.

    Raises:
        UserError: The text nests too deep, or holds too many values.
        YAMLError: It does not parse.
    """
    depth = values = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        values += isinstance(event, yaml.NodeEvent)
        if values > MOST_VALUES:
            remedy = "A ladder needs a few hundred: name files and patterns in place of long lists."
            raise UserError.about(key, place, f"at most {MOST_VALUES:,} keys and values", remedy)
        if depth > DEEPEST:
            found = f"{place}, line {event.start_mark.line + 1}"
            raise UserError.about(key, found, f"at most {DEEPEST} levels of nesting", "No setting nests so deep: correct its brackets.")


def _check_keys(node: yaml.Node | None, path: str, place: str, seen: set[int]) -> None:
    if node is None or id(node) in seen:  # an alias leads to a node that was checked
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check_keys(item, f"{path}[{index}]", place, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or not key.value.isprintable() or len(key.value) > LONGEST_KEY:
                found = f"{shown(key.value, 60)} as a key in line {line} of {place}"
                allowed = f"keys of at most {LONGEST_KEY} letters without control characters"
                raise UserError.about(path or "keys", found, allowed, "Correct it.")
            name = str(key.value)
            dotted = f"{path}.{name}".removeprefix(".")
            if name in lines:
                found = f"a key that is written twice, in lines {lines[name]} and {line} of {place}"
                raise UserError.about(dotted, found, "each key once in a mapping", "Put the two together: a parser keeps the last alone.")
            lines[name] = line
            _check_keys(value, dotted, place, seen)


def _size_of(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Letters and values of a node with its aliases written out; one that holds itself is endless."""
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = LARGEST + 1  # while it is being counted
        items = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for item in items for part in (item if isinstance(item, tuple) else (item,))]
        own = 1 if isinstance(node, yaml.CollectionNode) else 1 + len(node.value)
        known[id(node)] = min(own + sum(_size_of(part, known) for part in parts), LARGEST + 1)
    return known[id(node)]


def check_growth(plain: Mapping[str, Any], place: str) -> None:
    """Refuse interpolations that stand for so much that writing them out would take all memory and time.

    Args:
        plain: The settings with their interpolations, `${a.b}`, unresolved.
        place: The file.

    Raises:
        UserError: They stand for more than `LARGEST` letters and values.
    """
    known: dict[tuple[Any, ...], int] = {}

    def size(value: Any, path: tuple[Any, ...]) -> int:
        if path in known:
            return known[path]
        known[path] = 0  # while it is being counted: OmegaConf names circles
        total = 1 + (len(value) if isinstance(value, str) else 0)
        if isinstance(value, dict | list):
            total += sum(size(each, (*path, key)) for key, each in (value.items() if isinstance(value, dict) else enumerate(value)))
        elif isinstance(value, str):
            total += sum(target(match[1], path) for match in PATH.finditer(value))
        known[path] = min(total, LARGEST + 1)
        return known[path]

    def target(words: str, path: tuple[Any, ...]) -> int:
        above = len(words) - len(words.lstrip("."))  # `.a` is beside the value, `..a` beside what holds it
        base = path[: len(path) - above] if above else ()
        found: Any = plain
        full = (*base, *(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", words)))
        for key in full:
            if isinstance(found, dict):
                key = key if key in found else str(key)
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                return 0  # OmegaConf names it
        return size(found, full)

    if size(plain, ()) > LARGEST:
        allowed = f"interpolations that stand for at most {LARGEST:,} letters and values in all"
        raise UserError.about("ladder", place, allowed, "It repeats itself: write out what is meant.")
