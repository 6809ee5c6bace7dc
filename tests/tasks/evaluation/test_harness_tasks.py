"""Tasks of lm-eval: read without running code, stored by weights and files, judged offline."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.stage.gate import Gate
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import save_model
from models.architectures.shapes import config_for
from models.base.files import weights_sha256
from models.base.task_figures import TaskFigures
from models.evaluation import harness
from models.evaluation.harness import figures_of
from models.students.initialise import random_model
from tasks.evaluation import harness_tasks
from tasks.evaluation.evaluate import evaluate_model
from tasks.evaluation.gate import judge
from tasks.evaluation.harness_tasks import HarnessTask, read_tasks, task_drops, task_identity
from tasks.records.run import StageRecord
from tasks.report.sections import quality
from tasks.runtime.stage_inputs import StageInputs
from tasks.tracking.figures import metrics_of
from tests.factories import inputs_of, model_record, run_record

COLOURS = Path(__file__).with_name("colours")
SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 24}
RESULTS = {
    "results": {
        "t": {"alias": "t", "sample_len": 9, "acc,none": 0.5, "acc_stderr,none": 0.1, "exact_match,strict": 0.25, "f1_stderr,none": "N/A"}
    },
    "higher_is_better": {"t": {"acc": True, "exact_match": True}},
    "n-samples": {"t": {"original": 12, "effective": 9}},
}


def task_record(value: float, error: float | None = 0.02, higher: bool = True, examples: int = 500) -> TaskFigures:
    return TaskFigures(metrics={"acc": value}, errors={} if error is None else {"acc": error}, main="acc", higher=higher, examples=examples)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(COLOURS, tmp_path / "colours")
    return tmp_path


@pytest.fixture
def inputs(place: Path) -> StageInputs:
    (place / "texts").mkdir()
    for i in range(8):
        (place / "texts" / f"{i}.txt").write_text(f"The sky number {i} is blue, and grass is green. " * 3)
    training = {"steps": 1, "batch_size": 2, "precision": "fp32"}
    plain: dict[str, Any] = {
        "name": "tiny",
        "data": {"source": "files", "paths": ["texts/*.txt"], "sequence_length": 32, "valid_fraction": 0.3},
        "teacher": {"source": "train", "shape": SHAPE, "training": training},
        "evaluation": {"tasks": ["colours/"], "examples": 8, "samples": 0},
        "stages": [{"name": "small", "student": {"shape": SHAPE}, "training": training}],
    }
    return inputs_of(Ladder.model_validate(plain), place)


def test_figures_are_read_from_the_harness_results() -> None:
    found = figures_of(RESULTS, "t")
    assert (found.metrics, found.errors) == ({"acc": 0.5, "exact_match,strict": 0.25}, {"acc": 0.1})
    assert (found.main, found.higher, found.examples) == ("acc", True, 9)


def test_a_group_counts_the_examples_of_its_tasks() -> None:
    group = {
        "results": {"g": {"word_perplexity,none": 9.0}},
        "group_subtasks": {"g": ["t"]},
        "higher_is_better": {"g": {"word_perplexity": False}},
    }
    found = figures_of({**RESULTS, **group}, "g")
    assert (found.main, found.higher, found.examples) == ("word_perplexity", False, 9)


def test_a_task_of_ones_own_is_read_with_its_data_beside_it(place: Path) -> None:
    (task,) = read_tasks(["colours/"], place)
    assert task == read_tasks(["colours/colours.yaml"], place)[0] == read_tasks([str(place / "colours" / "colours.yaml")], Path("/"))[0]
    assert task.settings is not None
    assert task.settings["dataset_kwargs"]["data_files"] == {"test": str(place / "colours" / "colours.jsonl")}
    assert read_tasks(["arc_easy"], place) == [HarnessTask("arc_easy")]
    other = place / "elsewhere"
    shutil.copytree(place / "colours", other)
    assert read_tasks(["elsewhere/"], place)[0].sha256 == task.sha256, "the same files in another place are the same task"
    with (place / "colours" / "colours.jsonl").open("a") as file:
        file.write("\n")
    assert read_tasks(["colours/"], place)[0].sha256 != task.sha256


@pytest.mark.parametrize(
    ("text", "asked", "message"),
    [
        (None, ["nowhere/"], r"evaluation\.tasks\[0\]: got 'nowhere/'; allowed: a YAML file of a task"),
        ("task: !function utils.run\n", ["bad.yaml"], r"bad\.yaml'; allowed: plain YAML\. Ladder runs no code of a task"),
        ("include: other.yaml\ntask: x\n", ["bad.yaml"], "the settings of one task"),
        ("- a\n", ["bad.yaml"], "the settings of one task"),
        (
            "task: x\ndataset_path: json\ndataset_kwargs: {data_files: gone.jsonl}\n",
            ["bad.yaml"],
            r"gone\.jsonl'; allowed: data files that are there",
        ),
        ("task: x\nmetric_list: [{metric: ./evil}]\n", ["bad.yaml"], r"metric: ./evil'; allowed: metrics of lm-eval"),
        ("task: x\nmetric_list: [{metric: acc, hf_evaluate: true}]\n", ["bad.yaml"], "hf_evaluate: True'; allowed: false"),
        ("task: x\ndataset_path: json\n", ["bad.yaml"], "dataset_path: json'; allowed: data_files"),
        ("task: x\ndataset_path: pandas\ndataset_kwargs: {data_files: x.pkl}\n", ["bad.yaml"], "dataset_path: pandas'; allowed: json"),
        ("task: x\ndataset_path: ../folder\n", ["bad.yaml"], r"dataset_path: \.\./folder'; allowed: json"),
        ("task: x\ndataset_path: a/b\ndataset_kwargs: {trust_remote_code: true}\n", ["bad.yaml"], "dataset_kwargs: trust_remote_code'"),
        ("task: x\ndataset_path: a/b\ndataset_kwargs: {data_dir: /etc}\n", ["bad.yaml"], "dataset_kwargs: data_dir'; allowed: data_files"),
        ("task: colours\n", ["bad.yaml", "colours/"], "got 'colours'; allowed: tasks of different names"),
    ],
)
def test_what_is_no_task_is_refused(place: Path, text: str | None, asked: list[str], message: str) -> None:
    if text is not None:
        (place / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_tasks(asked, place)


def test_a_task_is_stored_by_weights_files_and_version(place: Path, inputs: StageInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness_tasks, "harness_version", lambda: "0.4.13")
    (task,), record = read_tasks(["colours/"], place), model_record()
    first = task_identity(record, task, inputs)
    assert first == task_identity(record, task, replace(inputs, context=inputs.context.model_copy(update={"run": "other"})))
    assert first != task_identity(record.model_copy(update={"weights_sha256": "other"}), task, inputs)
    assert first != task_identity(record, task._replace(sha256="other"), inputs)
    monkeypatch.setattr(harness_tasks, "harness_version", lambda: "0.5.0")
    assert first != task_identity(record, task, inputs)


def test_without_the_extra_there_is_one_message(inputs: StageInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> str:
        raise harness_tasks.PackageNotFoundError

    monkeypatch.setattr(harness_tasks, "version", absent)
    with pytest.raises(UserError, match=r"evaluation\.tasks: .*lm-eval installed, which it is not\. Run `pip install '\.\[lm-eval\]'`"):
        harness_tasks.judge_by_tasks(model_record(), inputs)


def test_a_drop_below_the_root_is_gated_with_its_interval() -> None:
    root = model_record("root", tasks={"t": task_record(0.8)})
    student = model_record("student", tasks={"t": task_record(0.75)})
    drop = task_drops(student, root)["t"]
    assert drop.value == pytest.approx(0.05)
    assert drop.high == pytest.approx(0.05 + 1.959964 * 0.02 * 2**0.5)
    assert judge(student, Gate(max_task_drop=0.2), [root]) == ("passed", ())
    verdict, reasons = judge(student, Gate(max_task_drop=0.06), [root])
    assert verdict == "stopped"
    assert reasons == (
        "student drops by 0.05 below the root in task t, at most 0.105 with 97.5 % confidence; gate.max_task_drop asks at most 0.06",
    )
    few = student.model_copy(update={"tasks": {"t": task_record(0.8, examples=12)}})
    assert "too few examples in task t (12 of 30)" in judge(few, Gate(max_task_drop=0.5), [root])[1][0]
    assert "not judged by the same tasks" in judge(model_record("x"), Gate(max_task_drop=0.5), [root])[1][0]
    worse = model_record("w", tasks={"t": task_record(12.0, None, higher=False)})
    better = model_record("b", tasks={"t": task_record(10.0, None, higher=False)})
    assert task_drops(worse, better)["t"].value == 2.0, "of a figure that is better where it is lower"


def test_tasks_are_in_the_report_and_in_mlflow() -> None:
    root, student = (model_record(name, tasks={"t": task_record(value)}) for name, value in (("root", 0.8), ("student", 0.75)))
    (table,) = quality._tasks(run_record("run-1", root, student, workload="causal-lm"))
    assert table["headers"] == ["model", "t, acc (500)"]
    assert table["rows"] == [["root", "80.0 % (± 2.0 %)"], ["student", "75.0 % (± 2.0 %)"]]
    assert metrics_of(student)["task/t/acc"] == 0.75


@pytest.mark.slow
def test_a_local_task_judges_root_and_student_offline_and_once(inputs: StageInputs, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    interface = inputs.data.corpus().interface
    models: list[StageRecord] = []
    for seed, name in enumerate(("root", "student")):
        model = random_model(config_for(Shape.model_validate(SHAPE), interface), interface.workload, seed)
        save_model(model, place / name, inputs.data.corpus().tokenizer_folder)
        record = model_record(name, folder=str(place / name), weights_sha256=weights_sha256(place / name))
        models.append(evaluate_model(record, models[:1], inputs, "fp32"))
    for model in models:
        # Every id is equally likely before training, so the shorter answer wins, and by length all are alike.
        assert set(model.tasks["colours"].metrics) == {"acc", "acc_norm"}
        assert model.tasks["colours"].examples == 36
        assert model.tasks["colours"].metrics["acc"] == pytest.approx(shorter_wins())
    assert task_drops(models[1], models[0])["colours"].value == 0.0
    stored = sorted((place / "home" / "store" / "task").iterdir())
    assert evaluate_model(models[1], models[:1], inputs, "fp32").tasks == models[1].tasks
    assert sorted((place / "home" / "store" / "task").iterdir()) == stored
    assert len(stored) == 2


def shorter_wins() -> float:
    """Share of the examples whose right answer has fewer bytes, or, of equal ones, stands first."""
    import json

    rows = [json.loads(line) for line in (COLOURS / "colours.jsonl").read_text().splitlines()]
    picked = [min(range(2), key=lambda i: (len(row["choices"][i]), i)) for row in rows]
    return sum(choice == row["answer"] for choice, row in zip(picked, rows, strict=True)) / len(rows)


def test_the_templates_of_a_task_reach_no_python() -> None:
    utils = pytest.importorskip("lm_eval.utils")
    from jinja2.exceptions import SecurityError

    reach = "{{ cycler.__init__.__globals__.os.getcwd() }}"
    harness._confine_templates()
    with pytest.raises(SecurityError):
        utils.apply_template(reach, {})
    assert utils.apply_template("{{ text | regex_replace('a', 'b') }}!", {"text": "a"}) == "b!"


def test_metrics_are_those_that_lm_eval_has() -> None:
    pytest.importorskip("lm_eval")
    import lm_eval.api.metrics  # noqa: F401  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import metric_registry  # pyright: ignore[reportMissingImports]

    assert set(harness_tasks.METRICS) == set(metric_registry.keys())


@pytest.mark.slow
def test_tasks_by_name_are_looked_up_before_anything_is_computed(inputs: StageInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def refused(name: str) -> str:
        evaluation = inputs.ladder.evaluation.model_copy(update={"tasks": ("colours/", name)})
        with pytest.raises(UserError) as caught:
            harness_tasks.look_up_tasks(inputs.ladder.model_copy(update={"evaluation": evaluation}))
        return str(caught.value)

    found = refused("hellaswag")
    assert found.startswith("evaluation.tasks[1]: got 'hellaswag'; allowed: a task whose data set is on this machine or can be fetched.")
    assert "HF_HUB_OFFLINE=0" in found
    assert "allowed: a task of lm-eval, or the path of a YAML file" in refused("helaswag")


@pytest.mark.slow
def test_a_task_that_lm_eval_cannot_run_is_one_message(place: Path, inputs: StageInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    interface = inputs.data.corpus().interface
    model = random_model(config_for(Shape.model_validate(SHAPE), interface), interface.workload, 0)
    save_model(model, place / "model", inputs.data.corpus().tokenizer_folder)
    file = next((place / "colours").glob("*.yaml"))
    file.write_text(file.read_text().replace("{{question}}", "{{question | no_such_filter}}"))
    record = model_record(folder=str(place / "model"))
    with pytest.raises(UserError, match=r"evaluation\.tasks: got 'colours'; allowed: a task that lm-eval can run here.*no_such_filter"):
        harness_tasks.judge_by_tasks(record, inputs)
