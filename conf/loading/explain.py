"""`ladder explain`: describe settings from the schema."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from conf.errors import UserError
from conf.loading.introspect import allowed, classes, elsewhere, suggest
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import Schedule


def explain_key(key: str) -> str:
    """Describe a setting and, where it has parts, each of them in a line.

    Args:
        key: Dotted, such as `stages.objective.alpha` or `stages[1].objective.alpha`; empty: the whole ladder.

    Raises:
        UserError: There is no such setting.
    """
    models: list[type[BaseModel]] = [Ladder]
    field: FieldInfo | None = None
    parts = [part for part in re.sub(r"\[[^\]]*\]", "", key).split(".") if part]
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
            raise UserError.about("KEY", key, f"a setting of {above}: {', '.join(fields)}", _near(part, fields, depth))
        field = fields[part]
        models = classes(field.annotation)
    lines = [_line(key, field)] if field is not None else [Ladder.__doc__ or ""]
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


def _near(part: str, fields: Iterable[str], depth: int) -> str:
    """Keys that were meant, perhaps: of a stage or of the teacher where the word stands alone."""
    found = elsewhere(Ladder, part)[:3] if depth == 0 else []
    return f"Did you mean {' or '.join(map(repr, found))}?" if found else suggest(part, fields).strip()
