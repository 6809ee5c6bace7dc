"""Client of an OpenAI-compatible endpoint: bounded retries, pace, usage."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import Any

from conf.errors import RunCancelled, TransientError, UserError, reason_of
from conf.schema.generate import Endpoint

KEY = "data.generate.endpoint"  # setting that an error names, unless the caller gives another
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between tries, doubled each time
LONGEST_REQUEST = 600.0  # seconds of a Retry-After that are waited; a server that asks for more ends the run
OF_ONE = (400, 413, 422)  # HTTP states of a request that is wrong, and not its address or key
AGAIN = (408, 409, 425, 429)  # HTTP states after which the same request may succeed, besides 5xx


@dataclass(frozen=True)
class Usage:
    """Totals of requests that were answered.

    Attributes:
        requests: Answers received.
        retries: Tries that failed.
        read: Tokens of prompts, as the endpoint counts them.
        written: Tokens of answers.
        uncounted: Answers without usage.
    """

    requests: int = 0
    retries: int = 0
    read: int = 0
    written: int = 0
    uncounted: int = 0

    def price(self, endpoint: Endpoint) -> float:
        """Price of all tokens, in the endpoint's currency."""
        return (self.read * endpoint.price_in + self.written * endpoint.price_out) / 1e6


class RequestRefused(UserError):
    """The endpoint refuses one request, whose prompt may be too long for it; others may pass."""


