"""An object store that is away, slow, cut off, forbidden, full or wrong: bounded retries, one message, nothing lost."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conf.errors import LadderError, RemoteStoreError, StoreError, UserError
from conf.home import Home
from tasks.store.manifest import verify
from tasks.store.remote import bucket, results
from tasks.store.remote.address import cache_bytes, lease_seconds, parse_address
from tasks.store.remote.results import open_remote, require_remote
from tasks.store.store import Store
from tests.machine import small_disk
from tests.s3 import Proxy, proxy
from tests.tasks.store.remote.conftest import Shared
from tests.tasks.store.results import FINGERPRINT, IDENTITY, MADE, fill, publish

pytestmark = pytest.mark.processes
Objects = Callable[[], dict[str, bytes]]


@pytest.fixture
def between(endpoint: str, shared: Shared, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that makes trouble, by which this process reaches the object store."""
    with proxy(endpoint) as standing:
        monkeypatch.setenv("AWS_ENDPOINT_URL", standing.url)
        monkeypatch.setattr(bucket, "READ_SECONDS", 10.0)  # a busy machine must answer in time
        yield standing


def test_results_come_through_a_bad_line(shared: Shared, between: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PAUSES", (0.01,) * 12)
    drawn = random.Random(7)
    kinds = ["none", "none", "drop", "lose", "cut", "503 SlowDown", "500 InternalError", 0.2]
    between.troubles = [drawn.choice(kinds) for _ in range(60)] + ["none"]
    made = publish(shared.store("a"))
    found = shared.store("b").find("stage", FINGERPRINT)
    assert found
    assert (made.adopted, found.manifest) == (False, made.manifest)
    assert verify(found.folder, FINGERPRINT)[0] is None
    assert shared.said == []


def test_a_lost_answer_to_the_manifest_is_no_other_writer(shared: Shared, between: Proxy) -> None:
    store = shared.store("a")
    store.find("stage", FINGERPRINT)
    assert store.remote
    store.remote.learn_conditional()
    between.troubles = ["none", "none", "lose", "none"]  # two files, then the manifest
    assert not publish(store).adopted
    assert [request.rpartition("/")[2] for request in between.seen[-3:]] == ["manifest-1.json"] * 3  # lost, refused, read back
    assert shared.said == []


TROUBLES = {  # where nothing is answered, aiohttp tries a second time by itself
    "drop": "did not answer as it should, 3 times",
    "cut": "did not answer as it should, 3 times",
    "503 SlowDown": "SlowDown of the proxy",
    "507 InsufficientStorage": "InsufficientStorage of the proxy",
    "403 AccessDenied": "it refuses (AccessDenied of the proxy). Ladder reads, writes and deletes objects there",
    "404 NoSuchBucket": "it has no such bucket. Make the bucket, or correct the name.",
}


@pytest.mark.parametrize(("trouble", "words"), TROUBLES.items())
def test_a_fault_is_one_message_after_bounded_tries(
    shared: Shared, between: Proxy, environment: dict[str, str], trouble: str, words: str
) -> None:
    between.troubles = [trouble]
    with pytest.raises(RemoteStoreError) as caught:
        require_remote(Home(shared.folder / "a"))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"LADDER_STORE: {environment['LADDER_STORE']} cannot be used: ")
    assert str(caught.value).endswith("What was computed stays in LADDER_HOME.")
    assert "\n" not in str(caught.value)
    assert environment["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    assert caught.value.exit_code == 2
    assert 3 <= len(between.seen) <= 6 if trouble == "drop" else len(between.seen) == (1 if trouble[:3] in ("403", "404") else 3)


def test_a_slow_store_is_waited_for_a_while(shared: Shared, between: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "READ_SECONDS", 0.3)
    between.troubles, began = [1.0], time.monotonic()
    with pytest.raises(RemoteStoreError, match="3 times"):
        shared.store("a").find("stage", FINGERPRINT)
    assert time.monotonic() - began < 20


def test_a_full_store_loses_nothing(shared: Shared, between: Proxy, objects: Objects) -> None:
    store = shared.store("a")
    store.find("stage", FINGERPRINT)
    between.troubles = ["507 InsufficientStorage"]
    made = publish(store)
    assert not made.adopted
    assert verify(made.folder, FINGERPRINT)[0] is None
    assert len(shared.said) == 1
    assert "InsufficientStorage" in shared.said[0]
    tried = len(between.seen)
    assert store.find("stage", FINGERPRINT) == made
    assert len(between.seen) == tried  # the store is left alone for a while
    between.troubles = ["none"]
    assert not any(name.startswith("stage/") for name in objects())
    assert shared.store("a").find("stage", FINGERPRINT) == made
    assert not any(name.startswith("stage/") for name in objects()), "another store of the same run leaves it alone, too"
    results._rests_until.clear()  # in the process of the next run
    assert shared.store("a").find("stage", FINGERPRINT) == made
    assert shared.store("b").find("stage", FINGERPRINT)


def test_an_upload_that_breaks_off_is_invisible(shared: Shared, between: Proxy, objects: Objects) -> None:
    store = shared.store("a")
    store.find("stage", FINGERPRINT)
    assert store.remote
    store.remote.learn_conditional()
    between.troubles = ["none", "drop"]  # one file of two
    publish(store)
    between.troubles = ["none"]
    names = [name for name in objects() if name.startswith("stage/")]
    assert len(names) == 1
    assert not names[0].endswith(".json") or "manifest" not in names[0]
    assert shared.store("b").find("stage", FINGERPRINT) is None


def test_a_download_that_does_not_fit_is_the_message_of_a_full_disk(shared: Shared, tmp_path: Path) -> None:
    def large(folder: Path) -> None:
        fill(folder)
        (folder / "large").write_bytes(bytes(2 * 2**20))

    publish(shared.store("a"), write=large)
    with small_disk(tmp_path / "small", "1m") as place:
        store = Store(Home(place / "home"))
        with pytest.raises(StoreError, match="No space left on device") as caught:
            store.find("stage", FINGERPRINT)
        assert str(caught.value).startswith("LADDER_HOME: cannot write to")
        assert [path for path in place.rglob("*") if path.is_file()] == []


def test_without_conditional_writes_results_are_whole_and_a_line_says_so(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, objects: Objects
) -> None:
    def create(self: bucket.Bucket, name: str, content: bytes) -> None:  # as servers do that do not know the header
        if self.once:
            self._files.pipe_file(self._path(name), content)
        else:
            original(self, name, content)

    original = bucket.Bucket._create
    monkeypatch.setattr(bucket.Bucket, "_create", create)
    first, second = shared.store("a"), shared.store("b")
    second.find("stage", FINGERPRINT)
    publish(first)
    late = second.publish("stage", "100k", IDENTITY, FINGERPRINT, {**MADE, "run": "run-2"}, fill)
    assert (late.adopted, late.manifest["run"]) == (True, "run-1")
    assert sum("no conditional writes" in line for line in shared.said) == 2  # a home
    assert json.loads(objects()[next(name for name in objects() if name.endswith("manifest-1.json"))])["run"] == "run-1"


def test_without_credentials(shared: Shared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(RemoteStoreError, match="AWS_ACCESS_KEY_ID"):
        shared.store("a").find("stage", FINGERPRINT)


@pytest.mark.parametrize(
    "text",
    [
        "bucket/folder",
        "s3://",
        "s3:///folder",
        "s3://bucket/../other",
        "s3://a//b",
        "http://bucket/folder",
        "file://relative",
        "nope://bucket/x",
    ],
)
def test_what_is_no_address(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LADDER_STORE", text)
    with pytest.raises(UserError) as caught:
        Store(Home(tmp_path))
    assert str(caught.value).startswith(f"LADDER_STORE: got {text!r}; allowed: an address such as s3://bucket/folder")


@pytest.mark.parametrize("text", ["s3://key:hidden@bucket/x", "s3://bucket/x?secret=hidden", "s3://bucket/x#hidden"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UserError, match="without user, password or query") as caught:
        parse_address(text)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(("name", "read"), [("LADDER_STORE_LEASE", lease_seconds), ("LADDER_STORE_CACHE", cache_bytes)])
def test_other_settings(name: str, read: Callable[[], float | None], monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {"LADDER_STORE_LEASE": 60.0, "LADDER_STORE_CACHE": None}
    monkeypatch.delenv(name, raising=False)
    assert read() == usual[name]
    for wrong in ("-1", "many", "1e9", "1 XB", "nan", "0.1 s"):
        monkeypatch.setenv(name, wrong)
        with pytest.raises(UserError, match=name):
            read()
    monkeypatch.setenv(name, "90" if name.endswith("LEASE") else "1.5GB")
    assert read() == (90 if name.endswith("LEASE") else 1_500_000_000)


def test_a_protocol_without_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LADDER_STORE", "gs://bucket/folder")
    remote = open_remote(Home(tmp_path), print)
    assert remote
    with pytest.raises(LadderError, match="Install it: pip install gcsfs") as caught:
        remote.look("stage", FINGERPRINT)
    assert caught.value.exit_code == 2


def test_a_file_in_parts_is_not_begun_anew_for_one_of_them(shared: Shared, between: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 5 * 2**20)  # S3's least
    content = random.Random(1).randbytes(11 * 2**20)
    store = shared.store("a")
    store.find("stage", FINGERPRINT)
    assert store.remote
    store.remote.learn_conditional()
    between.seen.clear()
    between.troubles = ["none", "none", "503 SlowDown", "none"]
    publish(store, write=lambda folder: (folder / "large").write_bytes(content) and None)
    assert sum("partNumber" in request for request in between.seen) == 4  # three, one of them twice
    between.troubles = ["none", "none", "none", "none", "drop", "none"]
    found = shared.store("b").find("stage", FINGERPRINT)
    assert found
    assert (found.folder / "large").read_bytes() == content
    assert shared.said == []
