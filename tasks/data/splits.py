"""Part of the corpus that each document belongs to, by content and limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.data import Data
from models.data.corpus import SPLITS
from tasks.data.spool import NONE

DROPPED = 255  # part of a document that is left out
EQUAL_TO_HELD_OUT = 254  # the same, because it may only train and a held-out one equals it
TRAIN, VALID, TEST = (SPLITS.index(name) for name in ("train", "valid", "test"))

Places = NDArray[np.uint64]
Parts = NDArray[np.uint8]


def split_documents(
    places: Places, given: Parts, data: Data, unlabelled: NDArray[np.bool_] | None = None, transfer: NDArray[np.bool_] | None = None
) -> Parts:
    """The part of each document: an index into `SPLITS`, or above them for one that is left out.

    Given parts stay as they are; missing ones are drawn from train.

    Args:
        places: (n,) hash of each document's key (`tasks.data.spool.place_of`): the same content, the same part.
        given: (n,) part that the source gives it; `NONE`: none.
        data: Fractions, limits and their seed.
        unlabelled: (n,) those that train only, and only if no held-out document equals them; None: none.
        transfer: (n,) those of `data.transfer`, which train only in the same way, beyond all limits; None: none.

    Raises:
        UserError: Fewer different documents than parts to fill.
    """
    draws = _draws(places, data.seed)
    joined = np.zeros(len(places), dtype=bool) if transfer is None else transfer
    kept = _first(draws, ~joined, data.max_documents) | joined
    free = (given == NONE) | (given == TRAIN)
    judged = kept & ~joined if unlabelled is None else kept & ~joined & ~unlabelled
    parts = np.full(len(places), DROPPED, dtype=np.uint8)
    parts[judged] = given[judged]
    shares = [(VALID, data.valid_fraction), (TEST, data.test_fraction)]
    drawn = [each for each in shares if not (parts == each[0]).any()]
    if drawn or (judged & free).any() or unlabelled is None:  # else both are given, and all that is to be trained on has no label
        kind = " with a label" * (unlabelled is not None) + " to train on" * bool((given != NONE).any())
        parts[judged & free] = _by_hash(places[judged & free], drawn, kind)
    others = joined if unlabelled is None else joined | (kept & unlabelled & free)
    if others.any():
        held_out = places[(parts == VALID) | (parts == TEST)]
        parts[others] = np.where(np.isin(places[others], held_out), EQUAL_TO_HELD_OUT, TRAIN)
    train = (parts == TRAIN) & ~joined
    parts[train & ~_first(draws, train, data.max_train_documents)] = DROPPED
    return parts


def readings(places: Places, weights: NDArray[np.float32], parts: Parts, seed: int) -> NDArray[np.uint8]:
    """Times that each document is read in an epoch, as its source's weight says; once if it is held out, else never if it is left out.

    Args:
        places: (n,) see `split_documents`.
        weights: (n,) of the documents' sources; of 2.5 a document is read twice or, drawn by content and seed, three times.
        parts: (n,) part of each.
        seed: Of the draws.
    """
    whole = np.floor(weights)
    drawn = _draws(places, seed + (1 << 32)).astype(np.float64) / 2**64 < weights - whole
    return np.where(parts == TRAIN, whole + drawn, parts < len(SPLITS)).astype(np.uint8)


def _by_hash(places: Places, drawn: Sequence[tuple[int, float]], kind: str = "") -> Parts:
    """Divide by place, so that adding documents moves none of the others.

    Where that leaves a part empty, because there are few documents, those of the nearest place are moved into it: each part has at
    least one, and documents of one key stay together.

    Args:
        places: (n,) of the documents.
        drawn: Parts besides train, and the share of each.
        kind: Which documents they are, for the message.
    """
    fractions = places.astype(np.float64) / 2**64
    parts = np.full(len(places), TRAIN, dtype=np.uint8)
    bound = 0.0
    for part, share in drawn:
        parts[(fractions >= bound) & (fractions < bound + share)] = part
        bound += share
    if len(np.unique(parts)) > len(drawn):
        return parts
    different = np.unique(places)
    if len(different) <= len(drawn):
        allowed = "at least 3: one each to train on, to validate and to test"
        if len(drawn) < 2:
            allowed = "at least 2: one to train on, and one for what is drawn from train" if drawn else "at least one to train on"
        raise UserError.about("data", f"{len(different)} different documents{kind}", allowed, "Add documents.")
    hashes, start, bound = different.astype(np.float64) / 2**64, 0, 0.0
    parts[:] = TRAIN
    for index, (part, share) in enumerate(drawn):
        bound += share
        end = int(np.clip(np.searchsorted(hashes, bound), start + 1, len(different) - len(drawn) + index))
        parts[(places >= different[start]) & (places < different[end])] = part
        start = end
    return parts


def _draws(places: Places, seed: int) -> Places:
    """A number for each document that depends on its content and the seed alone (the finaliser of SplitMix64, Steele et al. 2014)."""
    z = places + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _first(draws: Places, among: NDArray[np.bool_], limit: int | None) -> NDArray[np.bool_]:
    """Those of the smallest draws, `limit` at most; copies of a text have one draw, and the source's order decides between them."""
    if limit is None or int(among.sum()) <= limit:
        return among
    last = np.partition(draws[among], limit - 1)[limit - 1]
    chosen = among & (draws < last)
    ties = np.flatnonzero(among & (draws == last))
    chosen[ties[: limit - int(chosen.sum())]] = True
    return chosen
