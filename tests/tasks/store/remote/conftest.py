"""An S3 server for the tests of a module, and stores of several homes that share a folder in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conf.home import Home
from tasks.store.remote import bucket
from tasks.store.store import Store
from tests.s3 import make_bucket, s3_environment, s3_server

_folders = itertools.count()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        make_bucket(address)
        yield address


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Variables of a new, empty folder; they are set in this process, too."""
    variables = s3_environment(endpoint, f"folder-{next(_folders)}")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket, "PAUSES", (0.01, 0.02))
    monkeypatch.setattr(bucket, "HURRIED_SECONDS", 30.0)  # a busy machine must answer in time
    return variables


class Shared:
    """Stores of several homes with one object store."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()

    def store(self, name: str) -> Store:
        return Store(Home(self.folder / name), self.said.append)

    @property
    def bucket(self) -> bucket.Bucket:
        remote = self.store("reader").remote
        assert remote
        return remote.bucket


@pytest.fixture
def shared(environment: dict[str, str], tmp_path: Path) -> Shared:
    return Shared(tmp_path)


@pytest.fixture
def objects(shared: Shared) -> Callable[[], dict[str, bytes]]:
    """Reads all objects of the folder: name -> content."""

    def read() -> dict[str, bytes]:
        files, path = shared.bucket._files, shared.bucket.address.path
        return {name.removeprefix(f"{path}/"): files.cat_file(name) for name in files.find(path)}

    return read
