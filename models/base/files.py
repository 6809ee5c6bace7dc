"""JSON of any depth, hashes of model files, steps of checkpoints, durable writes."""

from __future__ import annotations

import hashlib
import json
import resource
from pathlib import Path
from typing import Any

from conf.atomic import fsync
from conf.errors import LadderError


def read_json(path: Path) -> Any:
    """The JSON of a file.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no UTF-8 or no JSON, or nests too deep to be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it nests too deep to be read") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files, sorted by name."""
    return sorted(folder.glob("*.safetensors"))


def weights_sha256(folder: Path) -> str:
    """Hash of a folder's weights: of its one safetensors file, or of the list of its shards' hashes.

    The dense layer of a sentence encoder, in a folder of its own, counts as one more shard.
    """
    dense = sorted(folder.glob("*_Dense/*.safetensors")) if (folder / "modules.json").is_file() else []
    hashes = [file_sha256(path) for path in (*weight_files(folder), *dense)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps at which a whole checkpoint of a training exists in its folder, oldest first."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*") if path.is_dir())


def fsync_tree(folder: Path) -> None:
    """Make every file of a folder, and the folder itself, durable."""
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


SPARE_FILES = 256  # that a process has open beside those that it asks for


def allow_open_files(count: int) -> None:
    """Raise this process's limit of open files, 1,024 as a rule, as far as it has to be; a mapped file counts as an open one.

    Raises:
        LadderError: The system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE_FILES
    if soft == resource.RLIM_INFINITY or wanted <= soft:
        return
    if wanted > hard != resource.RLIM_INFINITY:
        raise LadderError(f"{count:,} files have to be open at once, and this system allows {hard:,} (`ulimit -Hn`). Raise its limit.")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
