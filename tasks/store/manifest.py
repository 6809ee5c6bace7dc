"""Manifests of results: files with size and SHA-256, and the check against them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, NonNegativeInt, ValidationError

from conf.errors import reason_of
from models.base.files import file_sha256, read_json

SHOWN = 20  # characters of a fingerprint in a folder's name
MANIFEST = "manifest.json"
VIEWS = ("README.md",)  # model cards, written again by every run: ADR 12


class File(BaseModel):
    """Size and hash of a file."""

    bytes: NonNegativeInt
    sha256: str


class Manifest(BaseModel):
    """Content of `manifest.json`."""

    fingerprint: str
    identity: dict[str, Any]
    name: str
    run: str
    ladder: str
    files: dict[str, File]


@dataclass(frozen=True)
class Found:
    """A verified result.

    Attributes:
        folder: Of its files.
        manifest: As it was published.
        adopted: Whether another machine published it while it was computed here.
    """

    folder: Path
    manifest: dict[str, Any]
    adopted: bool = field(default=False, kw_only=True)


def verify(folder: Path, fingerprint: str, *, hashes: bool = True) -> tuple[str | None, dict[str, Any]]:
    """Compare a folder with its manifest; returns the damage (None: none) and the manifest."""
    try:
        manifest = read_json(folder / MANIFEST)
        Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        return f"its manifest is no manifest ({'.'.join(map(str, first['loc'])) or 'whole'}: {first['msg']})", {}
    except (OSError, ValueError) as error:
        return f"no readable manifest ({reason_of(error)})", {}
    if manifest["fingerprint"] != fingerprint:
        return "its manifest names another fingerprint", manifest
    for name, known in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing", manifest
        if path.stat().st_size != known["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, not {known['bytes']}", manifest
        if hashes and file_sha256(path) != known["sha256"]:
            return f"{name} differs from its recorded hash", manifest
    return None, manifest


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Path within a folder -> size and hash, of all its files."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": file_sha256(p)} for p in paths}


def foreign_files(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """Files that the manifest lacks, but for views, and files that are being written."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    ours = [path for path in paths if path.parent != folder or (path.name not in (MANIFEST, *VIEWS) and path.suffix != ".writing")]
    return [path for path in ours if path.relative_to(folder).as_posix() not in manifest["files"]]
