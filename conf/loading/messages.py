"""Turn pydantic's errors into messages with key, value, allowed values, remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from conf.errors import UserError
from conf.loading.introspect import (
    allowed,
    allowed_item,
    at,
    class_at,
    classes,
    elsewhere,
    field_at,
    nearest,
    nested_keys,
    options,
    sources,
    suggest,
)
from conf.schema.ladder import Ladder

SHOWN = 100  # characters of a value that a message repeats


def describe(error: ValidationError, plain: Mapping[str, Any], written: Mapping[str, Any]) -> str:
    """One line for each mistake.

    Args:
        error: Pydantic's, for `plain`.
        plain: The data, `defaults` merged into every stage.
        written: The data as the user wrote them, `defaults` apart: a mistake there is reported once, under its own key.
    """
    details = [dict(detail) for detail in error.errors()]
    # A list without a valid stage also counts as empty; the stages' own mistakes suffice.
    wanted = [d for d in details if not (d["type"] == "too_short" and d["input"] and len(details) > 1)]
    lines = dict.fromkeys(_line(detail, plain, written) for detail in wanted)
    return "\n".join("".join(letter if letter.isprintable() else "?" for letter in line) for line in lines)


def _line(detail: dict[str, Any], plain: Mapping[str, Any], written: Mapping[str, Any]) -> str:
    parts = _parts(detail["loc"], plain)
    key, kind = _dotted(_origin(parts, written)), detail["type"]
    explained = f"`ladder explain {_topic(parts)}` describes it." if parts else ""
    if kind == "extra_forbidden":
        model = class_at(Ladder, parts[:-1], plain)
        names = list(model.model_fields) if model else []
        topic = f" {_topic(parts[:-1])}" if _topic(parts[:-1]) else ""
        hint = _misplaced(parts, names) or suggest(str(parts[-1]), names)
        remedy = f"{hint}`ladder explain{topic}` describes them."
        return f"{key}: unknown key, with the value {_shown(detail['input'])}; allowed: {', '.join(names)}. {remedy}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_source(detail, parts)
    field = field_at(Ladder, parts, plain)
    words = "a mapping with name, data, teacher and stages"
    if field:
        words = allowed_item(field) if isinstance(parts[-1], int) else allowed(field)
    if kind == "missing":
        return f"{key}: missing, and it has no default; allowed: {words}. {explained}"
    if kind == "value_error":
        message = str(detail["msg"]).removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    hint = suggest(str(detail["input"]), options(field.annotation)) if field else ""
    return f"{key}: got {_shown(detail['input'])}; allowed: {words}. {hint}{explained}"


def _misplaced(parts: Sequence[Any], names: list[str]) -> str:
    """Keys of stages and teacher whose last part is an unknown one at the top, or more like it than all of `names`, those of the top."""
    if len(parts) != 1:
        return ""
    meant = nearest(str(parts[0]), [*names, *(key.rpartition(".")[2] for key in nested_keys(Ladder))])
    found = elsewhere(Ladder, meant)[:3] if meant and meant not in names else []
    return f"Did you mean {' or '.join(map(repr, found))}? " if found else ""


def _wrong_source(detail: dict[str, Any], parts: list[Any]) -> str:
    field = field_at(Ladder, parts, {})
    assert field is not None
    names = sources(classes(field.annotation))
    key = f"{_dotted(parts)}.source"
    value = detail["input"].get("source") if isinstance(detail["input"], dict) else detail["input"]
    remedy = f"{suggest(str(value), names)}`ladder explain {key}` describes it."
    return str(UserError.about(key, value, f"one of {', '.join(names)}", remedy))


def _parts(location: Sequence[Any], plain: Mapping[str, Any]) -> list[Any]:
    """The path that the user knows: without the name of a union's member, and without the `start` that a bare number stands for."""
    parts = list(location)
    if len(parts) > 1 and parts[0] in ("data", "teacher") and parts[1] == at(plain, [parts[0], "source"]):
        del parts[1]
    if parts and parts[-1] == "start" and not isinstance(at(plain, parts[:-1]), dict):
        del parts[-1]
    return parts


def _origin(parts: list[Any], written: Mapping[str, Any]) -> list[Any]:
    """`defaults...` for settings that a stage took over from there."""
    if len(parts) > 2 and parts[0] == "stages" and not _has(written, parts) and _has(written, ["defaults", *parts[2:]]):
        return ["defaults", *parts[2:]]
    return parts


def _has(value: Any, parts: Sequence[Any]) -> bool:
    above = at(value, parts[:-1])
    return parts[-1] in above if isinstance(above, dict) else False


def _dotted(parts: Sequence[Any]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).removeprefix(".")


def _topic(parts: Sequence[Any]) -> str:
    """The key as `ladder explain` takes it: without indices."""
    return ".".join(str(p) for p in parts if not isinstance(p, int))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
