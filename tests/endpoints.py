"""A small OpenAI-compatible server on a free port of this machine, which answers for real or misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.loopback import QuietHandler, serving

Answer = Callable[[str], str]  # of a prompt


class FakeEndpoint:
    """Its behaviour, and what it was asked.

    Attributes:
        answer: Text for a prompt.
        troubles: Taken from the front, one a request: a number is an HTTP state, `(state, headers)` one with headers, `slow` a second of
            silence, and any other text the body of the answer.
        asked: Prompt -> how often it was answered in full.
        tried: Requests in all.
        keys: Authorization headers.
        most: Most requests at the same time.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer, self.troubles = answer, list[Any]()
        self.asked: Counter[str] = Counter()
        self.tried, self.most, self._running = 0, 0, 0
        self.keys: set[str | None] = set()
        self.bodies: list[dict[str, Any]] = []
        self.once: list[str | None] = []
        self.url = ""
        self.lock = threading.Lock()

    def reply(self, path: str, body: dict[str, Any], headers: Any) -> tuple[int, dict[str, str], bytes]:
        """State, headers and body of an answer."""
        with self.lock:
            self.tried += 1
            self._running += 1
            self.most = max(self.most, self._running)
            trouble = self.troubles.pop(0) if self.troubles else None
            self.keys.add(headers.get("authorization"))
            self.once.append(headers.get("idempotency-key"))
            self.bodies.append(body)
        try:
            return self._reply(path, body, trouble)
        finally:
            with self.lock:
                self._running -= 1

    def _reply(self, path: str, body: dict[str, Any], trouble: Any) -> tuple[int, dict[str, str], bytes]:
        if isinstance(trouble, tuple):
            state, headers, *body = trouble
            return state, headers, body[0] if body else b'{"error": {"message": "busy"}}'
        if isinstance(trouble, int):
            return trouble, {}, b'{"error": {"message": "trouble"}}'
        if trouble == "slow":
            time.sleep(1)
        elif isinstance(trouble, str):
            return 200, {}, trouble.encode()
        chat = path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        text = self.answer(prompt)
        with self.lock:
            self.asked[prompt] += 1
        content: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
        choice = {"index": 0, "finish_reason": "stop", **content}
        return 200, {}, json.dumps({"choices": [choice], "usage": usage}).encode()


@contextmanager
def endpoint(answer: Answer = lambda prompt: prompt[::-1]) -> Iterator[FakeEndpoint]:
    """Serve until the end of the block."""
    fake = FakeEndpoint(answer)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state, headers, content = fake.reply(self.path, body, self.headers)
            try:
                self.send_response(state)
                for name, value in {"content-type": "application/json", **headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the client did not wait
                self.close_connection = True

    with serving(Handler) as address:
        fake.url = f"{address}/v1"
        yield fake
