"""A root teacher with a tokenizer of its own, by the functions that a run calls."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from conf.errors import UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from models.alignment.load import OWN, fit_tokenizer
from models.alignment.teacher import AlignedTeacher
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data import tokenizers
from models.data.corpus import Corpus
from tasks.audit.compute import audited
from tasks.evaluation.evaluator import measure
from tasks.planning.plan import make_plan
from tasks.planning.preflight import check_ladder
from tasks.records.run import StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.fine_tuning import fine_tuning_work
from tasks.teachers.import_checkpoint import import_checkpoint
from tasks.training.find_or_train import find_or_train
from tasks.training.student import student_work
from tests.factories import ladder_of_file

pytestmark = pytest.mark.thorough

TEXT = "".join(f"the {word} sees {i} rivers and naïve moons 🌙; " for i, word in enumerate(["cat", "猫", "dog", "Zoë"] * 12))
SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2, "feed_forward": 24}
SMALLER = {**SHAPE, "hidden_size": 8, "layers": 1}
TRAINING = {"steps": 3, "batch_size": 4, "precision": "fp32", "validate_every": 3, "checkpoint_every": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts, and a teacher with merges of its own."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "home").mkdir()
    for index in range(24):
        (tmp_path / "texts" / f"{index}.txt").write_text(TEXT[index * 40 : index * 40 + 400])
    save_teacher(tmp_path / "teacher", tokenizers.train_bpe([TEXT], 320))
    return tmp_path


def save_teacher(folder: Path, tokenizer: Any) -> None:
    torch.manual_seed(0)
    shape = ladder_of().stages[0].student.shape
    assert shape is not None
    larger = shape.model_copy(update={"hidden_size": 24})
    model: Any = build(config_for(larger, Interface("causal-lm", 48, len(tokenizer), *tokenizers.special_ids(tokenizer))), "causal-lm")
    model.save_pretrained(folder)
    tokenizers.save(tokenizer, folder)


def ladder_of(objective: dict[str, Any] | None = None, *students: dict[str, Any], **settings: Any) -> Ladder:
    students = students or ({"shape": SHAPE}, {"shape": SMALLER})
    stages = [
        {"name": f"s{i}", "student": student, "training": TRAINING, "objective": objective or {"alignment": "bytes", "alpha": 0.5}}
        for i, student in enumerate(students)
    ]
    given = {"tokenizer": {"kind": "bytes"}, "teacher": {"source": "checkpoint", "path": "teacher"}, "evaluation": {"examples": 8}}
    return ladder_of_file("texts/*.txt", 48, **{"workload": "causal-lm", **given, "stages": stages, **settings})


def inputs_in(ladder: Ladder, folder: Path) -> StageInputs:
    from tasks.data.prepare import prepare_data

    context = Context(run="run-1", ladder="tiny", home=str(folder / "home"), base=str(folder))
    return StageInputs(ladder, prepare_data(ladder, context), context)


def imported(inputs: StageInputs) -> StageRecord:
    assert isinstance(inputs.ladder.teacher, CheckpointTeacher)
    return import_checkpoint(inputs.ladder.teacher, inputs)


def made(inputs: StageInputs, index: int, *above: StageRecord) -> StageRecord:
    stage = inputs.ladder.stages[index]
    return find_or_train(student_work(stage, above[-1], inputs.ladder, inputs.data, above), inputs)


def own_bits_per_byte(folder: Path, corpus: Corpus) -> float:
    """Of a teacher on whole held-out documents, by its own tokens, with their ends."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), tokenizers.load(folder)
    split, nats, size = corpus.split("valid"), 0.0, 0
    for begin, end in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        text = bytes(np.asarray(split.values[begin : end - 1], dtype=np.uint8).tolist()).decode()
        stop = tokenizers.special_ids(tokenizer)[0]
        ids = torch.tensor([[stop, *tokenizers.encode(tokenizer, [text])[0].tolist(), stop]])
        with torch.no_grad():
            logs = model(ids).logits[0, :-1].log_softmax(-1)
        nats -= float(logs.gather(1, ids[0, 1:, None]).sum())
        size += len(text.encode())
    return nats / math.log(2) / size


