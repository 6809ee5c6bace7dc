"""`ladder explain`: describe settings from the schema."""

from __future__ import annotations

import re

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from conf.errors import UserError
from conf.loading.introspect import allowed, classes, elsewhere, suggest
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import Schedule
from conf.schema.stage.stage import Stage


def explain_key(key: str) -> str:
    """Describe a setting and, where it has parts, each of them in a line.

    Args:
        key: Dotted, such as `stages.objective.alpha` or `stages[1].objective.alpha`; `stages.alpha` and `alpha` are written out. Empty:
            the whole ladder.

    Raises:
        UserError: There is no such setting.
    """
    models: list[type[BaseModel]] = [Ladder]
    field: FieldInfo | None = None
    given = [part for part in re.sub(r"\[[^\]]*\]", "", key).split(".") if part]
    parts, *others = _written_out(given)
    if parts != given:
        key = ".".join(parts)
    if parts[:1] == ["defaults"]:
        parts[0] = "stages"  # defaults have the settings of a stage
    for depth, part in enumerate(parts):
        fields = {name: model.model_fields[name] for model in models for name in model.model_fields}
        if part not in fields:
            if parts[depth - 1 : depth] == ["stages"] and not suggest(part, fields):
                continue  # a stage's name
            above = ".".join(parts[:depth]) or "a ladder"
            if not fields:
                raise UserError.about("KEY", key, above, "That setting has no parts.")
            raise UserError.about("KEY", key, f"a setting of {above}: {', '.join(fields)}", suggest(part, fields).strip())
        field = fields[part]
        models = classes(field.annotation)
    lines = [_line(key, field)] if field is not None else [Ladder.__doc__ or ""]
    lines += [f"Also a setting: {'.'.join(other)}" for other in others]
    for model in models:
        lines += ["", f"{model.__name__}: {(model.__doc__ or '').splitlines()[0]}"]
        lines += [f"  {_line(name, inner)}" for name, inner in model.model_fields.items()]
    return "\n".join(lines)


def _line(name: str, field: FieldInfo) -> str:
    facts = [_type(field), _default(field)]
    return f"{name}: {field.description} ({'; '.join(facts)})"


def _type(field: FieldInfo) -> str:
    parts = [model.__name__ for model in classes(field.annotation) if not issubclass(model, Schedule)]
    if not parts:
        return allowed(field)
    return f"a list of {parts[0]}" if getattr(field.annotation, "__origin__", None) is tuple else " or ".join(parts)


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        values = field.default.model_dump(exclude_none=True)
        return f"default {values.get('start', values) if 'start' in values else values}"
    return "default none" if field.default is None else f"default {field.default!r}"


def _written_out(parts: list[str]) -> list[list[str]]:
    """The key with what was left out of its beginning: `alpha`, `stages.alpha` -> `stages.objective.alpha`; several where there are."""
    rest = parts[1:] if parts[:1] in (["stages"], ["defaults"]) else parts
    known = Stage.model_fields if rest is not parts else Ladder.model_fields
    if not rest or rest[0] in known or (rest is not parts and rest[1:] and rest[1] in known):  # the latter after a stage's name
        return [parts]
    found = [key.split(".") for key in elsewhere(Ladder, rest[0]) if rest is parts or key.startswith("defaults.")]
    return [[*(parts[: len(parts) - len(rest)] or key[:1]), *key[1:], *rest[1:]] for key in found] or [parts]
