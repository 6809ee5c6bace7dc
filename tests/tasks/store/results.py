"""A small result, and its publication."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.store.fingerprint import fingerprint
from tasks.store.store import Found, Store

IDENTITY = {"kind": "stage", "seed": 1}
FINGERPRINT = fingerprint(IDENTITY)
MADE = {"run": "run-1", "ladder": "tiny"}
WEIGHTS = bytes(range(256)) * 16


def fill(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text("{}")


def publish(store: Store, name: str = "100k", identity: dict[str, Any] = IDENTITY, write: Callable[[Path], None] = fill) -> Found:
    return store.publish("stage", name, identity, fingerprint(identity), MADE, write)
