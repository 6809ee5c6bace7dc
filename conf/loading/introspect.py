"""Look up classes and fields of settings, and describe their allowed values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from conf.schema.stage.objective import Schedule


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like a word; None: none is like it."""
    return next(iter(difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)), None)


def suggest(word: str, choices: Iterable[str]) -> str:
    """`Did you mean 'x'? ` or nothing."""
    close = nearest(word, choices)
    return f"Did you mean {close!r}? " if close else ""


def classes(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes in a type, such as those of a union or a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in classes(inner)]


def member(model: type[BaseModel] | None, key: str, value: Any = None) -> type[BaseModel] | None:
    """The settings class of field `key`; of a union, the one that `value['source']` names, else the first."""
    if model is None or key not in model.model_fields:
        return None
    found = classes(model.model_fields[key].annotation)
    if isinstance(value, dict) and "source" in value:
        found = [c for c in found if "source" in c.model_fields and c.model_fields["source"].default == value["source"]] or found
    return found[0] if found else None


def nested_keys(root: type[BaseModel]) -> list[str]:
    """Dotted keys below `defaults` and `teacher`, the shortest first."""
    found: list[str] = []

    def walk(prefix: str, models: Sequence[type[BaseModel]], depth: int) -> None:
        for model in models:
            for name, field in model.model_fields.items():
                key = f"{prefix}.{name}"
                if key not in found:
                    found.append(key)
                if depth:
                    walk(key, classes(field.annotation), depth - 1)

    for prefix, name in (("defaults", "stages"), ("teacher", "teacher")):
        walk(prefix, classes(root.model_fields[name].annotation), 1)
    return sorted(found, key=lambda key: key.count("."))


def elsewhere(root: type[BaseModel], word: str) -> list[str]:
    """Those of `nested_keys` whose last part is `word`: a setting given at the wrong place."""
    return [key for key in nested_keys(root) if key.rpartition(".")[2] == word]


def at(value: Any, parts: Iterable[Any]) -> Any:
    """The value at a path of keys and indices in plain data; None where there is none."""
    for part in parts:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def class_at(root: type[BaseModel], parts: Sequence[Any], plain: Any) -> type[BaseModel] | None:
    """The settings class at a path of keys and indices; `plain`, the data, decides between the members of a union."""
    model: type[BaseModel] | None = root
    for depth, part in enumerate(parts):
        if not isinstance(part, int):
            model = member(model, str(part), at(plain, parts[: depth + 1]))
    return model


def field_at(root: type[BaseModel], parts: Sequence[Any], plain: Any) -> FieldInfo | None:
    """The field at a path of keys and indices."""
    names = [part for part in parts if not isinstance(part, int)]
    if not names:
        return None
    last = len(parts) - 1 - [isinstance(part, str) for part in reversed(parts)].index(True)
    model = class_at(root, parts[:last], plain)
    return model.model_fields.get(names[-1]) if model else None


def options(annotation: Any) -> list[str]:
    """The values of a field that allows a few words; empty for any other field."""
    found = [value for value in get_args(annotation) if isinstance(value, str)]
    return found or [value for inner in get_args(annotation) for value in options(inner)]


def allowed_item(field: FieldInfo) -> str:
    """Text of the values that an item of a list allows."""
    settings = classes(field.annotation)
    if words := options(field.annotation):
        return _either(words)
    return mapping_of(settings) if settings else "text"


def allowed(field: FieldInfo) -> str:
    """Text of the values that a field allows: `a number in [0, 1]`, `a whole number, at least 1, or none`, `constant or cosine`."""
    extra = field.json_schema_extra
    given = extra.get("allowed") if isinstance(extra, dict) else None
    words = str(given) if given else _allowed(field)
    return f"{words}, or none" if NoneType in get_args(field.annotation) else words


def _allowed(field: FieldInfo) -> str:
    inner = [part for part in get_args(field.annotation) if part is not NoneType] or [field.annotation]
    kind = inner[0] if NoneType in get_args(field.annotation) or not get_args(field.annotation) else field.annotation
    settings = classes(kind)
    if getattr(kind, "__origin__", None) is tuple:
        what = "settings" if settings else "texts"
        return f"a list of {what}{_bounds(field)}"
    if settings and issubclass(settings[0], Schedule):
        return f"{allowed(settings[0].model_fields['start'])}, or {{kind: cosine, start: ..., end: ...}}"
    if settings:
        return mapping_of(settings)
    if words := options(kind):
        return _either(words)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(kind, str(kind)) + _bounds(field)


def mapping_of(settings: list[type[BaseModel]]) -> str:
    """Text of the values that a mapping of settings allows: the keys of one class, or the sources of a union."""
    if len(settings) > 1:
        return f"a mapping with source: {_either(sources(settings))}"
    return f"a mapping with {', '.join(settings[0].model_fields)}"


def sources(settings: list[type[BaseModel]]) -> list[str]:
    """The values of `source` that tell the members of a union apart."""
    return [model.model_fields["source"].default for model in settings]


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _bounds(field: FieldInfo) -> str:
    rules: dict[str, Any] = {}
    for meta in field.metadata:
        for rule in ("ge", "gt", "le", "lt", "min_length", "max_length"):
            if getattr(meta, rule, None) is not None:
                rules[rule] = getattr(meta, rule)
    if "lt" in rules and int in (field.annotation, *get_args(field.annotation)):
        rules["le"] = rules.pop("lt") - 1
    if "max_length" in rules:
        return f", {rules.get('min_length', 0)} to {rules['max_length']:,} of them"
    if "min_length" in rules:
        return ", not empty"
    low = next(((sign, rules[rule]) for rule, sign in (("ge", "["), ("gt", "(")) if rule in rules), None)
    high = next(((sign, rules[rule]) for rule, sign in (("le", "]"), ("lt", ")")) if rule in rules), None)
    if low and high:
        ends = [f"{end[1]:g}" if isinstance(end[1], float) else str(end[1]) for end in (low, high)]
        return f" in {low[0]}{ends[0]}, {ends[1]}{high[0]}"
    if low:
        return f", at least {low[1]}" if low[0] == "[" else f" above {low[1]}"
    if high:
        return f", at most {high[1]}" if high[0] == "]" else f" below {high[1]}"
    return ""
