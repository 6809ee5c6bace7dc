"""The signal cache: teacher signals on disk, keyed by content.

A cache is a folder in the store: its identity in `manifest.json`, the order of ids in `order.npy`, and parts. A part is three files:
records one after another (`.bin`), the key and place of each (`.npy`), and its own manifest (`.json`), written last: a part without one
does not exist. A killed dump goes on with the part after the last one that was committed.

A record holds the signal of one example: of the positions of a window that count for causal-lm, of one row else. Its key is a 128-bit
hash of the example's own input, not its number: shuffling, accumulation, epochs, ranks or another choice of examples cannot misalign it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from conf.atomic import fsync, write_atomic
from conf.errors import LadderError, UserError
from models.base.files import allow_open_files, file_sha256, read_json
from models.data.batches import IGNORE, Batch
from models.losses.loss import SparseSignal, TeacherSignal
from models.signals.codec import Bytes, Coding, decode, dense, encode, rows_in

MANIFEST, ORDER = "manifest.json", "order.npy"
KEY = "S16"
INDEX = np.dtype([("key", KEY), ("begin", "<i8"), ("bytes", "<i4")])
TOLERANCE = 0.05  # mean total variation between a stored signal and the same computed anew; another teacher's differs by far more
COPIED_AT_ONCE = 4096  # records of one cache that are held in memory

Keys = NDArray[np.bytes_]
Logits = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class CachePart:
    """The manifest of a committed part."""

    name: str
    examples: int
    rows: int
    bytes: int  # of the records
    seconds: float  # of making it
    made_for: str  # fingerprint of the model that was trained with it; empty: copied from the cache of other data
    files: dict[str, str]  # name -> SHA-256


def keys_of(batch: Batch) -> Keys:
    """The key of each example of a batch: a hash of its pixels, and of its ids without padding and of the positions that count."""
    texts = [b""] * len(batch.targets)
    if "pixel_values" in batch.inputs:
        texts = [image.tobytes() for image in batch.inputs["pixel_values"].cpu().numpy()]
    if "input_ids" in batch.inputs:
        pictures = texts
        ids, mask = batch.inputs["input_ids"].cpu().numpy().astype("<u4"), batch.inputs.get("attention_mask")
        if mask is not None:
            texts = [row[:length].tobytes() for row, length in zip(ids, mask.sum(dim=1).tolist(), strict=True)]
        else:
            texts = [_text(row, valid) for row, valid in zip(ids, (batch.targets != IGNORE).cpu().numpy(), strict=True)]
        if "position_ids" in batch.inputs:
            positions = batch.inputs["position_ids"].cpu().numpy().astype("<u4")
            texts = [text + places.tobytes() for text, places in zip(texts, positions, strict=True)]
        texts = [picture + text for picture, text in zip(pictures, texts, strict=True)]
    return np.frombuffer(b"".join(hashlib.blake2b(text, digest_size=16).digest() for text in texts), dtype=KEY)


def _text(ids: NDArray[np.uint32], valid: NDArray[np.bool_]) -> bytes:
    """Ids as far as a position counts, and which positions do where not all of them."""
    length = int(np.flatnonzero(valid)[-1]) + 1 if valid.any() else 0
    here = valid[:length]
    return ids[:length].tobytes() + (b"" if here.all() else here.tobytes())


class SignalCache:
    """The records of one teacher on one corpus, coded in one way; open for reading, and for more."""

    def __init__(self, folder: Path, coding: Coding, parts: Sequence[CachePart]) -> None:
        self.folder, self.coding, self.parts = folder, coding, list(parts)
        allow_open_files(len(self.parts))
        # Mapped now: mapped parts stay readable even where `ladder clean` removes the folder.
        self._data = [np.memmap(folder / f"{part.name}.bin", dtype=np.uint8, mode="r") for part in self.parts]

    @classmethod
    def open(cls, folder: Path, fingerprint: str, identity: dict[str, Any], say: Callable[[str], None]) -> SignalCache:
        """Open a cache; damaged parts are named and dropped, so that their examples are missing.

        Args:
            folder: Of the cache.
            fingerprint: Of the wanted cache.
            identity: The hashed settings, among them the coding of records.
            say: Called with a message for each damaged part.

        Raises:
            UserError: It belongs to another teacher, other data, or was coded in another way.
        """
        refuse_another(folder, fingerprint, identity)
        order = np.load(folder / ORDER, allow_pickle=False) if (folder / ORDER).is_file() else None
        parts: list[CachePart] = []
        for path in sorted(folder.glob("part-*.json")):
            part, fault = _read_part(path)
            if part is not None:
                parts.append(part)
                continue
            say(f"damaged part of cached signals {path.with_suffix('')}: {fault}; it will be computed again")
            for left in folder.glob(f"{path.stem}.*"):
                left.unlink()
        coding = Coding(identity["signal"], identity["vocabulary"], identity["size"], identity["seed"], order)
        return cls(folder, coding, parts)

    @cached_property
    def _index(self) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """All records sorted by key, and the part that each lies in."""
        entries = [np.load(self.folder / f"{part.name}.npy", allow_pickle=False) for part in self.parts]
        every = np.concatenate([np.empty(0, dtype=INDEX), *entries])
        owner = np.repeat(np.arange(len(entries)), [len(some) for some in entries])
        order = np.argsort(every["key"], kind="stable")
        return every[order], owner[order]

    @property
    def rows(self) -> int:
        """Rows of all records."""
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        """Bytes of all records."""
        return sum(part.bytes for part in self.parts)

    def made_for(self, fingerprint: str) -> tuple[int, float]:
        """Examples that were computed for the training of one model, and the seconds that took, all attempts together."""
        own = [part for part in self.parts if part.made_for == fingerprint]
        return sum(part.examples for part in own), sum(part.seconds for part in own)

    @property
    def seconds_an_example(self) -> float:
        """Seconds that an answer took, on average over all that are stored."""
        return sum(part.seconds for part in self.parts) / max(sum(part.examples for part in self.parts), 1)

    def missing(self, keys: Keys) -> NDArray[np.bool_]:
        """Mask of the `keys` without a record in the cache, (n,) bool."""
        return self._places(keys) < 0

    def append(
        self, keys: Keys, records: Sequence[bytes], rows: int, seconds: float, made_for: str, share: tuple[int, int] = (0, 1)
    ) -> None:
        """Commit a part.

        Args:
            keys: (n,) of the examples.
            records: n records.
            rows: Of all of them together.
            seconds: Time of computing them.
            made_for: Fingerprint of the model that is trained with them; empty: they were copied.
            share: Number of this process and how many add to the cache at once, whose parts have numbers of their own.

        Raises:
            OSError: The disk is full; nothing of the part is left.
        """
        after = max((int(part.name.rpartition("-")[2]) for part in self.parts), default=-1) + 1
        number, writer, writers = after, *share
        name = f"part-{number + (writer - number) % writers:05d}"
        sizes = np.array([len(record) for record in records])
        index = np.empty(len(records), dtype=INDEX)
        index["key"], index["begin"], index["bytes"] = keys, np.cumsum(sizes) - sizes, sizes
        data, places, described = (self.folder / f"{name}{suffix}" for suffix in (".bin", ".npy", ".json"))
        try:
            data.write_bytes(b"".join(records))
            np.save(places, index, allow_pickle=False)
            files = {path.name: file_sha256(path) for path in (data, places)}
            part = CachePart(name, len(records), rows, int(sizes.sum()), seconds, made_for, files)
            for path in (data, places, self.folder):  # before the file that makes the part count; older parts are durable
                fsync(path)
            write_atomic(described, json.dumps(asdict(part), indent=1))
        except BaseException:
            if not described.exists():
                for path in (data, places):
                    path.unlink(missing_ok=True)
            raise
        self.parts.append(part)
        allow_open_files(len(self.parts))
        self._data.append(np.memmap(data, dtype=np.uint8, mode="r"))
        if "_index" in self.__dict__:  # merged, since to read all parts again after each would take the square of their number
            every, owner = self._index
            added = index[np.argsort(index["key"], kind="stable")]
            at = np.searchsorted(every["key"], added["key"], side="right")
            self._index = np.insert(every, at, added), np.insert(owner, at, len(self.parts) - 1)

    def copy(self, other: SignalCache, keys: Keys) -> int:
        """Copy what another cache of the same teacher and coding has of some examples; returns how many that are.

        Args:
            other: The answers to other data.
            keys: (n,) of examples, each once.

        Raises:
            OSError: The disk is full; what was copied is kept.
        """
        wanted = keys[self.missing(keys)]
        wanted = wanted[~other.missing(wanted)]
        for first in range(0, len(wanted), COPIED_AT_ONCE):
            some = wanted[first : first + COPIED_AT_ONCE]
            records = other.records(some)
            rows = sum(rows_in(record, self.coding) for record in records)
            self.append(some, [record.tobytes() for record in records], rows, other.seconds_an_example * len(some), made_for="")
        return len(wanted)

    def records(self, keys: Keys) -> list[Bytes]:
        """The records of examples, mapped and not copied.

        Raises:
            LadderError: The cache has none of an example.
        """
        index, owner = self._index
        places = self._places(keys)
        if (places < 0).any():
            raise LadderError(f"{self.folder} has no signal of {int((places < 0).sum())} of {len(keys)} examples of a batch")
        return [self._data[owner[at]][index[at]["begin"] : index[at]["begin"] + index[at]["bytes"]] for at in places]

    def source(self, batch: Batch) -> TeacherSignal | SparseSignal:
        """The teacher's signal for a batch, row after row, on the batch's device: a `SignalSource`."""
        signal = decode(self.records(keys_of(batch)), self.coding)
        for part in self._data:  # parts that were read would otherwise count as this process's memory, until it holds the whole cache
            cast(mmap.mmap, part.base).madvise(mmap.MADV_DONTNEED)
        valid = (batch.targets != IGNORE).flatten().cpu()
        parts = signal if bool(valid.all()) else (part.new_zeros(len(valid), *part.shape[1:]).index_put((valid,), part) for part in signal)
        return type(signal)(*(part.to(batch.targets.device) for part in parts))

    def distance(self, batch: Batch, logits: Logits) -> float:
        """Mean total variation, 0 to 1, between the stored signals of a batch and those computed from a teacher's logits now."""
        keys, each = keys_of(batch), []
        for place, (record, z) in enumerate(zip(self.records(keys), by_example(logits(batch), batch), strict=True)):
            again = np.frombuffer(encode(z, self.coding, keys[place : place + 1].tobytes()), dtype=np.uint8)
            stored, computed = (dense(decode([some], self.coding), self.coding.vocabulary) for some in (record, again))
            each.append(float((stored - computed).abs().sum(dim=1).mean()) / 2)
        return sum(each) / len(each)

    def _places(self, keys: Keys) -> NDArray[np.intp]:
        """Position of each key in the index; -1: not found."""
        stored = self._index[0]["key"]
        at = np.searchsorted(stored, keys)
        found = at < len(stored)
        found[found] = stored[at[found]] == keys[found]
        return np.where(found, at, -1)


