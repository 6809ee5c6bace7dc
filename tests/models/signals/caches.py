"""Caches of signals as the tests make them, and the teacher that answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.data.batches import Batch, TrainingBatches
from models.signals.cache import SignalCache, keys_of
from models.signals.codec import Coding, decode, dense, encode
from models.signals.fill import fill_cache, needed_keys

V = 258
IDENTITY = {"teacher": "a" * 64, "tokenizer": "b" * 64, "sequence_length": 24, "signal": "sampled", "vocabulary": V, "size": 20, "seed": 1}
FINGERPRINT = "c" * 64


def pattern(batch: Batch) -> Tensor:
    """A teacher whose answer is a function of the id at each place."""
    ids = batch.inputs["input_ids"].flatten()
    return ((ids[:, None] * 31 + torch.arange(V) * 7) % 23).float() / 3


def made(folder: Path, **changes: Any) -> SignalCache:
    """An empty cache in a folder, as the store publishes it."""
    identity = IDENTITY | changes
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": FINGERPRINT, "identity": identity, "files": {}}))
    return SignalCache.open(folder, FINGERPRINT, identity, pytest.fail)


def opened(folder: Path, said: list[str] | None = None, **changes: Any) -> SignalCache:
    return SignalCache.open(folder, FINGERPRINT, IDENTITY | changes, pytest.fail if said is None else said.append)


def filled(cache: SignalCache, batches: TrainingBatches, steps: int = 1000, logits: Callable[[Batch], Tensor] = pattern, **how: Any) -> int:
    """Dump what is missing; how many examples the teacher was asked for."""
    asked = []

    def counted(batch: Batch) -> Tensor:
        asked.append(len(batch.targets))
        return logits(batch)

    fill_cache(cache, batches, needed_keys(batches, steps)[0], counted, "mine", **how)
    return sum(asked)


def expected(batch: Batch, coding: Coding, logits: Tensor) -> Tensor:
    """The probabilities that each example's own record gives."""
    keys = keys_of(batch)
    each = zip(logits.split(len(logits) // len(keys)), keys, strict=True)
    records = [np.frombuffer(encode(z, coding, bytes(key).ljust(16, b"\0")), dtype=np.uint8) for z, key in each]
    return torch.cat([dense(decode([record], coding), coding.vocabulary) for record in records])


DUMP = """
import sys, time
from pathlib import Path
import torch
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.signals.cache import SignalCache
from models.signals.fill import fill_cache, needed_keys
import json
folder, corpus = Path(sys.argv[1]), Corpus(Path(sys.argv[2]), "hash")
manifest = json.loads((folder / "manifest.json").read_text())
cache = SignalCache.open(folder, manifest["fingerprint"], manifest["identity"], print)
batches = TrainingBatches(corpus, 8, 0)
def pattern(batch):
    ids = batch.inputs["input_ids"].flatten()
    return ((ids[:, None] * 31 + torch.arange(258) * 7) % 23).float() / 3
def say(done):
    print(done, flush=True)
    time.sleep(0.2)
fill_cache(cache, batches, needed_keys(batches, 1000)[0], pattern, "mine", on_example=say, part_bytes=int(sys.argv[3]))
"""
