"""A model is judged as a run judges it: beside the baseline, stored once."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import UserError
from conf.schema.ladder import Ladder, Shape
from models.architectures.checkpoint import save_model
from models.architectures.shapes import config_for
from models.base.files import weights_sha256
from models.evaluation.baselines import baseline
from models.students.initialise import random_model
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.run import StageRecord
from tasks.runtime.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import teacher_work
from tasks.training.find_or_train import find_or_train
from tests.factories import model_record

SHAPE = {"family": "bert", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 16}
WORDS = {"bad": ("dull", "cold", "late"), "good": ("warm", "superb", "quiet"), "so-so": ("plain", "usual", "fair")}


def reviews(path: Path, seed: int = 0, rows: int = 200) -> None:
    """A table of texts with labels, `good` twice as often as each other one."""
    draw = random.Random(seed)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for number in range(rows):
            label = draw.choice(["bad", "good", "good", "so-so"])
            table.writerow([f"room {seed} {number} was {' and '.join(draw.sample(WORDS[label], 2))}", label])


@pytest.fixture
def inputs(tmp_path: Path) -> StageInputs:
    reviews(tmp_path / "reviews.csv")
    ladder = ladder_of()
    context = Context(run="run-1", ladder="tiny", home=str(tmp_path / "home"), base=str(tmp_path))
    return StageInputs(ladder, prepare_data(ladder, context), context)


def ladder_of(**more: Any) -> Ladder:
    training = {"steps": 3, "batch_size": 4, "precision": "fp32"}
    plain: dict[str, Any] = {
        "name": "tiny",
        "workload": "sequence-classification",
        "compute": {"at_once": None},
        "data": {"source": "files", "paths": ["reviews.csv"], "sequence_length": 32, "valid_fraction": 0.3},
        "teacher": {"source": "train", "shape": SHAPE, "training": training},
        "stages": [{"name": "small", "student": {"shape": SHAPE}, "training": training}],
    }
    return Ladder.model_validate(plain | more)


def made(folder: Path, inputs: StageInputs, name: str, bias: tuple[float, ...] | None = None, seed: int = 0) -> StageRecord:
    """A model with random weights in a folder; with a bias, one that answers by it alone."""
    interface = inputs.data.corpus().interface
    model = random_model(config_for(Shape.model_validate(SHAPE), interface), interface.workload, seed)
    if bias is not None:
        head: Any = model.get_submodule("classifier")
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.tensor(bias))
    save_model(model, folder / name, inputs.data.corpus().tokenizer_folder)
    return model_record(name, folder=str(folder / name), weights_sha256=weights_sha256(folder / name))


def test_the_baseline_stands_beside_the_figures_and_one_answer_for_all_is_noticed(
    inputs: StageInputs, tmp_path: Path, caplog: pytest.LogCaptureFixture, calm: None
) -> None:
    same = evaluate_model(made(tmp_path, inputs, "same", (0.0, 2.0, 0.0)), [], inputs, "fp32")
    labels = inputs.data.corpus().split("valid").labels
    share = float((labels == 1).mean())
    assert same.metrics["baseline_accuracy"] == pytest.approx(share) == same.metrics["accuracy"]
    assert same.metrics["distinct_answers"] == 1
    assert same.metrics["baseline_nll"] == baseline(inputs.data.corpus()).metrics["nll"] < same.metrics["nll"]
    assert f"same has learned nothing: it gives the same class for every input (majority class {100 * share:.1f} %)" in caplog.text
    again = evaluate_model(same, [], inputs, "fp32")
    assert again.metrics == same.metrics
    assert len(list((Path(inputs.context.home) / "store" / "evaluation").iterdir())) == 1


def test_weights_of_classes_that_the_data_lack_are_refused_once_they_are_prepared(inputs: StageInputs) -> None:
    training = {"steps": 3, "batch_size": 4}
    stage = {"name": "small", "student": {"shape": SHAPE}, "training": training, "objective": {"class_weights": {"god": 2}}}
    with pytest.raises(UserError, match=r"stages\[0\]\.objective\.class_weights: got 'god'.*classes of the data are: bad, good, so-so"):
        prepare_data(ladder_of(stages=[stage]), inputs.context)


def test_a_class_of_overwhelming_weight_is_every_answer(inputs: StageInputs) -> None:
    training = {"steps": 40, "batch_size": 32, "precision": "fp32", "learning_rate": 1e-2}
    teacher = {"source": "train", "shape": SHAPE, "training": training, "class_weights": {"bad": 1e6}}
    own = replace(inputs, ladder=ladder_of(teacher=teacher))
    assert own.ladder.teacher.source == "train"
    judged = evaluate_model(find_or_train(teacher_work(own.ladder, own.ladder.teacher, own.data), own), [], own, "fp32")
    assert judged.metrics["distinct_answers"] == 1
    assert judged.metrics["accuracy"] == pytest.approx(float((own.data.corpus().split("valid").labels == 0).mean()))
