"""What most students lost is told from what one seed lost, arm by arm, and written down with everybody's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from conf.schema.measures.proof import Arm
from models.data.corpus import Corpus
from tasks.proof.lost_examples import LabelledAnswers, identified, write_identified
from tasks.report.sections.measures import proof as page
from tests.factories import corpus_in, split_of
from tests.tasks.proof.test_proof import compared, record_in, replicates, save_proof

RIGHT = [0, 1, 2, 3, 0, 1]


def answers(*said: int) -> LabelledAnswers:
    return np.array([said, RIGHT], dtype=np.int32)


ROOT = answers(0, 1, 2, 3, 1, 1)  # wrong about the fifth
ARMS: dict[Arm, list[LabelledAnswers]] = {
    "staged": [answers(0, 3, 2, 3, 0, 1), answers(0, 3, 2, 3, 0, 1), answers(3, 1, 0, 3, 1, 1)],  # the second and the fifth
    "scratch": [answers(0, 3, 1, 3, 1, 1), answers(0, 3, 1, 3, 1, 1), answers(0, 1, 2, 3, 1, 1)],  # the second and the third
}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    one = split_of([[0]], [0], [0], [1])
    return corpus_in(tmp_path / "corpus", "image-classification", 1, dict.fromkeys(("train", "valid", "test"), one), 4, (1, 1, 1))


def test_each_arm_has_what_most_of_its_seeds_lost() -> None:
    staged, scratch = identified(ROOT, ARMS)
    assert (staged.arm, staged.seeds, staged.rows, staged.identified, staged.known) == ("staged", 3, 6, 2, 1)
    assert (scratch.identified, scratch.known, scratch.shared) == (2, 2, 1)


def test_two_seeds_are_too_few(tmp_path: Path, corpus: Corpus) -> None:
    few: dict[Arm, list[LabelledAnswers]] = {arm: seeds[:2] for arm, seeds in ARMS.items()}
    assert identified(ROOT, few) == ()
    assert write_identified(tmp_path, ROOT, few, corpus) is None


def test_the_file_has_every_example_with_all_answers(tmp_path: Path, corpus: Corpus) -> None:
    path = write_identified(tmp_path, ROOT, ARMS, corpus)
    assert path is not None
    assert parquet.read_table(path).to_pylist() == [
        {"row": 1, "label": "class 1", "root": "class 1", "staged": "class 3", "scratch": "class 3"},
        {"row": 2, "label": "class 2", "root": "class 2", "staged": "class 2", "scratch": "class 1"},
        {"row": 4, "label": "class 0", "root": "class 1", "staged": "class 0", "scratch": "class 1"},
    ]


def test_the_report_shows_them(tmp_path: Path) -> None:
    proof = compared("digits", {"staged": replicates(0.95), "scratch": replicates(0.9)})
    record = record_in(tmp_path / "run")
    save_proof(record, proof.model_copy(update={"identified": identified(ROOT, ARMS)}))
    section = page.section(record)
    assert section is not None
    assert [(each.arm, share) for each, share in section["lost"]] == [("staged", "33.3 %"), ("scratch", "33.3 %")]
