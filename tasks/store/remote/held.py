"""A result as an object store holds it: its manifest, read and checked.

Nothing in a manifest is trusted: it may be damaged, or written by others.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from tasks.store.manifest import MANIFEST, SHOWN, Manifest

RECORD_BYTES = 2**20  # a file up to this size may be a record, which plans read
ATTEMPT = "attempt"


@dataclass(frozen=True)
class Held:
    """A result in the object store.

    Attributes:
        kind: Part of the store.
        generation: Of its manifest, from 1.
        manifest: As in a folder of the local store; empty where it cannot be read.
        attempt: Token under which its files are.
        fault: Why it cannot be used; None: nothing is known against it.
    """

    kind: str
    generation: int
    manifest: dict[str, Any]
    attempt: str = ""
    fault: str | None = None

    @property
    def folder_name(self) -> str:
        """Of its folder in a local store."""
        return f"{self.manifest['name']}-{self.manifest['fingerprint'][:SHOWN]}"

    @property
    def small_files(self) -> list[str]:
        """Names of its files that are as small as records."""
        return [name for name, file in self.manifest["files"].items() if file["bytes"] <= RECORD_BYTES]

    @property
    def is_small(self) -> bool:
        """Whether all its files are as small as records."""
        return len(self.small_files) == len(self.manifest["files"])


def manifest_name(kind: str, short: str, generation: int) -> str:
    """The object of a manifest; `short` is the beginning of its fingerprint."""
    return f"{kind}/{short}/manifest-{generation}.json"


def parse_manifest(kind: str, fingerprint: str, generation: int, content: bytes) -> Held:
    """The result of a manifest's content; with its fault, where it cannot be used."""
    try:
        manifest = json.loads(content)
        Manifest.model_validate(manifest)
        attempt = manifest.pop(ATTEMPT)
        if manifest["fingerprint"] != fingerprint:
            raise ValueError("it names another fingerprint")
        if not re.fullmatch("[0-9a-f]{16}", attempt) or not all(map(_is_inside, manifest["files"])) or not _is_name(manifest["name"]):
            raise ValueError("it names places outside its folder")
    except ValidationError:
        return Held(kind, generation, {}, fault="its manifest is no manifest")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        return Held(kind, generation, {}, fault=f"its manifest cannot be used ({error})")
    return Held(kind, generation, manifest, attempt)


def _is_inside(name: str) -> bool:
    """Whether a file's name stays inside of its folder."""
    path = PurePosixPath(name)
    return (
        path.as_posix() == name and not path.is_absolute() and ".." not in path.parts and "\\" not in name and name not in (".", MANIFEST)
    )


def _is_name(name: str) -> bool:
    return _is_inside(name) and "/" not in name and not name.startswith(".")
