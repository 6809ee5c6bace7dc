"""A file of top-k answers to small texts, and ladders below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.ladder import Ladder
from models.architectures.checkpoint import load_model
from models.architectures.token_answers import TokenAnswers
from tasks.records.run import StageRecord
from tasks.teachers.teacher import prepare_teacher
from tests.factories import inputs_of, ladder_of_file

SHAPE = {"family": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32}
TRAINING = {"steps": 40, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32", "validate_every": 40, "checkpoint_every": 40}
TEXTS = [
    *(f"{i} {word * (1 + i % 3)}" for i in range(30) for word in ("ab", "ba")),
    *(f"{i}: several of {i} and {i} and {i} windows" for i in range(10)),
]
LENGTH = 16
END = 256
VOCABULARY = 258


def ladder_of(stage: dict[str, Any] | None = None, student: dict[str, Any] | None = None, **changes: Any) -> Ladder:
    teacher = {"source": "answers", "path": "answers.parquet", "parameters": 10**6, **changes.pop("teacher", {})}
    settings: dict[str, Any] = {
        "workload": "causal-lm",
        "teacher": teacher,
        "evaluation": {"examples": 64, "samples": 2, "sample_tokens": 2},
        "stages": [{"name": "small", "student": {"shape": SHAPE, **(student or {})}, "training": TRAINING, **(stage or {})}],
    }
    return ladder_of_file(length=LENGTH, **settings | changes)


def likely(sure: float = 0.9) -> tuple[list[Any], list[Any]]:
    """Answers that know every text: the right id with a probability, and one other."""
    ids = [[[token, (token + 1) % 256] for token in [*text.encode(), END]] for text in TEXTS]
    return ids, [[[float(np.log(sure)), float(np.log(0.06))] for _ in each] for each in ids]


def write(folder: Path, ids: list[Any], logprobs: list[Any], texts: list[str] | None = None) -> None:
    order = list(reversed(range(len(ids))))
    named = texts or TEXTS
    columns = {"text": [named[i] for i in order], "ids": [ids[i] for i in order], "logprobs": [logprobs[i] for i in order]}
    pq.write_table(pa.table(columns), folder / "answers.parquet")


def refused(folder: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepare_teacher(inputs_of(ladder_of(**changes), folder))
    return str(caught.value)


def log_probs(model: torch.nn.Module, text: str) -> NDArray[np.float32]:
    """(n + 1, V) of a document by itself, which begins after the end id."""
    ids = torch.tensor([[END, *text.encode()]])
    with torch.no_grad():
        return cast(Any, model)(input_ids=ids).logits[0, :, :VOCABULARY].log_softmax(-1).numpy()


def stored(root: StageRecord) -> TokenAnswers:
    model = load_model(Path(root.folder), "causal-lm")
    assert isinstance(model, TokenAnswers)
    return model


def folder_of(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))
    (tmp_path / "home").mkdir()
    write(tmp_path, *likely())
    return tmp_path
