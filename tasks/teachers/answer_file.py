"""The Parquet file of a teacher's answers: columns, and errors that name rows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.teacher import AnswersTeacher
from tasks.runtime.runs.run_registry import Context

KEY = "teacher.path"
SUM_TOLERANCE = 1e-2  # of the probabilities of a row or position, which may have been rounded
SOFTMAX = "Write it again; logits need a softmax."


def columns_of(teacher: AnswersTeacher, workload: str) -> list[str]:
    """The columns that are read: content, and answers."""
    if workload == "causal-lm":
        return [teacher.text, teacher.ids, teacher.logprobs]
    content = teacher.image if workload == "image-classification" else teacher.text
    return [content, *([teacher.probabilities] if teacher.probabilities else teacher.classes)]


def answers_file(teacher: AnswersTeacher, context: Context, workload: str) -> Path:
    """The Parquet file of the answers.

    Raises:
        UserError: It is missing, or no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = Path(context.base) / os.path.expanduser(teacher.path)
    if not file.is_file():
        raise UserError.about(KEY, teacher.path, "an existing Parquet file of answers", f"There is no file {file}.")
    try:
        columns = pq.read_schema(file).names
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError.about(KEY, teacher.path, "a Parquet file of answers", f"It is none: {error}.") from error
    wanted = columns_of(teacher, workload)
    missing = [name for name in wanted if name not in columns]
    if missing:
        others = "teacher.ids and teacher.logprobs" if workload == "causal-lm" else "teacher.classes and teacher.probabilities"
        remedy = f"teacher.{'image' if workload == 'image-classification' else 'text'}, {others} name them."
        raise UserError.about(KEY, f"{teacher.path} without the columns {', '.join(missing)}", f"columns: {', '.join(columns)}", remedy)
    return file


def read_probabilities(teacher: AnswersTeacher, file: Path) -> NDArray[np.float64]:
    """Read and check the class probabilities of all rows, (n, C).

    Raises:
        UserError: A row is no distribution over the classes; with the first such row.
    """
    import pyarrow.parquet as pq

    count = len(teacher.classes)
    table = pq.read_table(file, columns=[teacher.probabilities] if teacher.probabilities else list(teacher.classes))
    if teacher.probabilities:
        rows = [row if row is not None else [] for row in table.column(teacher.probabilities).to_pylist()]
        odd = next((number for number, row in enumerate(rows) if len(row) != count), None)
        if odd is not None:
            raise wrong_row(teacher, odd + 1, f"{len(rows[odd])} numbers", f"{count}, one for each of teacher.classes", SOFTMAX)
        values = np.array(rows, dtype=np.float64).reshape(-1, count)
    else:
        values = np.stack([np.asarray(table.column(name).to_pylist(), dtype=np.float64) for name in teacher.classes], axis=1)
    wrong = ~(np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1) & (abs(values.sum(axis=1) - 1) <= SUM_TOLERANCE))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        shown = ", ".join(f"{value:g}" for value in values[first][:8])
        allowed = f"probabilities, 0 or more, that add up to 1; {int(wrong.sum()):,} rows are none"
        raise wrong_row(teacher, first + 1, shown, allowed, SOFTMAX)
    return values


def wrong_row(teacher: AnswersTeacher, row: int, found: str, allowed: str, remedy: str = "Write it again.") -> UserError:
    """The error for a row of the file, counted from 1."""
    return UserError.about(KEY, f"{teacher.path}, row {row}: {found}", allowed, remedy)


def unanswered(teacher: AnswersTeacher, missing: int, total: int, remedy: str) -> UserError:
    """The error for documents of the data without a row."""
    return UserError.about(KEY, f"{teacher.path} without an answer to {missing:,} of {total:,} documents", "an answer to each", remedy)
