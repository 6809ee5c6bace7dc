"""A root teacher of random weights, data with prompts and answers, and a home."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.records.run import StageRecord
from tasks.runtime.stage_inputs import StageInputs
from tests.factories import inputs_of, ladder_of_file, model_record
from tests.published import published_folder

SHAPE = {"family": "llama", "hidden_size": 16, "layers": 2, "heads": 2, "feed_forward": 32}
STAGE = {"name": "small", "student": {"shape": SHAPE}, "training": {"steps": 1}}
Made = Callable[..., StageInputs]


@pytest.fixture
def root(tmp_path: Path) -> StageRecord:
    """A random model of bytes."""
    return model_record("teacher", folder=str(published_folder(tmp_path / "root", "causal-lm")))


@pytest.fixture
def inputs(tmp_path: Path) -> Made:
    """Make inputs whose `data.generate` has these settings, and whose documents are twenty questions with answers."""
    rows = [{"prompt": f"What is number {n} of the list of numbers?", "completion": f" It is {n}."} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "home").mkdir()
    (tmp_path / "prompts.txt").write_text("".join(f"say {letter}\n" for letter in "abcdefghij"))

    def make(**generate: Any) -> StageInputs:
        settings = {"prompts": {"paths": ["prompts.txt"]}, "max_tokens": 12, "batch_size": 2} | generate
        rules = {"unfinished": "keep", "max_repeated": 1.0, "duplicates": None} | dict(generate.get("selection", {}))
        columns = {"prompt": "prompt", "completion": "completion"}
        data = {"source": "files", "paths": ["rows.jsonl"], "columns": columns, "sequence_length": 64, "generate": settings}
        data |= {"valid_fraction": 0.2, "test_fraction": 0.2}
        data["generate"]["selection"] = rules
        teacher = {"source": "train", "shape": SHAPE, "training": {"steps": 1}}
        return inputs_of(ladder_of_file(workload="causal-lm", data=data, teacher=teacher, stages=[STAGE]), tmp_path)

    return make
