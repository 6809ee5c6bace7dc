"""Golden loss curves; regenerate: `python -m tests.models.training.test_golden`."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conf.schema.stage.objective import Objective
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.architectures.shapes import config_for
from models.base.interface import Interface
from models.base.numerics import NUMERICS
from models.data.batches import TrainingBatches
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.signals.sources import live
from models.students.initialise import random_model
from models.training.loop import Plan, Step, train

pytestmark = pytest.mark.thorough

GOLDEN = Path(__file__).parent / "golden"
REGENERATE = "python -m tests.models.training.test_golden"
STEPS = 50
COLUMNS = ("loss", "ce")
TEXT = (
    "A teacher who knows ten thousand words writes a letter to a pupil who may keep a hundred. The pupil cannot keep the letter; "
    "the pupil keeps how the teacher hesitates between one word and the next. That is worth more than the word which was chosen, "
    "for it says which words are near to each other, and how near. In 1847 a clerk copied 365 such letters by hand: none was lost. "
)


def corpus_of(folder: Path, info: dict[str, Any], values: np.ndarray, offsets: np.ndarray, labels: np.ndarray) -> Corpus:
    count = len(labels)
    split = Split(values, offsets, labels, np.zeros(count, dtype=np.int32), np.diff(offsets))
    sizes = {"documents": dict.fromkeys(SPLITS, count), "tokens": dict.fromkeys(SPLITS, len(values))}
    write_corpus(folder, CorpusInfo(slice_names=("all",), **sizes, **info), dict.fromkeys(SPLITS, split))
    return Corpus(folder, "hash")


def digits(folder: Path) -> Corpus:
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels, labels = (data.images[:, None] / 16).astype(np.float32), data.target.astype(np.int64)
    info = {"workload": "image-classification", "sequence_length": 2, "vocabulary": None, "end_id": None, "pad_id": None}
    info |= {"label_names": tuple("0123456789"), "image_shape": (1, 8, 8)}
    return corpus_of(folder, info, pixels, np.arange(len(labels) + 1), labels)


def letters(folder: Path) -> Corpus:
    ids = np.array([*TEXT.encode(), 256] * 3, dtype=np.uint16)
    info = {"workload": "causal-lm", "sequence_length": 32, "vocabulary": 258, "end_id": 256, "pad_id": 257}
    info |= {"label_names": (), "image_shape": None}
    return corpus_of(folder, info, ids, np.arange(4) * (len(ids) // 3), np.full(3, -1))


def model(corpus: Corpus, family: str, seed: int, hidden: int) -> nn.Module:
    known = corpus.info
    shape = Shape.model_validate({"family": family, "hidden_size": hidden, "layers": 2, "heads": 4, "feed_forward": 2 * hidden})
    interface = Interface(known.workload, known.sequence_length, known.vocabulary, 256, 257, known.classes, known.image_shape)
    # By the way that students are made, so that a change of first weights moves the curve too.
    return random_model(config_for(shape, interface), known.workload, seed)


def course(make: Callable[[Path], Corpus], family: str) -> list[tuple[float, ...]]:
    """A teacher learns from labels, then teaches a smaller student: both curves, of 50 steps each."""
    torch.set_num_threads(1)
    points: list[tuple[float, ...]] = []

    def on_step(step: Step) -> None:
        points.append(tuple(getattr(step, column) for column in COLUMNS))

    common = {"steps": STEPS, "batch_size": 32, "accumulation": 2, "learning_rate": 2e-3, "precision": "fp32"}
    objective = Objective.model_validate({"alpha": {"kind": "cosine", "start": 0.9, "end": 0.5}, "temperature": 2.0})
    with tempfile.TemporaryDirectory() as folder:
        corpus = make(Path(folder))
        vocabulary = corpus.info.vocabulary
        teacher, student = model(corpus, family, 1, 32), model(corpus, family, 2, 16)
        train(teacher, TrainingBatches(corpus, 32, 1), Plan(Training.model_validate(common), None, 1, vocabulary), on_step=on_step)
        falling = Training.model_validate(common | {"schedule": "warmup-stable-decay"})
        plan = Plan(falling, objective, 2, vocabulary)
        train(student, TrainingBatches(corpus, 32, 2), plan, signals=live(teacher, vocabulary), on_step=on_step)
    return points


CURVES: dict[str, tuple[Callable[[Path], Corpus], str]] = {"digits": (digits, "vit"), "letters": (letters, "llama")}


@pytest.mark.parametrize("name", CURVES)
def test_the_curve_is_the_same_twice_and_the_same_as_ever(name: str) -> None:
    first, second = course(*CURVES[name]), course(*CURVES[name])
    assert first == second, "two trainings on one machine must give the same numbers to the last digit"
    assert first[STEPS - 1][1] < 0.7 * first[0][1]
    assert first[-1][1] < 0.9 * first[STEPS][1]
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    if golden["numerics"] != NUMERICS:
        pytest.fail(f"NUMERICS is {NUMERICS}, the golden curve was written with {golden['numerics']}: write it anew with `{REGENERATE}`.")
    assert golden["columns"] == list(COLUMNS)
    found, expected = np.array(first), np.array(golden["curve"])
    apart = np.abs(found - expected) / np.maximum(np.abs(expected), 1e-12)
    if found.shape != expected.shape or apart.max() > 1e-5:
        row, column = np.unravel_index(apart.argmax(), apart.shape)
        pytest.fail(
            f"the curve moved: {COLUMNS[column]} of point {row} is {found[row, column]!r}, was {expected[row, column]!r}, and NUMERICS is "
            f"still {NUMERICS}. If that is meant: raise NUMERICS and add a CHANGELOG line, then write the curve anew with `{REGENERATE}`."
        )


def test_every_golden_file_is_compared() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CURVES)


def write() -> None:
    for name, (make, family) in CURVES.items():
        rows = ",\n  ".join(json.dumps(point) for point in course(make, family))
        columns = json.dumps(list(COLUMNS))
        text = f'{{\n "numerics": {NUMERICS},\n "columns": {columns},\n "curve": [\n  {rows}\n ]\n}}\n'
        (GOLDEN / f"{name}.json").write_text(text)


if __name__ == "__main__":
    write()
