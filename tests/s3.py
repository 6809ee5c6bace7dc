"""A real S3 server on loopback (moto), and a proxy before it that makes trouble."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

from tests.loopback import QuietHandler, serving

BUCKET = "ladders"
KEYS = {"AWS_ACCESS_KEY_ID": "key-of-tests", "AWS_SECRET_ACCESS_KEY": "secret-of-tests", "AWS_DEFAULT_REGION": "us-east-1"}
# A server in a process of its own, with the bucket; prints a line when it serves.
SERVE_BUCKET = """
import logging, sys, time
from moto.server import ThreadedMotoServer
from tests.s3 import make_bucket
logging.getLogger("werkzeug").setLevel(logging.ERROR)
host, port = sys.argv[1:]
server = ThreadedMotoServer(ip_address=host, port=int(port), verbose=False)
server.start()
make_bucket(f"http://127.0.0.1:{port}")
print("serving", flush=True)
while True:
    time.sleep(60)
"""


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3 until the end of the block; gives its address."""
    server = pytest.importorskip("moto.server", reason="moto and s3fs are in the extra `dev`").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def make_bucket(endpoint: str) -> None:
    """Make the bucket, where no other server of this process has: they share what they hold."""
    s3fs = pytest.importorskip("s3fs")
    options = {"key": KEYS["AWS_ACCESS_KEY_ID"], "secret": KEYS["AWS_SECRET_ACCESS_KEY"], "endpoint_url": endpoint}
    s3fs.S3FileSystem(skip_instance_cache=True, **options).makedirs(BUCKET, exist_ok=True)


def s3_environment(endpoint: str, folder: str) -> dict[str, str]:
    """Variables by which Ladder uses a folder in the bucket of a server."""
    return {**KEYS, "AWS_ENDPOINT_URL": endpoint, "LADDER_STORE": f"s3://{BUCKET}/{folder}"}


class Proxy:
    """Stands between a client and a server, and makes trouble with one request after another.

    Attributes:
        url: Of the proxy.
        troubles: For the next requests, in order: `none`, `drop` (no answer), `lose` (done, but no answer), `cut` (half of the body),
            seconds (waits), or a status with an error's code, such as `403 AccessDenied`. The last one stays.
        seen: Methods and paths of all requests.
    """

    def __init__(self, server: str) -> None:
        self.server, self.url = server.removeprefix("http://"), ""
        self.troubles: list[str | float] = ["none"]
        self.seen: list[str] = []
        self._lock = threading.Lock()

    def trouble(self, request: str) -> str | float:
        with self._lock:
            self.seen.append(request)
            return self.troubles.pop(0) if len(self.troubles) > 1 else self.troubles[0]


@contextmanager
def proxy(server: str) -> Iterator[Proxy]:
    """Serve until the end of the block."""
    between = Proxy(server)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            trouble = between.trouble(f"{self.command} {self.path}")
            if isinstance(trouble, float):
                time.sleep(trouble)
            elif trouble == "drop":
                self.close_connection = True
                return
            elif trouble[0].isdigit():
                status, _, code = trouble.partition(" ")
                self.reply(int(status), {}, f"<Error><Code>{code}</Code><Message>{code} of the proxy</Message></Error>".encode())
                return
            upstream = HTTPConnection(between.server, timeout=30)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if trouble == "lose":
                self.close_connection = True
                return
            left_out = ("content-length", "transfer-encoding", "connection")
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in left_out}
            self.reply(answer.status, headers, content, len(content) // 2 if trouble == "cut" else None)

        def reply(self, status: int, headers: dict[str, str], content: bytes, most: int | None = None) -> None:
            try:
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else content[:most])
            except OSError:  # the client did not wait
                self.close_connection = True
            if most is not None:
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay

    with serving(Handler) as between.url:
        yield between
