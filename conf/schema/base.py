"""Base of all settings: frozen models whose fields have a description and a unit."""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from conf.errors import shown

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"  # of stages and of further held-out data


def setting(
    default: Any, text: str, unit: str = "", *, identity: bool = True, added: bool = False, allowed: str = "", **bounds: Any
) -> Any:
    """A field with its description, its unit (empty: a name, a switch or a pure number) and whether it enters fingerprints.

    A field `added` later is left out of fingerprints while it has its default, which does as before: earlier results stay valid.
    `allowed` describes a `pattern` in words.
    """
    described = f"{text} [{unit}]" if unit else text
    extra: dict[str, Any] = {"unit": unit, "identity": identity, "added": added}
    if allowed:
        extra["allowed"] = allowed
    return Field(default, description=described, json_schema_extra=extra, **bounds)


MOST_LETTERS, MOST_ITEMS = 100_000, 10_000
NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def beyond_limits(value: Any) -> str | None:
    """Description of the limit that a text or a collection exceeds, in size or by characters that are no text; else None."""
    if isinstance(value, str) and (len(value) > MOST_LETTERS or NOT_TEXT.search(value)):
        return f"at most {MOST_LETTERS:,} letters, without control characters and halves of letters"
    if isinstance(value, list | tuple | dict) and len(value) > MOST_ITEMS:
        return f"at most {MOST_ITEMS:,} items"
    items = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else ()
    return next((found for item in items if (found := beyond_limits(item))), None)


class Settings(BaseModel):
    """Base of all settings: frozen, without unknown keys, infinite numbers, endless texts, or booleans in place of numbers."""

    # An infinite or undefined number has no place in a setting, nor in the JSON of an identity.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _within_limits(cls, value: Any) -> Any:
        """Refuse texts and lists that no setting needs, whatever the field."""
        wrong = {name: found for name in value if (found := beyond_limits(value[name]))} if isinstance(value, dict) else {}
        if wrong:
            details = [
                InitErrorDetails(
                    type=PydanticCustomError(
                        "value_error", "{words}", {"words": f"got {shown(value[name], 100)}; allowed: {found}. Shorten or correct it."}
                    ),
                    loc=(name,),
                    input=None,
                )
                for name, found in wrong.items()
            ]
            raise ValidationError.from_exception_data(cls.__name__, details)
        return value

    @model_validator(mode="before")
    @classmethod
    def _switch_is_no_number(cls, value: Any) -> Any:
        """Refuse `true` where pydantic would read it as 1."""
        fields = {name: cls.model_fields[name].annotation for name in value if name in cls.model_fields} if isinstance(value, dict) else {}
        error = PydanticCustomError("switch", "a switch where another value belongs")
        wrong = [name for name, kind in fields.items() if isinstance(value[name], bool) and not _takes_switch(kind)]
        if wrong:
            details = [InitErrorDetails(type=error, loc=(name,), input=value[name]) for name in wrong]
            raise ValidationError.from_exception_data(cls.__name__, details)
        return value


def _takes_switch(kind: Any) -> bool:
    return bool in (kind, *get_args(kind)) or any(isinstance(value, bool) for value in get_args(kind))


def is_unset(model: BaseModel, name: str) -> bool:
    """Whether a field was added later and has its default."""
    field = type(model).model_fields[name]
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("added") is True and getattr(model, name) == field.default


class Choices:
    """Writes alternatives as `anyOf` in the JSON schema: the forms of the Prefect UI show those, and leave `oneOf` blank."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        schema.pop("discriminator", None)
        alternatives = schema.pop("oneOf")
        return {**schema, "anyOf": alternatives}