def refuse_another(folder: Path, fingerprint: str, identity: dict[str, Any]) -> None:
    """Refuse a cache with another fingerprint; one whose manifest cannot be read is left to the store.

    Raises:
        UserError: With both fingerprints, and their differences.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        found, other = manifest["fingerprint"], dict(manifest["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if found != fingerprint:
        differs = [f"{key} {other.get(key)} instead of {identity[key]}" for key in identity if other.get(key) != identity[key]]
        reason = f"It holds other signals: {', '.join(differs)}. " if differs else ""
        raise UserError.about(f"signals in {folder}", found, fingerprint, f"{reason}Move the folder away; signals are then computed anew.")


def by_example(logits: Tensor, batch: Batch) -> Sequence[Tensor]:
    """Logits (N, V) of a batch, example by example: those of its rows that count."""
    valid = batch.targets != IGNORE
    return logits[valid.flatten().to(logits.device)].split(valid.reshape(len(valid), -1).sum(dim=1).tolist())


def _read_part(path: Path) -> tuple[CachePart | None, str]:
    """A part, or the damage to it."""
    try:
        part = CachePart(**read_json(path))
        for name, recorded in part.files.items():
            if file_sha256(path.with_name(name)) != recorded:
                return None, f"{name} differs from its recorded hash ({path.with_name(name).stat().st_size} bytes)"
    except (OSError, ValueError, TypeError) as error:
        return None, str(error)
    return part, ""
