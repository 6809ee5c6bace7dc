"""Base of all settings: frozen models whose fields have a description and a unit."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"  # of stages and of further held-out data


def setting(
    default: Any, text: str, unit: str = "", *, identity: bool = True, added: bool = False, allowed: str = "", **bounds: Any
) -> Any:
    """A field with its description, its unit (empty: a name, a switch or a pure number) and whether it enters fingerprints.

    A field `added` later is left out of fingerprints while it has its default, which does as before: what was computed stays valid.
    `allowed` describes what a `pattern` allows.
    """
    described = f"{text} [{unit}]" if unit else text
    extra: dict[str, Any] = {"unit": unit, "identity": identity, "added": added}
    if allowed:
        extra["allowed"] = allowed
    return Field(default, description=described, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """Base of all settings: frozen, without unknown keys, infinite numbers, or booleans in place of numbers."""

    # An infinite or undefined number has no place in a setting, nor in the JSON of an identity.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _switch_is_no_number(cls, value: Any) -> Any:
        """Refuse `true` where pydantic would read it as 1."""
        fields = {name: cls.model_fields[name].annotation for name in value if name in cls.model_fields} if isinstance(value, dict) else {}
        error = PydanticCustomError("switch", "a switch where another value belongs")
        wrong = [name for name, kind in fields.items() if isinstance(value[name], bool) and bool not in (kind, *get_args(kind))]
        if wrong:
            details = [InitErrorDetails(type=error, loc=(name,), input=value[name]) for name in wrong]
            raise ValidationError.from_exception_data(cls.__name__, details)
        return value


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
