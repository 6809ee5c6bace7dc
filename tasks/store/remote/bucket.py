"""Objects under an address: bounded retries, and one message for every fault.

Only reading, writing, removing and creating once are used: no listing, no renaming. fsspec is imported where an address is set.
"""

from __future__ import annotations

import errno
import importlib.util
import math
import os
import secrets
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from conf.errors import LadderError, RemoteStoreError, UserError, reason_of
from tasks.store.remote.address import ALLOWED, PACKAGES, VARIABLE, Address

T = TypeVar("T")

PAUSES = (0.5, 1.5, 4.0, 9.0)  # seconds between tries
CONNECT_SECONDS, READ_SECONDS = 5.0, 20.0
HURRIED_SECONDS = 3.0  # of a plan, which goes on without the object store
PART_BYTES, PARTS_AT_ONCE, PART_TRIES = 16 * 2**20, 4, 4  # of S3: with four files at once, at most 256 MiB of memory
MOST_PARTS = 10_000  # of an object: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "AccountProblem", "403", "Forbidden")
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError")
_opened: dict[tuple[object, ...], Any] = {}  # file systems: a new one reads the provider's descriptions, for 0.1 s


class Bucket:
    """The objects under an address.

    Args:
        address: Of the object store.
        hurried: Whether to try once and to wait little, for plans.
    """

    def __init__(self, address: Address, *, hurried: bool = False) -> None:
        self.address, self.hurried = address, hurried
        self.pauses = () if hurried else PAUSES
        self.once = True  # whether the store honours conditional writes; without them, look, write, and look again

    @cached_property
    def _files(self) -> Any:
        return self._file_system(1)

    def _file_system(self, tries: int) -> Any:
        """The file system, with so many tries of each request by itself: our own, of whole files, say what happened."""
        surroundings = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "FSSPEC_"))))
        key = (os.getpid(), self.address.protocol, self.hurried, tries, surroundings)
        if key not in _opened:
            _opened[key] = _open(self.address.protocol, self.hurried, tries)
        return _opened[key]

    def _file_system_of(self, size: int) -> Any:
        """The file system for a file of so many bytes: one that is copied in parts is not begun anew for one of them."""
        return self._file_system(PART_TRIES) if size > PART_BYTES else self._files

    def read(self, name: str) -> bytes | None:
        """The content of an object; None: there is none."""
        at_once = {"max_concurrency": 1} if self.address.protocol == "s3" else {}  # else s3fs asks for the size first
        try:
            return self._try(lambda: self._files.cat_file(self._path(name), **at_once))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, over an older one."""
        self._try(lambda: self._files.pipe_file(self._path(name), content))

    def create(self, name: str, content: bytes) -> bool:
        """Write an object that is not there; False: there is one, and it stays.

        Where an answer is lost, the object may be the one that was just written: its content tells, so it must be unique.
        """

        def attempt() -> bool:
            try:
                self._create(name, content)
            except FileExistsError:
                return False
            except Exception as error:  # each file system has errors of its own
                if _code(error) == "PreconditionFailed" or _status(error) == 412:
                    return False
                raise
            return True

        return self._try(attempt) or self.read(name) == content

    def _create(self, name: str, content: bytes) -> None:
        if not self.once:
            if self.read(name) is None:
                self._files.pipe_file(self._path(name), content)
            if self.read(name) != content:
                raise FileExistsError
        elif self.address.protocol == "file":  # fsspec would look first and then write
            _link(Path(self._path(name)), content)
        else:
            self._files.pipe_file(self._path(name), content, mode="create")

    def creates_once(self) -> bool:
        """Whether the store honours conditional writes: of two that create one object, the second is refused."""
        name, first, second = f"probe/{secrets.token_hex(8)}", secrets.token_bytes(8), secrets.token_bytes(8)
        self.create(name, first)
        once = not self.create(name, second)
        self.remove(name)
        return once

    def upload(self, file: Path, name: str) -> None:
        """Copy a local file to an object."""
        size = file.stat().st_size
        parts = {"chunksize": max(PART_BYTES, math.ceil(size / MOST_PARTS))} if self.address.protocol == "s3" else {}
        self._try(lambda: self._file_system_of(size).put_file(str(file), self._path(name), **parts))

    def download(self, name: str, file: Path, size: int) -> bool:
        """Copy an object, of so many bytes, to a local file; False: there is none.

        Raises:
            OSError: The local disk is full or read-only.
            RemoteStoreError: The store does not answer, or refuses.
        """
        try:
            self._try(lambda: self._file_system_of(size).get_file(self._path(name), str(file)))
        except FileNotFoundError:
            return False
        return True

    def remove(self, *names: str) -> None:
        """Remove objects, as far as the store lets us: what stays takes space, and does no harm."""
        for name in names:
            try:
                self._files.rm_file(self._path(name))
            except Exception:  # noqa: BLE001 - of whatever package speaks the protocol; tidying up must not end a run whose result is safe
                continue

    def _path(self, name: str) -> str:
        return f"{self.address.path}/{name}"

    def _try(self, attempt: Callable[[], T]) -> T:
        """Try until it succeeds, the store refuses, or all pauses are spent.

        Raises:
            FileNotFoundError: There is no such object.
            RemoteStoreError: The store does not answer, or refuses.
        """
        for pause in (*self.pauses, None):
            try:
                return attempt()
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise self._fault("it has no such bucket", "Make the bucket, or correct the name.") from error
                raise
            except LadderError:
                raise
            except Exception as error:  # each file system has errors of its own
                if self._is_local(error):
                    raise
                self._refuse(error)
                if pause is None:
                    tries = len(self.pauses) + 1
                    how = f"it did not answer as it should, {tries} times ({reason_of(error)})" if tries > 1 else reason_of(error)
                    remedy = (
                        f"Check the network and the service, and run the same command again; without {VARIABLE} the home alone is used."
                    )
                    raise self._fault(how, remedy) from error
            time.sleep(pause)
        raise AssertionError

    def _is_local(self, error: Exception) -> bool:
        """Whether an error is that of this machine's disk."""
        return self.address.protocol != "file" and isinstance(error, OSError) and error.errno in DISK_FAULTS

    def _refuse(self, error: Exception) -> None:
        if type(error).__name__ in NO_CREDENTIALS:
            raise self._fault(f"there are no credentials for it ({reason_of(error)})", _credentials(self.address.protocol)) from error
        if isinstance(error, PermissionError) or _code(error) in REFUSED or _status(error) in (401, 403):
            rights = "Ladder reads, writes and deletes objects there, and is to be told which are missing (s3:ListBucket)"
            remedy = f"{rights}: give these rights to the credentials, or use others. {_credentials(self.address.protocol)}"
            raise self._fault(f"it refuses ({reason_of(error)})", remedy) from error

    def _fault(self, reason: str, remedy: str) -> RemoteStoreError:
        return RemoteStoreError(f"{VARIABLE}: {self.address} cannot be used: {reason}. {remedy} What was computed stays in LADDER_HOME.")


