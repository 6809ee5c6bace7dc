"""Cost of an object store behind the store: `python -m benchmarks.object_store [--address s3://bucket/folder]`.

Without an address it starts an S3 server on loopback (moto, in a process of its own). Prints MB/s of one large result up and down, and
milliseconds of finding many small results again: without an object store, with one that is known to have them, uploaded at the first
look, and fetched into an empty home.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import machine
from conf.home import Home
from tasks.store.fingerprint import fingerprint
from tasks.store.remote.address import VARIABLE
from tasks.store.store import Store

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
SERVER = """
import logging, sys, time
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def loopback() -> Iterator[str]:
    """An S3 server with a bucket until the end of the block; gives an address in it."""
    import s3fs

    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        os.environ |= {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{process.stdout.readline().strip()}"}
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bench")
        yield "s3://bench"
        process.stdin.close()


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def publish(store: Store, number: int, size: int, files: int = 1) -> None:
    """Publish a result with so many files of so many bytes."""

    def write(folder: Path) -> None:
        for name in range(files):
            (folder / f"file-{name}").write_bytes(secrets.token_bytes(size))

    identity = {"number": number, "size": size}
    store.publish("stage", "bench", identity, fingerprint(identity), {"run": "bench", "ladder": "bench"}, write)


def find(store: Store, numbers: range, size: int) -> None:
    """Find results again; each must be there."""
    for number in numbers:
        assert store.find("stage", fingerprint({"number": number, "size": size}))


def large(folder: Path, address: str, megabytes: int) -> None:
    """MB/s of one result of four files."""
    size = megabytes * 10**6 // 4
    os.environ.pop(VARIABLE, None)
    alone = Store(Home(folder / "large"), print)
    written = seconds(lambda: publish(alone, 0, size, 4))
    checked = seconds(lambda: find(alone, range(1), size))
    os.environ[VARIABLE] = address
    up = seconds(lambda: find(Store(alone.home, print), range(1), size)) - checked
    down = seconds(lambda: find(Store(Home(folder / "fetched"), print), range(1), size))
    print(f"| written and hashed here, no object store | {megabytes / written:.0f} MB/s |")
    print(f"| verified here | {megabytes / checked:.0f} MB/s |")
    print(f"| uploaded | {megabytes / up:.0f} MB/s |")
    print(f"| fetched, verified and made durable | {megabytes / down:.0f} MB/s |")


def many(folder: Path, address: str, count: int) -> None:
    """Milliseconds of each of many small results, each of two files."""
    size, numbers = 20_000, range(count)
    os.environ.pop(VARIABLE, None)
    alone = Store(Home(folder / "many"), print)
    for number in numbers:
        publish(alone, number, size, 2)
    plain = seconds(lambda: find(alone, numbers, size))
    os.environ[VARIABLE] = address
    first = seconds(lambda: find(Store(alone.home, print), numbers, size))
    known = seconds(lambda: find(Store(alone.home, print), numbers, size))
    fetched = seconds(lambda: find(Store(Home(folder / "empty"), print), numbers, size))
    for name, total in (
        ("found, no object store", plain),
        ("found, known to be in the object store", known),
        ("found and uploaded", first),
        ("fetched into an empty home", fetched),
    ):
        print(f"| {name} | {1000 * total / count:.1f} ms a result |")


def main() -> None:
    """Measure, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--address", help="of an object store whose credentials are in the environment; default: a server on loopback")
    parser.add_argument("--megabytes", type=int, default=256, help="of the large result")
    parser.add_argument("--results", type=int, default=50, help="small ones")
    asked = parser.parse_args()
    print(machine("cpu"))
    with tempfile.TemporaryDirectory() as place:
        if asked.address:
            measure(Path(place), f"{asked.address.rstrip('/')}/bench-{secrets.token_hex(4)}", asked.megabytes, asked.results)
        else:
            with loopback() as address:
                measure(Path(place), f"{address}/bench", asked.megabytes, asked.results)


def measure(folder: Path, address: str, megabytes: int, results: int) -> None:
    """Both tables."""
    large(folder, address, megabytes)
    many(folder, address, results)


if __name__ == "__main__":
    main()
