"""A model is judged as a run judges it: beside the baseline, stored once."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.gate import Gate
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import save_model
from models.architectures.shapes import config_for
from models.base.files import weights_sha256
from models.evaluation.baselines import baseline
from models.students.initialise import random_model
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.evaluation.gate import judge
from tasks.records.run import Retention, StageRecord
from tasks.report.sections import quality
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import teacher_work
from tasks.tracking.figures import metrics_of
from tasks.training.find_or_train import find_or_train
from tests.factories import inputs_of, model_record, run_record

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
    return inputs_of(ladder_of(), tmp_path)


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


def test_further_held_out_data_are_judged_with_the_ladders_tokenizer_and_classes_and_gated(
    inputs: StageInputs, tmp_path: Path, caplog: pytest.LogCaptureFixture, calm: None
) -> None:
    reviews(tmp_path / "hotels.csv", seed=5)
    ladder = ladder_of(evaluation={"also": {"hotels": {"source": "files", "paths": ["hotels.csv"]}}})
    data = prepare_data(ladder, inputs.context)
    assert (data.content_hash, data.fingerprint) == (inputs.data.content_hash, inputs.data.fingerprint), "the ladder's own data as without"
    assert data.also["hotels"].content_hash != data.content_hash
    also = data.also["hotels"].corpus().info
    assert (also.label_names, also.sequence_length) == (data.corpus().info.label_names, 32)
    own = replace(inputs, ladder=ladder, data=data)
    root = evaluate_model(made(tmp_path, inputs, "root", (0.0, 1.0, 0.0)), [], own, "fp32")
    assert root.metrics == evaluate_model(root, [], inputs, "fp32").metrics
    student = evaluate_model(made(tmp_path, inputs, "student", (1.0, 0.0, 0.0)), [root], own, "fp32")
    labels = data.also["hotels"].corpus().split("valid").labels
    found = student.also["hotels"]
    assert found.rows == len(labels) > 60
    assert found.metrics["accuracy"] == pytest.approx(float((labels == 0).mean()))
    assert found.retention.root == pytest.approx(found.metrics["accuracy"] / root.also["hotels"].metrics["accuracy"])
    assert f"student on hotels: accuracy {100 * found.metrics['accuracy']:.1f} %" in caplog.text
    assert metrics_of(student)["retention/root/hotels"] == found.retention.root
    gate = Gate(min_also_retention=0.9)
    assert judge(student, gate)[1] == (
        f"student keeps {found.retention.root:.3f} of the root on hotels; gate.min_also_retention asks at least 0.9",
    )
    few = student.model_copy(update={"also": {"hotels": found.model_copy(update={"few": True, "retention": Retention(root=1.0)})}})
    assert "too few examples in evaluation.also.hotels" in judge(few, gate)[1][0]
    assert judge(student.model_copy(update={"also": {}}), gate)[0] == "stopped"
    assert judge(student, Gate(min_also_retention=0.1)) == ("passed", ())
    shown = quality.section(run_record("run-1", root, student, workload="sequence-classification"))
    assert shown
    assert shown["tables"][1]["title"] == "Also judged on hotels, which no training saw"
    assert [row[0] for row in shown["tables"][1]["rows"]] == ["root", "student", "majority class"]


def test_further_data_with_a_class_of_their_own_are_refused(inputs: StageInputs, tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("text,label\n" + "".join(f"a {i},{label}\n" for i, label in enumerate(["good", "bad", "awful"] * 5)))
    with pytest.raises(UserError, match=r"awful"):
        prepare_data(ladder_of(evaluation={"also": {"odd": {"source": "files", "paths": ["odd.csv"]}}}), inputs.context)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"evaluation": {"also": {"x y": {"source": "files", "paths": ["a.csv"]}}}}, r"evaluation\.also.*got the name 'x y'"),
        ({"evaluation": {"also": {"x": {"source": "digits"}}}}, r"evaluation\.also\.x\.source: got 'digits'; allowed: .*files"),
        (
            {"stages": [{"name": "a", "student": {"shape": SHAPE}, "training": {"steps": 1}, "gate": {"min_also_retention": 0.5}}]},
            r"stages\[0\]\.gate\.min_also_retention: needs other data",
        ),
    ],
)
def test_settings_of_further_data_that_do_not_fit_are_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    plain = ladder_of().model_dump(mode="json") | changed
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "ladder.yaml"))