class _TryAgain(Exception):
    """A try failed; the next one may succeed, after `pause` seconds where the server says so."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.pause = reason, pause


class EndpointClient:
    """Asks one endpoint, from any number of threads.

    Args:
        endpoint: Its settings; the key is read from the environment here.
        key: Dotted setting that an error names.
        on_retry: Receives a line for each try that failed.
    """

    def __init__(self, endpoint: Endpoint, key: str = KEY, on_retry: Callable[[str], None] = lambda line: None) -> None:
        if find_spec("openai") is None:
            raise UserError.about(key, endpoint.url, "an endpoint, where the package openai is installed", "Run `pip install openai`.")
        from openai import OpenAI

        self.endpoint, self._key, self._on_retry = endpoint, key, on_retry
        self._secret = os.environ.get(endpoint.key) or "none"  # the client insists on a key
        self._client = OpenAI(api_key=self._secret, base_url=endpoint.url, timeout=endpoint.timeout, max_retries=0)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._not_before = 0.0  # moment of the next request that pace and Retry-After allow
        self.usage = Usage()

    def close(self) -> None:
        """End waiting requests: they raise `RunCancelled`."""
        self._stop.set()
        self._client.close()

    def ask(self, body: Mapping[str, Any], once: str | None = None, chat: bool | None = None) -> dict[str, Any]:
        """One answer of the API as JSON, whose `choices` are not empty.

        Args:
            body: The request without `model`: `prompt` or `messages`, and whatever else the endpoint takes.
            once: Name of the request: a server that knows Idempotency-Key answers a repeated one without counting it again.
            chat: Ask /chat/completions; None: as the settings say.

        Raises:
            RequestRefused: The endpoint refuses this request.
            UserError: It refuses the key, the address or the model.
            TransientError: It gave no usable answer after all tries.
            RunCancelled: `close` was called.
        """
        pause = FIRST_PAUSE
        for left in range(self.endpoint.retries, -1, -1):
            self._wait_for_turn()
            try:
                answer = self._once(body, once, self.endpoint.api == "chat" if chat is None else chat)
            except _TryAgain as error:
                self._failed(error, pause, left)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._count(answer)
                return answer
        raise AssertionError("the last try returns or raises")

    def _failed(self, error: _TryAgain, pause: float, left: int) -> None:
        """Wait as long as the server asks for, or `pause` seconds; raise after the last try."""
        if self._stop.is_set():
            raise RunCancelled("cancelled") from error
        where, tries = f"{self.endpoint.model} at {self.endpoint.url}", self.endpoint.retries + 1
        if error.pause is not None and error.pause > LONGEST_REQUEST:
            raise TransientError(f"{self._key}: {where}: {error.reason}; it asks to wait {error.pause:.0f} s. Come back then.")
        if not left:
            raise TransientError(f"{self._key}: {where} gave no usable answer in {tries} tries: {error.reason}. Is it up?") from error
        seconds = pause if error.pause is None else error.pause
        with self._lock:
            self.usage = replace(self.usage, retries=self.usage.retries + 1)
            if error.pause is not None:  # the server is busy for all threads alike
                self._not_before = max(self._not_before, time.monotonic() + seconds)
        self._on_retry(f"{where}: {error.reason}; trying again in {seconds:.1f} s")
        if self._stop.wait(seconds):
            raise RunCancelled("cancelled")

    def _wait_for_turn(self) -> None:
        with self._lock:
            moment = max(time.monotonic(), self._not_before)
            self._not_before = moment + (60 / self.endpoint.requests_per_minute if self.endpoint.requests_per_minute else 0)
        if self._stop.wait(max(moment - time.monotonic(), 0)):
            raise RunCancelled("cancelled")

    def _once(self, body: Mapping[str, Any], once: str | None, chat: bool) -> dict[str, Any]:
        import openai

        api: Any = self._client.chat.completions if chat else self._client.completions
        content = "messages" if chat else "prompt"
        more = {name: value for name, value in body.items() if name != content}
        headers = {"Idempotency-Key": once} if once else None
        try:
            raw = api.with_raw_response.create(
                model=self.endpoint.model, **{content: body[content]}, extra_body=more, extra_headers=headers
            )
            answer = json.loads(raw.content)
        except openai.APITimeoutError as error:
            raise _TryAgain(f"no answer within {self.endpoint.timeout:g} s") from error
        except openai.APIConnectionError as error:
            raise _TryAgain(f"no connection ({self._clean(error.__cause__ or error)})") from error
        except openai.APIStatusError as error:
            raise self._by_status(error.status_code, error.response.headers, error) from error
        except ValueError as error:  # no JSON, or no UTF-8
            raise _TryAgain("an answer that is no JSON") from error
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise _TryAgain("an answer without choices")
        if not isinstance(_content(choices[0]), str | None):
            raise _TryAgain("an answer without text")
        return answer

    def _by_status(self, status: int, headers: Mapping[str, str], error: Exception) -> Exception:
        reason = f"HTTP {status} ({self._clean(error)})"
        if status in AGAIN or status >= 500:
            return _TryAgain(reason, seconds_to_wait(headers.get("retry-after")))
        allowed, remedy = "a request that it takes", "Correct the settings."
        if status in (401, 403):
            allowed, remedy = f"a key that it knows, in the variable {self.endpoint.key}", "Set the variable."
        elif status == 404:
            remedy = "Correct url, model or api."
        found = f"{self.endpoint.model} at {self.endpoint.url}"
        kind = RequestRefused if status in OF_ONE else UserError
        return kind.about(self._key, found, allowed, f"{remedy} It says: {reason}")

    def _clean(self, error: BaseException) -> str:
        """The words of an error, never with the key in them."""
        words = reason_of(error)
        return words.replace(self._secret, "***") if len(self._secret) > 4 else words

    def _count(self, answer: Mapping[str, Any]) -> None:
        read, written = tokens_of(answer)
        with self._lock:
            self.usage = replace(
                self.usage,
                requests=self.usage.requests + 1,
                read=self.usage.read + (read or 0),
                written=self.usage.written + (written or 0),
                uncounted=self.usage.uncounted + (read is None or written is None),
            )


def text_of(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Text of the first choice, empty where it is null, and why it ended: `stop`, `length` or another word of the endpoint."""
    choice = answer["choices"][0]
    return str(_content(choice) or ""), str(choice.get("finish_reason") or "stop")


def _content(choice: Mapping[str, Any]) -> Any:
    message = choice.get("message")
    return message.get("content", 0) if isinstance(message, dict) else choice.get("text", 0)


def tokens_of(answer: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Tokens of prompt and answer, as the endpoint counts them; None where it does not."""
    told = answer.get("usage")
    usage = told if isinstance(told, dict) else {}
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return read if isinstance(read, int) else None, written if isinstance(written, int) else None


def seconds_to_wait(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, a number or a date; None where it says nothing that can be read."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
