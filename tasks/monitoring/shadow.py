"""The root teacher asked on a sample of a window's rows; its answers are stored.

Shapes: s rows of the sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.home import Home
from models.base.numerics import NUMERICS
from tasks.monitoring.reference import Watched
from tasks.records.run import StageRecord
from tasks.runtime.logs import log
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.store import Store

if TYPE_CHECKING:
    from tasks.monitoring.scoring import Scorer

ANSWERS = "answers.npy"


def chosen_rows(keys: Sequence[bytes], most: int, before: Collection[bytes]) -> NDArray[np.int64]:
    """Places of at most so many rows, (s,) ascending: those with the smallest ids, which are hashes, so the same at every look.

    Args:
        keys: Ids of the rows.
        most: Rows that are asked for.
        before: Ids that were counted before.
    """
    new = [place for place, key in enumerate(keys) if key not in before]
    return np.array(sorted(sorted(new, key=lambda place: keys[place])[:most]), dtype=np.int64)


def shadow_answers(home: Home, seen: Watched, root: StageRecord, rows: Sequence[tuple[Any, bytes, str, int]]) -> NDArray[Any]:
    """The root's classes (s,), or its bits per byte of each sequence, of rows of a window: found in the store, or computed and kept."""
    identity = {
        "kind": "shadow",
        "numerics": NUMERICS,
        "weights": root.weights_sha256,
        "data": seen.data.content_hash,
        "rows": hashlib.sha256(b"\0".join(_bytes(content) for content, _, _, _ in rows)).hexdigest(),
    }

    def compute() -> Write:
        scorer = _root(root.folder, root.weights_sha256, seen)
        given = scorer.rows([content for content, _, _, _ in rows], [-1] * len(rows), ["all"] * len(rows))
        if seen.metric == "bits_per_byte":
            found, _ = scorer.bits_per_byte(given, "test", seen.ladder.monitoring.reference_rows)
        else:
            found = scorer.probabilities(given, "test", len(rows)).argmax(axis=1)
        return lambda folder: np.save(folder / ANSWERS, found, allow_pickle=False)

    entry = Entry("shadow", "teacher", identity, _read)
    stored = find_or_compute(Store(home, log.warning), entry, {"run": seen.version.run, "ladder": seen.version.name}, compute)
    return _read(stored.folder)


_LOADED: dict[str, Any] = {}


def _root(folder: str, weights: str, seen: Watched) -> Scorer:
    """The root teacher, loaded once in a process."""
    from tasks.monitoring.scoring import Scorer

    if weights not in _LOADED:
        _LOADED.clear()
        log.info("loading the root teacher of %s", seen.version.name)
        _LOADED[weights] = Scorer(Path(folder), seen.ladder, seen.data.corpus())
    return _LOADED[weights]


def _read(folder: Path) -> NDArray[Any]:
    return np.load(folder / ANSWERS, allow_pickle=False)


def _bytes(content: Any) -> bytes:
    """A text, or the pixels of a picture."""
    if isinstance(content, str):
        return content.encode()
    return f"{content.mode} {content.size} ".encode() + content.tobytes()
