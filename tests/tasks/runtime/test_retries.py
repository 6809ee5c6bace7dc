"""Transient errors, by real errors of real libraries over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import requests

from tasks.runtime.retries import is_transient


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path[1:]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def raised(act: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
        act()
    return caught.value


@pytest.mark.parametrize(("code", "passes"), [(429, True), (500, True), (503, True), (400, False), (401, False), (404, False)])
def test_answers_of_a_server(server: str, code: int, passes: bool) -> None:
    assert is_transient(raised(lambda: httpx.get(f"{server}/{code}", trust_env=False).raise_for_status())) is passes
    assert is_transient(raised(lambda: requests.get(f"{server}/{code}", timeout=5).raise_for_status())) is passes


def test_no_answer_or_a_late_one_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert is_transient(raised(lambda: httpx.get(address, timeout=0.1, trust_env=False)))
        assert is_transient(raised(lambda: requests.get(address, timeout=0.1)))
    assert is_transient(raised(lambda: httpx.get(address, trust_env=False)))
    assert is_transient(raised(lambda: requests.get(address, timeout=5)))


def wrapped(cause: Exception) -> Exception:
    def act() -> None:
        try:
            raise cause
        except type(cause) as error:
            raise ValueError("wrapped by a library") from error

    return raised(act)


def test_the_cause_of_an_error_counts() -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    assert is_transient(wrapped(ConnectionResetError("gone")))
    assert not is_transient(wrapped(OfflineModeIsEnabled("offline on purpose")))
    assert not is_transient(wrapped(FileNotFoundError("no such file")))
    assert not is_transient(ValueError("a mistake"))
