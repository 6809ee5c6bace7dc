"""Fill a signal cache with the signals that a training needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conf.errors import RunCancelled, UserError
from models.data.batches import Batch, TrainingBatches
from models.signals.cache import Keys, Logits, SignalCache, by_example, keys_of
from models.signals.codec import encode, mass_order

LOGITS_BYTES = 2**28  # of the teacher's logits that are held at once
FEW = 16  # examples by which ids are ordered
PART_BYTES, PART_SECONDS = 2**26, 60.0  # a part is committed once it is as large, or took as long


def needed_keys(batches: TrainingBatches, steps: int | range) -> tuple[range, Keys]:
    """The steps to look through, and the keys of all examples, that a teacher of these steps needs; after a whole epoch none is new."""
    wanted = range(steps) if isinstance(steps, int) else steps
    whole = -(-wanted.start * batches.batch_size // batches.examples) + 1  # epochs until one has been seen from its beginning
    looked = range(wanted.start, min(wanted.stop, -(-whole * batches.examples // batches.batch_size)))
    return looked, np.unique(np.concatenate([keys_of(batches.at(step)) for step in looked] or [keys_of(batches.at(0))[:0]]))


def duplicates(batches: TrainingBatches) -> dict[int, int]:
    """Number of each example whose key an earlier one has, and the number of the first of them: a cache holds it once."""
    keys: dict[int, bytes] = {}
    for step in range(-(-batches.examples // batches.batch_size)):
        keys.update(zip(batches.numbers(step).tolist(), keys_of(batches.at(step)).tolist(), strict=True))
    first: dict[bytes, int] = {}
    firsts = {number: first.setdefault(keys[number], number) for number in sorted(keys)}
    return {number: same for number, same in firsts.items() if same != number}


def id_order(batch: Batch, logits: Logits, vocabulary: int) -> NDArray[np.int64]:
    """The order of ids for a new cache, from a few examples.

    Raises:
        UserError: The teacher's logits are NaN or infinite.
    """
    few = torch.cat([logits(group) for group in _groups(select_examples(batch, range(min(FEW, len(batch.targets)))), vocabulary)])
    _refuse_nan(few)
    return mass_order(few)


def fill_cache(
    cache: SignalCache,
    batches: TrainingBatches,
    steps: int | range,
    logits: Logits,
    made_for: str,
    *,
    on_example: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
    share: tuple[int, int] = (0, 1),
    part_bytes: int = PART_BYTES,
    part_seconds: float = PART_SECONDS,
) -> None:
    """Compute and store the signals that the cache lacks for a training.

    Args:
        cache: Receives the records.
        batches: Of the training, in its own order.
        steps: To look through; see `needed_keys`.
        logits: The teacher.
        made_for: Fingerprint of the model that will be trained.
        on_example: Called with the number of examples done.
        should_stop: Called after each batch; once it returns True, finished records are committed.
        share: Number of this process and how many fill the cache together: each takes whole batches in turn, so that every record has
            the bits that one process would give it.
        part_bytes: A part is committed when its records take as much.
        part_seconds: A part is committed when it took as long.

    Raises:
        RunCancelled: `should_stop` returned True; the same call goes on from there.
        UserError: The teacher's logits are NaN or infinite.
    """
    keys: list[Keys] = []
    records: list[bytes] = []
    done, rows, began = 0, 0, time.monotonic()
    pending: set[bytes] = set()  # keys that are or will be there, and that the cache does not know of yet
    looked = range(steps) if isinstance(steps, int) else steps
    for step in looked:
        batch = batches.at(step)
        every = keys_of(batch)
        new = [i for i, lacks in enumerate(cache.missing(every)) if lacks and not (every[i] in pending or pending.add(every[i]))]
        if step % share[1] != share[0]:
            new = []
        for group in _groups(select_examples(batch, new), cache.coding.vocabulary) if new else ():
            z, own = logits(group), keys_of(group)
            _refuse_nan(z)
            records += [encode(some, cache.coding, own[i : i + 1].tobytes()) for i, some in enumerate(by_example(z, group))]
            keys.append(own)
            rows += group.valid
        done += len(new)
        on_example(done)
        stop = should_stop()
        full = sum(map(len, records)) >= part_bytes or time.monotonic() - began >= part_seconds
        if records and (full or stop or step == looked[-1]):
            cache.append(np.concatenate(keys), records, rows, time.monotonic() - began, made_for, share)
            keys, records, rows, began = [], [], 0, time.monotonic()
            if share[1] == 1:
                pending.clear()
        if stop:
            raise RunCancelled(f"while the teacher's signals were computed, {done} examples done")


def select_examples(batch: Batch, places: Sequence[int]) -> Batch:
    """Some examples of a batch."""
    windows = None if batch.places is None else batch.places[places]
    inputs = {name: value[places] for name, value in batch.inputs.items()}
    return replace(batch, inputs=inputs, targets=batch.targets[places], slices=batch.slices[places], places=windows)


def _groups(batch: Batch, vocabulary: int) -> list[Batch]:
    """Parts of a batch whose logits fit into memory; their size depends on the batch and not on how much is there."""
    rows = max(batch.targets[0].numel(), 1)
    size = max(LOGITS_BYTES // (4 * rows * vocabulary), 1)
    return [select_examples(batch, range(at, min(at + size, len(batch.targets)))) for at in range(0, len(batch.targets), size)]


def _refuse_nan(logits: Tensor) -> None:
    if bool(torch.isnan(logits).any() | torch.isposinf(logits).any() | torch.isneginf(logits).all(dim=-1).any()):
        wrong = int((~torch.isfinite(logits)).any(dim=-1).sum())
        raise UserError.about(
            "teacher",
            f"logits that are NaN or infinite in {wrong} of {len(logits)} rows",
            "finite logits",
            "Its weights are damaged, or its training diverged; use another teacher, or compute it in training.precision=fp32.",
        )