def _credentials(protocol: str) -> str:
    return (
        "They are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws."
        if protocol == "s3"
        else "See docs/how-to/object-store.md."
    )


def _open(protocol: str, hurried: bool, tries: int) -> Any:
    """The file system of a protocol.

    Raises:
        UserError: Its package is not installed.
    """
    package = PACKAGES.get(protocol)
    if package and importlib.util.find_spec(package) is None:
        how = 'pip install "ladder-distillation[s3]"' if protocol == "s3" else f"pip install {package}"
        raise UserError.about(VARIABLE, f"{protocol}://...", f"{ALLOWED}, whose package is installed", f"Install it: {how}.")
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True}
    if protocol == "s3":
        connect, read = (HURRIED_SECONDS, HURRIED_SECONDS) if hurried else (CONNECT_SECONDS, READ_SECONDS)
        once = {"connect_timeout": connect, "read_timeout": read, "retries": {"total_max_attempts": 1}}
        options |= {"config_kwargs": once, "use_listings_cache": False, "default_block_size": PART_BYTES, "max_concurrency": PARTS_AT_ONCE}
    elif protocol == "file":
        options["auto_mkdir"] = True
    files = fsspec.filesystem(protocol, **options)
    if protocol == "s3":
        files.retries = tries
    return files


def _link(place: Path, content: bytes) -> None:
    """Write a file that is not there, whole.

    Raises:
        FileExistsError: It is there.
    """
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content)
        os.link(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


def _code(error: BaseException) -> str | None:
    """S3's code of an error."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _status(error: BaseException) -> int | None:
    """The HTTP status of another provider's error."""
    status = getattr(error, "code", None) or getattr(error, "status_code", None)
    return status if isinstance(status, int) else None
