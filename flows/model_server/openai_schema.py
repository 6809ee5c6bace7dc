"""Requests of OpenAI's API that a model server takes, and their limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from flows.model_server.refusals import Body, Refused
from models.engines.base import GenerationSettings

MOST_LOGPROBS = 20
MOST_PROMPT_LOGPROBS = 1024
DEFAULT_TOKENS = 16  # of /v1/completions, as OpenAI's
UNBOUNDED = 1024  # most tokens of an answer where neither the request nor the model sets a limit
MOST_PROMPTS = 64
Ids = list[Annotated[int, Field(ge=0)]]
Stop = str | list[str]

ALLOWED = {
    "model": "the name of the model, as /v1/models lists it",
    "prompt": f"a text, a list of up to {MOST_PROMPTS} texts, or ids",
    "messages": "a list of one or more messages with role and content, both texts",
    "max_tokens": "a whole number from 1",
    "max_completion_tokens": "a whole number from 1",
    "temperature": "a number from 0 to 2",
    "top_p": "a number above 0, at most 1",
    "seed": "a whole number",
    "stop": "up to 4 texts that are not empty",
    "stream": "true or false",
    "stream_options": "an object with include_usage",
    "logprobs": f"a whole number from 0 to {MOST_LOGPROBS} (completions), true or false (chat)",
    "prompt_logprobs": f"a whole number from 0 to {MOST_PROMPT_LOGPROBS}, for an answer in one piece",
    "top_logprobs": f"a whole number from 0 to {MOST_LOGPROBS}, with logprobs: true",
    "n": "1",
    "best_of": "1",
    "echo": "false",
    "suffix": "null: models here write at the end of a text alone",
    "presence_penalty": "0",
    "frequency_penalty": "0",
    "logit_bias": "an empty object",
    "response_format": 'an object with "type": "text"',
    "tools": "an empty list",
    "tool_choice": '"none" or "auto"',
}


class StreamOptions(Body):
    """Of a stream."""

    include_usage: bool = False


class TextFormat(Body):
    """The one format that a small model promises."""

    type: Literal["text"]


class Common(Body):
    """Keys of both kinds of requests; the last ones are taken and do nothing."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None

    @property
    def limit(self) -> int | None:
        """Most tokens that were asked for."""
        return self.max_tokens

    def settings(self, room: int | None, usual: int | None, top: int) -> GenerationSettings:
        """Settings of the engine.

        Args:
            room: Tokens that the model has left after the prompt; None: no limit.
            usual: Most tokens where the request names none; None: as many as there is room for.
            top: Most probable tokens to tell.

        Raises:
            Refused: More tokens than there is room for, or wrong stop texts.
        """
        if self.limit is not None and room is not None and self.limit > room:
            allowed = f"at most {room}, which the model has left behind the prompt"
            raise Refused.about("max_tokens", self.limit, allowed, "Ask for fewer, or shorten the prompt.", code="context_length_exceeded")
        stop = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if len(stop) > 4 or not all(stop):
            raise Refused.about("stop", self.stop, ALLOWED["stop"], "Correct it.")
        most = self.limit or min(each for each in (room, usual or UNBOUNDED) if each is not None)
        temperature = 1.0 if self.temperature is None else self.temperature
        return GenerationSettings(most, temperature, self.top_p or 1.0, self.seed, stop, top)


class CompletionBody(Common):
    """https://platform.openai.com/docs/api-reference/completions/create."""

    prompt: str | list[str] | Ids | list[Ids]
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    prompt_logprobs: int | None = Field(None, ge=0, le=MOST_PROMPT_LOGPROBS)  # as vLLM names it
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or ids.

        Raises:
            Refused: None, or too many.
        """
        given = self.prompt
        single = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
        listed: list[Any] = [given] if single else list(given)
        if not listed or len(listed) > MOST_PROMPTS or not all(each or isinstance(each, str) for each in listed):
            raise Refused.about("prompt", f"{len(listed)} prompts", ALLOWED["prompt"], "Correct it.")
        return listed


class ChatMessage(Body):
    """A message of a conversation."""

    role: str
    content: str
    name: str | None = None


class ChatBody(Common):
    """https://platform.openai.com/docs/api-reference/chat/create."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    response_format: TextFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens that were asked for, by its new name or its old one."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
