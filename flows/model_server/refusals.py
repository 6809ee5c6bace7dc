"""Refusals of requests, in the shape of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError

from conf.errors import UserError, shown

Parsed = TypeVar("Parsed", bound="Body")


class Refused(Exception):
    """A request that gets no answer.

    Args:
        status: Of HTTP.
        message: For a person.
        param: Key of the request to blame.
        code: For a program.
        retry_after: Seconds after which to try again.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @classmethod
    def about(cls, key: str, value: object, allowed: str, remedy: str, status: int = 400, code: str | None = None) -> Refused:
        """Name key, value and what is allowed, as every bad input of Ladder is answered."""
        return cls(status, str(UserError.about(key, value, allowed, remedy)), key, code)

    @property
    def document(self) -> dict[str, Any]:
        """The body: https://platform.openai.com/docs/guides/error-codes."""
        kind = "server_error" if self.status >= 500 else "rate_limit_error" if self.status == 429 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """The answer of HTTP."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else None
        return JSONResponse(self.document, self.status, headers)


class Body(BaseModel):
    """Base of requests: unknown keys and numbers as text are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


def parse(kind: type[Parsed], document: Any, allowed: Mapping[str, str]) -> Parsed:
    """Check a request.

    Args:
        kind: Its model.
        document: Parsed JSON.
        allowed: Key -> the values that are allowed, in words.

    Raises:
        Refused: Naming the first wrong key, its value and what is allowed.
    """
    if not isinstance(document, dict):
        raise Refused.about("body", type(document).__name__, "a JSON object", "Send one.")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "body"
        dotted = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"] if part in _path(document, first["loc"])
        )
        dotted = dotted.removeprefix(".") or key
        if first["type"] == "extra_forbidden":
            raise Refused.about(dotted, first["input"], f"the keys {', '.join(kind.model_fields)}", "Leave it out.") from None
        if first["type"] == "missing":
            raise Refused(400, f"{dotted}: missing; allowed: {allowed.get(key, 'a value')}. Send it.", dotted) from None
        raise Refused.about(dotted, first["input"], allowed.get(key, "another value"), f"{first['msg'].rstrip('.')}.") from None


def _path(document: Any, location: tuple[int | str, ...]) -> list[int | str]:
    """The parts of a location that are keys and places of the document, and not names of a union's member."""
    found: list[int | str] = []
    for part in location:
        if isinstance(document, dict) and isinstance(part, str) and (part in document or part == location[-1]):
            found.append(part)
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            found.append(part)
            document = document[part]
    return found


def is_short(value: object) -> str:
    """A value as a message repeats it."""
    return shown(value, 100)
