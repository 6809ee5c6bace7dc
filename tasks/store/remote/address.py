"""The address of an object store, `LADDER_STORE`, and its other settings."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from conf.errors import UserError

VARIABLE, LEASE_VARIABLE, CACHE_VARIABLE = "LADDER_STORE", "LADDER_STORE_LEASE", "LADDER_STORE_CACHE"
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}  # what fsspec needs for a protocol
PROTOCOLS = (*PACKAGES, "file", "memory")
ALLOWED = "an address such as s3://bucket/folder, gs://bucket/folder, az://container/folder or file:///folder"
LEASE_SECONDS = 60.0
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Address:
    """An object store, or a folder in it.

    Attributes:
        protocol: Of fsspec.
        path: Bucket and folder, without a slash at the end.
    """

    protocol: str
    path: str

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"


def remote_address() -> Address | None:
    """The object store of `LADDER_STORE`; None where it is not set.

    Raises:
        UserError: It is no such address, or has a password in it.
    """
    text = os.environ.get(VARIABLE, "").strip()
    return parse_address(text) if text else None


def parse_address(text: str) -> Address:
    """Read an address.

    Raises:
        UserError: It is none, or has a password, a query or `..` in it.
    """
    if "@" in text or "?" in text or "#" in text:
        shown = f"{text.partition('://')[0]}://..."  # the rest may hold a secret
        remedy = "Give keys in the environment, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in the provider's own files."
        raise UserError.about(VARIABLE, shown, f"{ALLOWED}, without user, password or query", remedy)
    protocol, mark, rest = text.partition("://")
    path = rest.rstrip("/")
    whole = bool(mark and path) and protocol in PROTOCOLS and ".." not in PurePosixPath(path).parts
    if not whole or (path.startswith("/") != (protocol == "file")) or "//" in path:
        raise UserError.about(VARIABLE, text, ALLOWED, "Correct it, or unset it to keep results in the home alone.")
    return Address(protocol, path)


def lease_seconds() -> float:
    """Seconds after which the lease of a machine that does not renew it passes on.

    Raises:
        UserError: `LADDER_STORE_LEASE` is no number in the range.
    """
    text = os.environ.get(LEASE_VARIABLE, "").strip()
    if not text:
        return LEASE_SECONDS
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", text) or not 1 <= float(text) <= 3600:
        raise UserError.about(LEASE_VARIABLE, text, "seconds, a number from 1 to 3600", "It is 60 where it is not set.")
    return float(text)


def cache_bytes() -> int | None:
    """The most that the results of a home may take which the object store has, too; None: no limit.

    Raises:
        UserError: `LADDER_STORE_CACHE` is no size.
    """
    text = os.environ.get(CACHE_VARIABLE, "").strip()
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?) ?([KMGT]B|)", text)
    if match is None:
        raise UserError.about(CACHE_VARIABLE, text, "a size such as 50GB or 800 MB", "It has no limit where it is not set.")
    return int(float(match[1]) * UNITS[match[2]])
