"""Finds compression-identified examples: answers that an arm's students lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.atomic import write_atomic
from conf.home import disk_errors, home
from conf.schema.measures.proof import Arm
from models.data.corpus import Corpus
from models.evaluation.compression_exemplars import compression_identified, modal
from tasks.records.proof import Identified

FILE = "compression-identified.parquet"  # beside the proof
LEAST_SEEDS = 3  # of two, every disagreement is a tie

LabelledAnswers = NDArray[np.int32]  # (2, N): answers of a model, and labels


def identified(root: LabelledAnswers, arms: Mapping[Arm, Sequence[LabelledAnswers]]) -> tuple[Identified, ...]:
    """Count each arm's compression-identified examples; none where the seeds are too few.

    Args:
        root: Of the uncompressed model: there is one, whatever the seeds.
        arms: Of each arm's last students, a seed each; the first arm is the one that others share examples with.
    """
    lost = _lost(root, arms)
    right = root[0] == root[1]
    found = []
    for arm, mask in lost.items():
        share = mask & next(iter(lost.values()))
        counts = {"identified": mask, "known": mask & right, "shared": share}
        found.append(
            Identified(arm=arm, seeds=len(arms[arm]), rows=len(mask), **{name: int(which.sum()) for name, which in counts.items()})
        )
    return tuple(found)


def _lost(root: LabelledAnswers, arms: Mapping[Arm, Sequence[LabelledAnswers]]) -> dict[Arm, NDArray[np.bool_]]:
    found: dict[Arm, NDArray[np.bool_]] = {}
    for arm, seeds in arms.items():
        if len(seeds) >= LEAST_SEEDS:
            found[arm] = compression_identified(root[:1], np.stack([answers[0] for answers in seeds]))
    return found


def write_identified(folder: Path, root: LabelledAnswers, arms: Mapping[Arm, Sequence[LabelledAnswers]], corpus: Corpus) -> Path | None:
    """Write the examples that any arm has lost, with the label, and the answers of the root and of most seeds of each arm.

    Returns:
        The file: `row` counts the examples, or tokens, in the order of evaluation. None where the seeds are too few.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    lost = _lost(root, arms)
    if not lost:
        return None
    rows = np.flatnonzero(np.any(list(lost.values()), axis=0))
    answered = {arm: modal(np.stack([answers[0] for answers in arms[arm]]))[rows] for arm in lost}
    columns = {"label": root[1][rows], "root": root[0][rows], **answered}
    words = _words(corpus, sorted({int(i) for column in columns.values() for i in column}))
    table: dict[str, Any] = {"row": rows, **{name: [words[int(i)] for i in column] for name, column in columns.items()}}
    path = folder / FILE
    with disk_errors(home()):
        write_atomic(path, lambda temporary: parquet.write_table(pa.table(table), temporary))
    return path


def _words(corpus: Corpus, ids: Sequence[int]) -> dict[int, str]:
    """Names of classes, or the text of tokens."""
    if corpus.info.label_names:
        return {i: corpus.info.label_names[i] for i in ids}
    from models.data import tokenizers

    assert corpus.tokenizer_folder is not None
    tokenizer = tokenizers.load(corpus.tokenizer_folder)
    return {i: str(tokenizer.decode([i])) for i in ids}
