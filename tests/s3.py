"""A real S3 server on loopback (moto), and a proxy before it that makes trouble."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BUCKET = "ladders"
KEYS = {"AWS_ACCESS_KEY_ID": "key-of-tests", "AWS_SECRET_ACCESS_KEY": "secret-of-tests", "AWS_DEFAULT_REGION": "us-east-1"}


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


def s3_environment(endpoint: str, folder: str) -> dict[str, str]:
    """Variables by which Ladder uses a folder in the bucket of a server."""
    return {**KEYS, "AWS_ENDPOINT_URL": endpoint, "LADDER_STORE": f"s3://{BUCKET}/{folder}"}
