"""Settings of `data.generate`: texts that a teacher writes, and which are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from conf.schema.base import Settings, setting
from conf.secrets import masked


class Endpoint(Settings):
    """A language model behind OpenAI's API, as OpenAI, vLLM, llama.cpp and `ladder serve-model` offer it."""

    url: str = setting(
        ...,
        "Address of the API without user and password, such as http://127.0.0.1:8000/v1",
        "URL",
        allowed="an address that begins with http:// or https:// and holds no user, password, question mark or space",
        pattern=r"^https?://[^\s@?#]+$",
    )
    model: str = setting(..., "Name of the model there", "name", min_length=1)
    api: Literal["completions", "chat"] = setting("completions", "completions: a prompt is a text; chat: it is a person's message")
    key: str = setting(
        "OPENAI_API_KEY",
        "Environment variable that holds the key; a server that asks for none needs none. The key is recorded nowhere",
        "variable",
        identity=False,
        allowed="the name of an environment variable that ends in _API_KEY",
        pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$",
    )
    timeout: float = setting(120.0, "Longest wait for one answer", "seconds", identity=False, gt=0, le=86_400)
    retries: int = setting(
        5, "Further tries after no answer, 429, 5xx or an answer that cannot be read", "tries", identity=False, ge=0, le=100
    )
    concurrency: int = setting(4, "Requests at once", "requests", identity=False, ge=1, le=1024)
    requests_per_minute: float | None = setting(None, "Most requests a minute; none: no limit", "requests", identity=False, gt=0, le=1e6)
    price_in: float = setting(0.0, "Price of what is read", "currency/million tokens", identity=False, ge=0, le=1e9)
    price_out: float = setting(0.0, "Price of what is written", "currency/million tokens", identity=False, ge=0, le=1e9)

    @field_validator("url", mode="before")
    @classmethod
    def _no_password(cls, value: object) -> object:
        """Refuse an address with a password before a message could repeat it."""
        if isinstance(value, str) and "@" in value:
            words = f"got {masked(value)!r}; allowed: an address without user and password. Put the key into the variable that `key` names."
            raise PydanticCustomError("value_error", "{words}", {"words": words})
        return value
