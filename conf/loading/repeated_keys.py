"""Refuse a YAML mapping that holds a key twice: parsers keep the last alone."""

from __future__ import annotations

import yaml

from conf.errors import UserError


def refuse_repeated_keys(text: str, place: str) -> None:
    """Check every mapping of a YAML text.

    Args:
        text: The text.
        place: The file, as the message names it.

    Raises:
        UserError: Naming the key and its lines.
        YAMLError: It does not parse.
    """
    _check(yaml.compose(text, Loader=yaml.SafeLoader), "", place, set())


def _check(node: yaml.Node | None, path: str, place: str, seen: set[int]) -> None:
    if node is None or id(node) in seen:  # an alias leads to a node that was checked
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check(item, f"{path}[{index}]", place, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            dotted, line = f"{path}.{name}".removeprefix("."), key.start_mark.line + 1
            if name in lines:
                found = f"a key that is written twice, in lines {lines[name]} and {line} of {place}"
                raise UserError.about(dotted, found, "each key once in a mapping", "Put the two together: a parser keeps the last alone.")
            lines[name] = line
            _check(value, dotted, place, seen)