def test_a_chain_below_a_teacher_with_other_ids_is_trained_judged_and_audited(folder: Path) -> None:
    inputs = inputs_in(ladder_of(data={**ladder_of().data.model_dump(), "sequence_length": 512}), folder)
    check_ladder(inputs.ladder, inputs.context, inputs.data.corpus())
    root = imported(inputs)
    judged = measure(root, {}, inputs, "fp32", "valid")
    # Each document is one window here, so that its own tokens are those of the whole text.
    corpus = inputs.data.corpus()
    assert judged.quality.metrics["bits_per_byte"] == pytest.approx(own_bits_per_byte(Path(root.folder), corpus), rel=1e-3)
    assert len(judged.samples) == inputs.ladder.evaluation.samples
    one = made(inputs, 0, root)
    two = made(inputs, 1, root, one)
    assert (one.signals, two.signals) == ("live", "live")
    figures = measure(two, {"parent": one, "root": root}, inputs, "fp32", "valid").quality.metrics
    assert figures["root_nll"] == pytest.approx(judged.quality.metrics["nll"], rel=1e-5)
    assert 0 <= figures["agreement_root"] <= 1
    assert all(map(math.isfinite, figures.values()))
    audited({"student": two, "parent": one, "root": root}, inputs, "fp32", "valid", folder)
    audit = json.loads((folder / "audit.json").read_text())
    begins = _begins(root, inputs)
    assert audit["rows"] == begins < sum(figures["count"] for figures in judged.quality.slices.values())


def _begins(root: StageRecord, inputs: StageInputs) -> int:
    """Rows of the held-out windows where a span begins."""
    from models.architectures.checkpoint import load_model
    from models.data.batches import IGNORE
    from models.data.held_out import evaluation_batches

    corpus = inputs.data.corpus()
    teacher = fit_tokenizer(load_model(Path(root.folder), "causal-lm"), Path(root.folder), corpus)
    assert isinstance(teacher, AlignedTeacher)
    batches = evaluation_batches(corpus, "valid", inputs.ladder.evaluation.examples, 4)
    return sum(int((teacher.answers(b).begins & (b.targets.flatten() != IGNORE)).sum()) for b in batches)


def test_a_teacher_of_the_same_ids_is_asked_as_without_alignment(folder: Path) -> None:
    """To the last bit: nothing stands between it and its student."""
    found = []
    for objective in ({"alignment": "bytes", "alpha": 0.5}, {"alpha": 0.5}):
        inputs = inputs_in(ladder_of(objective, {"shape": SHAPE}, tokenizer={"kind": "teacher"}), folder)
        root = imported(inputs)
        assert not (Path(root.folder) / OWN).exists()
        found.append(made(inputs, 0, root))
    assert found[0].fingerprint != found[1].fingerprint
    assert found[0].weights_sha256 == found[1].weights_sha256


@pytest.mark.parametrize("objective", [{"alignment": "uld"}, {"alignment": "text", "alpha": 0.0}])
def test_other_ways_to_learn_from_it(folder: Path, objective: dict[str, Any]) -> None:
    inputs = inputs_in(ladder_of(objective, {"shape": SHAPE}), folder)
    assert made(inputs, 0, imported(inputs)).signals == (None if objective["alignment"] == "text" else "live")


def test_a_student_that_exists_brings_its_tokenizer(folder: Path) -> None:
    """Teacher of bytes, and data in the merges of a student's checkpoint."""
    (folder / "teacher").rename(folder / "student")
    save_teacher(folder / "teacher", tokenizers.bytes_tokenizer())
    settings = {"tokenizer": {"kind": "folder", "path": "student"}}
    inputs = inputs_in(ladder_of(None, {"shape": SHAPE}, **settings), folder)
    check_ladder(inputs.ladder, inputs.context)
    assert inputs.data.corpus().info.vocabulary == tokenizers.id_count(tokenizers.load(folder / "student"))
    student = made(inputs, 0, imported(inputs))
    assert tokenizers.load(Path(student.folder)).get_vocab() == tokenizers.load(folder / "student").get_vocab()
    same = ladder_of(None, {"shape": SHAPE}, teacher={"source": "checkpoint", "path": "student"}, tokenizer={"kind": "teacher"})
    assert inputs_in(same, folder).data.content_hash == inputs.data.content_hash  # wherever a tokenizer lies


