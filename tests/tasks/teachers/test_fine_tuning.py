"""Checkpoints that are trained on the data before they teach."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTModel,
)

from conf.errors import RunCancelled, UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from models.base.interface import Interface
from models.students.pretrained import load_to_train
from tasks.data.prepare import check_class_weights
from tasks.evaluation.evaluate import evaluate_model
from tasks.planning.plan import make_plan
from tasks.planning.preflight import check_ladder
from tasks.runtime import cancellation
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.fine_tuning import fine_tuning_work
from tasks.teachers.teacher import prepare_teacher
from tests.factories import WORDS, inputs_of, ladder_of_file, save_with_words, write_good_and_bad

pytestmark = pytest.mark.thorough

NARROW: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TRAINING = {"steps": 30, "batch_size": 16, "learning_rate": 3e-3, "precision": "fp32", "validate_every": 30, "checkpoint_every": 10}


def bert_config(**changes: Any) -> BertConfig:
    return BertConfig(**NARROW, vocab_size=len(WORDS), max_position_embeddings=32, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_good_and_bad(tmp_path)
    torch.manual_seed(0)
    return tmp_path


def ladder_of(training: dict[str, Any] | None = None, workload: str = "sequence-classification", **changes: Any) -> Ladder:
    family = {"sequence-classification": "bert", "causal-lm": "llama", "image-classification": "vit"}[workload]
    shape = {"family": family, "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8, "patch_size": 4}
    teacher = {"source": "checkpoint", "path": "teacher"} | ({"training": training} if training else {})
    settings: dict[str, Any] = {
        "workload": workload,
        "tokenizer": {"kind": "teacher"},
        "teacher": teacher,
        "evaluation": {"examples": 64, "samples": 0},
        "stages": [{"name": "small", "student": {"shape": shape}, "training": {"steps": 1, "batch_size": 2, "precision": "fp32"}}],
    }
    return ladder_of_file(**settings | changes)


@pytest.mark.parametrize("kind", [BertModel, BertForMaskedLM])
def test_a_body_gets_a_head_for_the_datas_classes_and_learns(folder: Path, kind: type) -> None:
    save_with_words(kind(bert_config()), folder / "teacher")
    ladder = ladder_of(TRAINING)
    check_ladder(ladder, Context(run="", ladder="tiny", home=str(folder / "home"), base=str(folder)))
    inputs = inputs_of(ladder, folder)
    record = prepare_teacher(inputs)
    assert (record.steps, record.reused) == (30, False)
    assert record.flops > 0
    assert set(record.initial) == {"nll", "accuracy"}
    judged = evaluate_model(record, [], inputs, "fp32")
    assert judged.metrics["accuracy"] > 0.9 > record.initial["accuracy"]
    curve = json.loads(Path(record.folder, "curve.json").read_text())["valid"]
    assert curve[0] == {"step": 0, **record.initial}
    published = AutoModelForSequenceClassification.from_pretrained(record.folder)
    assert published.config.id2label == {0: "bad", 1: "good"}
    assert prepare_teacher(inputs).reused
    longer = ladder_of({**TRAINING, "steps": 31})
    assert not prepare_teacher(replace(inputs, ladder=longer)).reused


def test_a_body_without_training_is_refused_with_the_setting_that_helps(folder: Path) -> None:
    save_with_words(BertModel(bert_config()), folder / "teacher")
    with pytest.raises(
        UserError, match=r"no head for classes \(classifier\.weight is missing\)'; allowed: .*teacher\.training=\{steps: 500\}"
    ):
        check_ladder(ladder_of(), Context(run="", ladder="tiny", home=str(folder / "home"), base=str(folder)))


def test_weights_of_classes_weigh_in_its_training(folder: Path) -> None:
    save_with_words(BertModel(bert_config()), folder / "teacher")
    plain = ladder_of(TRAINING)
    inputs = inputs_of(plain, folder)

    def with_weights(weights: Any) -> StageInputs:
        teacher = {"source": "checkpoint", "path": "teacher", "training": {**TRAINING, "steps": 12}, "class_weights": weights}
        return replace(inputs, ladder=ladder_of(teacher=teacher))

    overwhelming = with_weights({"bad": 1e6})
    check_class_weights(overwhelming.ladder, ("bad", "good"))
    judged = evaluate_model(prepare_teacher(overwhelming), [], overwhelming, "fp32")
    assert judged.metrics["distinct_answers"] == 1
    assert judged.metrics["accuracy"] == pytest.approx(float((inputs.data.corpus().split("valid").labels == 0).mean()))
    teacher, none = plain.teacher, with_weights("none").ladder.teacher
    assert isinstance(teacher, CheckpointTeacher)
    assert isinstance(none, CheckpointTeacher)
    assert teacher.training is not None
    identities = [fine_tuning_work(each, teacher.training, inputs).identity for each in (teacher, none)]
    assert identities[0] == identities[1]
    assert "class_weights" not in identities[0]
    with pytest.raises(UserError, match=r"teacher\.class_weights: got 'god'.*The classes of the data are: bad, good"):
        check_class_weights(with_weights({"god": 2}).ladder, ("bad", "good"))
    with pytest.raises(ValueError, match="allowed: none, where the checkpoint teaches as it is"):
        CheckpointTeacher(path="teacher", class_weights="balanced")


def interface(**changes: Any) -> Interface:
    return Interface("sequence-classification", 16, len(WORDS), 3, 0, **{"classes": 2, **changes})


def test_a_head_whose_classes_match_is_kept_in_the_datas_order(folder: Path) -> None:
    model = BertForSequenceClassification(bert_config(id2label={0: "so-so", 1: "GOOD", 2: "BAD"}, hidden_dropout_prob=0.1)).eval()
    model.save_pretrained(folder / "teacher")
    loaded = load_to_train(folder / "teacher", interface(), ("bad", "good"), 0)
    assert loaded.head == "the checkpoint's"
    loaded.model.train()  # without dropout this changes nothing
    ids = torch.tensor([[2, 5, 6, 8, 3]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, model(input_ids=ids).logits[:, [2, 1]])


def test_a_head_of_other_classes_is_replaced_by_one_that_the_seed_decides(folder: Path) -> None:
    model = BertForSequenceClassification(bert_config(id2label={0: "one", 1: "two"}))
    model.save_pretrained(folder / "teacher")
    one, two, other = (load_to_train(folder / "teacher", interface(classes=3), ("x", "y", "z"), seed) for seed in (0, 0, 1))
    assert one.head == "new, for 3 classes"
    heads = [each.model.state_dict()["classifier.weight"] for each in (one, two, other)]
    assert heads[0].shape == (3, 32)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(one.model.state_dict()["bert.pooler.dense.weight"], model.state_dict()["bert.pooler.dense.weight"])


def test_an_image_encoder_gets_a_head(folder: Path) -> None:
    ViTModel(ViTConfig(**NARROW, image_size=8, patch_size=4, num_channels=1)).save_pretrained(folder / "teacher")
    images = Interface("image-classification", 5, classes=10, image_shape=(1, 8, 8))
    made = load_to_train(folder / "teacher", images, tuple("0123456789"), 0)
    assert made.model(pixel_values=torch.zeros(2, 1, 8, 8)).logits.shape == (2, 10)


def test_a_language_model_with_padded_rows_is_trained_on(folder: Path) -> None:
    texts = "".join(json.dumps({"text": f"a good day {'a bad day ' * (i % 5)}{'good ' * (i % 3)}"}) + "\n" for i in range(40))
    (folder / "texts.jsonl").write_text(texts)
    save_with_words(
        LlamaForCausalLM(LlamaConfig(**NARROW, vocab_size=len(WORDS) + 7, pad_token_id=0, attention_dropout=0.1)), folder / "teacher"
    )
    data = {"source": "files", "paths": ["texts.jsonl"], "sequence_length": 12, "valid_fraction": 0.2, "test_fraction": 0.2}
    inputs = inputs_of(ladder_of(TRAINING, "causal-lm", data=data), folder)
    record = prepare_teacher(inputs)
    judged = evaluate_model(record, [], inputs, "fp32")
    assert judged.metrics["nll"] < 0.7 * record.initial["nll"]
    assert AutoModelForCausalLM.from_pretrained(record.folder).config.vocab_size == len(WORDS) + 7


def test_an_interrupted_training_goes_on_to_the_same_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_with_words(BertModel(bert_config()), folder / "teacher")
    inputs = inputs_of(ladder_of(TRAINING), folder)
    asked = iter([False] * 14 + [True] * 100)
    with monkeypatch.context() as stopped:
        stopped.setattr(cancellation, "requested", lambda: next(asked))
        with pytest.raises(RunCancelled):
            prepare_teacher(inputs)
    resumed = prepare_teacher(inputs)
    assert resumed.resumed_at is not None
    (folder / "other").mkdir()
    whole = prepare_teacher(replace(inputs, context=inputs.context.model_copy(update={"home": str(folder / "other")})))
    assert whole.resumed_at is None
    assert whole.weights_sha256 == resumed.weights_sha256


def test_it_is_planned_as_a_training(folder: Path) -> None:
    save_with_words(BertModel(bert_config()), folder / "teacher")
    ladder = ladder_of(TRAINING)
    inputs = inputs_of(ladder, folder)
    before = make_plan(ladder, folder, Home(folder / "home")).teacher
    made = prepare_teacher(inputs)
    assert (before.action, before.flops) == ("compute", pytest.approx(made.flops))
    assert make_plan(ladder, folder, Home(folder / "home")).teacher.action == "reuse"
