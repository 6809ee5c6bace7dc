"""Find the worst examples of an audit, with their inputs.

They are wrong together with the teacher, or right before and wrong after.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.schema.ladder import Ladder
from conf.schema.workloads import answers_in_ids
from models.data import tokenizers
from models.data.batches import Batch
from models.data.corpus import PIXELS, Corpus, SplitName
from models.data.held_out import evaluation_batches
from models.evaluation.audit_figures import shared
from models.evaluation.audit_rows import AuditRows
from models.students.vocabulary import VocabularyMap

TOGETHER, AFTER = "wrong with its teacher", "right before, wrong after"
COLOURED = 3  # dimensions of the pixels of an image
CONTEXT = 64  # tokens before the one in question
ALIKE = 5  # most examples of a language model with the same label and the same answer
SHOWN, SHOWN_CHARACTERS, SHOWN_PIXELS = 12, 120, 32


@dataclass(frozen=True)
class Example:
    """One row of `worst.parquet`."""

    kind: str
    example: int  # in the order of evaluation
    document: int
    position: int
    slice: str
    label: str
    answers: dict[str, str]
    confidence: dict[str, float]
    text: str | None = None
    image: NDArray[np.float32] | None = field(default=None, repr=False)  # (C, H, W) in [0, 1]

    def shown(self) -> dict[str, Any]:
        """The row for the report."""
        text = None if self.text is None else self.text[-SHOWN_CHARACTERS:]
        picture = None if self.image is None else _picture(self.image)
        same = {name: getattr(self, name) for name in ("kind", "slice", "label", "answers", "confidence")}
        return {**same, "text": text, "picture": picture}

    def row(self) -> dict[str, Any]:
        """The row for the file."""
        models = {f"{name}_answer": answer for name, answer in self.answers.items()}
        models |= {f"{name}_confidence": value for name, value in self.confidence.items()}
        plain = {name: getattr(self, name) for name in ("kind", "example", "document", "position", "slice", "label")}
        image = None if self.image is None else self.image.ravel().tolist()
        shape = None if self.image is None else list(self.image.shape)
        return {**plain, **models, "text": self.text, "pixels": image, "shape": shape}


def chosen(rows: AuditRows, most: int) -> list[tuple[str, int]]:
    """Kind and row of at most `most` examples: half of them of each kind, the surest first, more of one where the other has fewer."""
    student, parent = rows.predictions["student"], rows.predictions["parent"]
    together = shared(rows, "student", "parent")
    lost = (parent.predicted == rows.target) & (student.predicted != rows.target)
    first = _surest(rows, together, np.minimum(student.confidence, parent.confidence))
    second = _surest(rows, lost, student.confidence)
    ours = max(most - most // 2, most - len(second))
    found = [(TOGETHER, row) for row in first[:ours]]
    return [*found, *((AFTER, row) for row in second[: most - len(found)])]


def _surest(rows: AuditRows, mask: NDArray[np.bool_], confidence: NDArray[np.floating]) -> list[int]:
    """Rows by confidence; of a language model only so many that are alike, or one frequent mistake would fill the list."""
    places = np.flatnonzero(mask)
    places = places[np.argsort(-confidence[places], kind="stable")]
    if not rows.position.any():
        return places.tolist()
    seen: Counter[tuple[int, int]] = Counter()
    found = []
    for place in places.tolist():
        what = (int(rows.target[place]), int(rows.predictions["student"].predicted[place]))
        seen[what] += 1
        if seen[what] <= ALIKE:
            found.append(place)
    return found


def worst_examples(
    rows: AuditRows, corpus: Corpus, kept: VocabularyMap | None, ladder: Ladder, split: SplitName, most: int
) -> list[Example]:
    """The worst examples with their inputs, which are read again from the corpus.

    Args:
        rows: The rows of the audit.
        corpus: In the student's ids.
        kept: The student's ids; None: all.
        ladder: Says which examples were evaluated.
        split: Of the corpus.
        most: How many.
    """
    wanted = chosen(rows, most)
    inputs = _inputs(corpus, split, ladder, {int(rows.example[row]) for _, row in wanted})
    folder = corpus.tokenizer_folder
    tokenizer = tokenizers.load(folder) if folder and wanted else None

    def text(ids: list[int]) -> str:
        assert tokenizer is not None
        return str(tokenizer.decode([kept.kept[i] for i in ids] if kept else ids))

    def answer(index: int) -> str:
        return corpus.info.label_names[index] if corpus.info.label_names else text([index])

    made, shown = [], corpus.info.picture and corpus.info.picture.id
    for kind, row in wanted:
        ids, image = inputs[int(rows.example[row])]
        position = int(rows.position[row])
        image = image if image is None or corpus.info.pixels is None else corpus.info.pixels.undone(image)
        if ids is not None and answers_in_ids(ladder.workload):
            ids = ids[max(position + 1 - CONTEXT, 0) : position + 1]
        made.append(
            Example(
                kind,
                int(rows.example[row]),
                int(rows.document[row]),
                position,
                corpus.info.slice_names[rows.slice[row]],
                answer(int(rows.target[row])),
                {name: answer(int(each.predicted[row])) for name, each in rows.predictions.items()},
                {name: round(float(each.confidence[row]), 4) for name, each in rows.predictions.items()},
                None if ids is None else text([int(i) for i in ids if int(i) != shown]),
                image,
            )
        )
    return made


def _inputs(corpus: Corpus, split: SplitName, ladder: Ladder, wanted: set[int]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    first = 0
    for batch in evaluation_batches(corpus, split, ladder.evaluation.examples, ladder.evaluation.batch_size):
        for place in range(len(batch.targets)):
            if first + place in wanted:
                found[first + place] = _input(batch, place)
        first += len(batch.targets)
    return found


def _input(batch: Batch, place: int) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """The ids and the pixels of an example, of a picture in tiles those of the first."""
    ids = image = None
    if PIXELS in batch.inputs and PIXELS not in batch.merged:
        image = batch.inputs[PIXELS][place].numpy()
        image = image[0] if image.ndim > COLOURED else image
    if "input_ids" in batch.inputs:
        ids, mask = batch.inputs["input_ids"][place], batch.inputs.get("attention_mask")
        ids = (ids if mask is None else ids[mask[place].bool()]).numpy()
    return ids, image


def write_worst(path: Path, examples: list[Example]) -> None:
    """Write the examples as Parquet; of none, a file without rows."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.Table.from_pylist([each.row() for each in examples]), path)


def _picture(image: NDArray[np.float32]) -> str:
    """A small PNG as a data URI."""
    from PIL import Image

    levels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    plain = Image.fromarray(levels[0]) if len(levels) != 3 else Image.fromarray(np.moveaxis(levels, 0, -1))
    plain.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    buffer = io.BytesIO()
    plain.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