def refused(ladder: Ladder, folder: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        imported(inputs_in(ladder, folder))


BOTH = r"\w+ with \d+ ids in .*teacher of the teacher and .* with 258 ids in .* of the students"


def test_settings_that_do_not_go_with_another_tokenizer_are_refused(folder: Path) -> None:
    refused(ladder_of({"alpha": 0.5}), folder, r"teacher\.path: .* For causal-lm they may differ with objective\.alignment")
    layers = {"shape": SHAPE, "initialisation": "layers"}
    refused(ladder_of(None, layers), folder, rf"stages\[0\]\.student\.initialisation: got 'layers'; allowed: random, for .*{BOTH}")
    mixed = ladder_of()
    stages = [
        mixed.stages[0],
        mixed.stages[1].model_copy(update={"teachers": ("root",), "objective": ladder_of({"alpha": 1}).stages[0].objective}),
    ]
    refused(
        mixed.model_copy(update={"stages": tuple(stages)}), folder, r"stages\[1\]\.objective\.alignment: got 'none'; allowed: bytes, uld"
    )
    tuned = ladder_of(teacher={"source": "checkpoint", "path": "teacher", "training": TRAINING})
    inputs = inputs_in(tuned, folder)
    assert isinstance(tuned.teacher, CheckpointTeacher)
    assert tuned.teacher.training is not None
    with pytest.raises(UserError, match=r"teacher\.training: .* none, for a teacher whose tokenizer is not that of the data"):
        fine_tuning_work(tuned.teacher, tuned.teacher.training, inputs)


def test_tokenizers_without_common_bytes_are_refused_with_both_named(folder: Path) -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "[END]": 2}, unk_token="[UNK]"))
    save_teacher(folder / "teacher", PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[END]"))
    why = "where the teacher's is a WordLevel that is neither byte-level nor has byte fallback"
    refused(
        ladder_of(), folder, rf"objective\.alignment: got .* with 3 ids in .*teacher of the teacher and .* 258 ids .*{why}.*data\.generate"
    )


@pytest.mark.parametrize(
    ("objective", "stage", "message"),
    [
        ({"alignment": "uld", "temperature": 2.0}, {}, r"objective\.temperature: got 2\.0; allowed: 1 with alignment uld"),
        ({"alignment": "text"}, {}, r"objective\.alpha: got 0\.9; allowed: 0 with alignment text"),
        ({"alignment": "bytes", "features": [{"kind": "hidden"}]}, {}, r"objective\.features: .* no feature with alignment bytes"),
        ({"alignment": "bytes"}, {"signals": {"source": "cached"}}, r"signals\.source: got 'cached'; allowed: live or auto"),
    ],
)
def test_settings_that_never_go_with_an_alignment(objective: dict[str, Any], stage: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ladder_of(None, stages=[{"name": "s", "student": {"shape": SHAPE}, "training": TRAINING, "objective": objective, **stage}])


def test_alignment_is_for_language_models() -> None:
    with pytest.raises(ValueError, match=r"objective\.alignment: got 'bytes'; allowed: none, for sequence-classification"):
        ladder_of(workload="sequence-classification")


def test_a_folder_of_a_tokenizer_is_asked_for_and_must_be_there(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"got kind 'folder' without a path"):
        ladder_of(tokenizer={"kind": "folder"})
    with pytest.raises(UserError, match=r"tokenizer\.path: got 'none'; allowed: a folder with tokenizer\.json"):
        inputs_in(ladder_of(tokenizer={"kind": "folder", "path": "none"}), folder)


def test_two_tokenizers_of_the_same_weights_are_two_teachers(folder: Path) -> None:
    first = imported(inputs := inputs_in(ladder_of(), folder))
    planned = make_plan(inputs.ladder, folder, Home(folder / "home")).teacher
    assert (planned.action, planned.fingerprint) == ("reuse", first.fingerprint)
    other = tokenizers.load(folder / "teacher")
    other.add_tokens(["zzz"])
    other.save_pretrained(folder / "teacher")
    second = imported(inputs_in(ladder_of(), folder))
    assert first.fingerprint != second.fingerprint
    assert first.weights_sha256 != second.weights_sha256
