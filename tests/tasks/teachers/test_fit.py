"""An existing classifier against settings and data: positions, ids, padding, classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    MptConfig,
    MptForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from models.architectures.configs import positions_of
from models.data import tokenizers
from models.evaluation.generation import continuations
from tasks.data.prepare import prepare_data
from tasks.planning.preflight import check_ladder
from tasks.records.data import COUNTS
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.import_checkpoint import import_checkpoint
from tasks.training.find_or_train import find_or_train
from tasks.training.student import student_work
from tests.factories import WORDS, ladder_of_file, save_with_words, write_good_and_bad

NARROW: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def save_bert(
    folder: Path, words: list[str] | None = None, rows: int = 9, names: tuple[str, ...] = ("GOOD", "BAD"), **changes: Any
) -> None:
    torch.manual_seed(0)
    config = BertConfig(**NARROW, vocab_size=rows, max_position_embeddings=32, id2label=dict(enumerate(names)), **changes)
    save_with_words(BertForSequenceClassification(config), folder, words or WORDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_good_and_bad(tmp_path)
    return tmp_path


def ladder_of(family: str = "bert", length: int = 16, **teacher: Any) -> Ladder:
    student = {"shape": {"family": family, "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8}}
    return ladder_of_file(
        length=length,
        tokenizer={"kind": "teacher"},
        teacher={"source": "checkpoint", "path": "teacher", **teacher},
        stages=[{"name": "small", "student": student, "training": {"steps": 1, "batch_size": 2, "precision": "fp32"}}],
    )


def prepared(ladder: Ladder, folder: Path) -> tuple[DataRecord, StageRecord, StageInputs]:
    context = Context(run="run-1", ladder="tiny", home=str(folder / "home"), base=str(folder))
    check_ladder(ladder, context)
    data = prepare_data(ladder, context)
    assert isinstance(ladder.teacher, CheckpointTeacher)
    inputs = StageInputs(ladder, data, context)
    return data, import_checkpoint(ladder.teacher, inputs), inputs


def test_the_data_follow_the_teachers_order_and_students_carry_its_names(folder: Path) -> None:
    save_bert(folder / "teacher")
    data, root, inputs = prepared(ladder_of(), folder)
    info, train = data.corpus().info, data.corpus().split("train")
    assert info.label_names == ("GOOD", "BAD")
    first = [WORDS[int(train.values[start + 2])] for start in train.offsets[:-1]]  # [CLS] a good
    assert [info.label_names[label].lower() for label in train.labels] == first
    made = find_or_train(student_work(inputs.ladder.stages[0], root, inputs.ladder, data), inputs)
    config = json.loads(Path(made.folder, "config.json").read_text())
    assert (config["id2label"], config["label2id"]) == ({"0": "GOOD", "1": "BAD"}, {"GOOD": 0, "BAD": 1})


def test_classes_of_other_names_are_named_by_the_settings(folder: Path) -> None:
    save_bert(folder / "teacher", names=("pos", "neg"))
    with pytest.raises(UserError, match=r"got 'classes pos, neg'; allowed: .* bad, good\. .*teacher\.classes"):
        prepared(ladder_of(), folder)
    data, _, _ = prepared(ladder_of(classes=["good", "bad"]), folder)
    assert data.corpus().info.label_names == ("good", "bad")


def test_classes_without_names_are_taken_in_their_order_and_that_is_said(folder: Path) -> None:
    save_bert(folder / "teacher", names=("LABEL_0", "LABEL_1"))
    data, _, _ = prepared(ladder_of(), folder)
    assert data.corpus().info.label_names == ("bad", "good")
    assert "the teacher names no classes: its LABEL_0 is taken for bad, LABEL_1 for good" in (Path(data.folder) / COUNTS).read_text()


def test_longer_sequences_than_positions_are_refused_before_data_are_read(folder: Path) -> None:
    save_bert(folder / "teacher")
    (folder / "rows.csv").unlink()
    with pytest.raises(UserError, match=r"data\.sequence_length: got 33; allowed: sequence_length <= 32, the positions of the teacher"):
        prepared(ladder_of(length=33), folder)


def test_positions_behind_a_padding_row() -> None:
    config = RobertaConfig(**NARROW, vocab_size=9, max_position_embeddings=34)
    with torch.device("meta"):
        assert positions_of(RobertaForSequenceClassification(config)) == 32


def test_a_vocabulary_with_a_line_twice(folder: Path) -> None:
    twice = [*WORDS[:6], "a", *WORDS[6:]]  # 10 lines, 9 words, the largest id is 9
    save_bert(folder / "teacher", twice, rows=10)
    data, _, _ = prepared(ladder_of(), folder)
    assert data.corpus().info.vocabulary == 10
    assert int(data.corpus().split("train").values.max()) == 9
    save_bert(folder / "teacher", twice, rows=9)
    with pytest.raises(UserError, match=r"a tokenizer of ids up to 9'; allowed: .* below the embedding's rows, 9\. Save the tokenizer"):
        prepared(ladder_of(), folder)


@pytest.mark.parametrize("pad", [None, 5])
def test_a_decoder_without_the_pad_id_of_its_data_gets_it(folder: Path, pad: int | None) -> None:
    texts = (folder / "rows.csv").read_text().splitlines()
    tokenizer = tokenizers.train_bpe(texts, 280)
    tokenizer.pad_token = None  # then the end id pads
    torch.manual_seed(0)
    config = LlamaConfig(**NARROW, vocab_size=len(tokenizer), pad_token_id=pad, eos_token_id=0, id2label={0: "good", 1: "bad"})
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(folder / "teacher")
    tokenizers.save(tokenizer, folder / "teacher")
    data, root, _ = prepared(ladder_of("llama"), folder)
    assert json.loads(Path(root.folder, "config.json").read_text())["pad_token_id"] == 0
    loaded = LlamaForSequenceClassification.from_pretrained(root.folder).eval()
    split = data.corpus().split("train")
    texts = [
        torch.from_numpy(np.asarray(split.values[a:b], dtype=np.int64)) for a, b in zip(split.offsets[:4], split.offsets[1:5], strict=True)
    ]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=0)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
    with torch.no_grad():
        together = loaded(input_ids=padded, attention_mask=mask).logits
        alone = torch.cat([model(input_ids=text[None]).logits for text in texts])
    torch.testing.assert_close(together, alone)


def test_another_task_is_refused(folder: Path) -> None:
    save_bert(folder / "teacher", problem_type="multi_label_classification")
    with pytest.raises(UserError, match="with problem_type multi_label_classification"):
        prepared(ladder_of(), folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sliding_window": 0}, r"with sliding_window 0'; allowed: a whole number from 1"),
        ({"max_position_embeddings": None, "n_positions": 0}, r"with n_positions 0"),
        ({"id2label": None, "label2id": {"a": 0, "b": 1, "c": 2}}, r"with label2id .* allowed: id2label beside it"),
    ],
)
def test_more_configurations_that_no_model_can_have(folder: Path, change: dict[str, Any], says: str) -> None:
    save_bert(folder / "teacher")
    config = folder / "teacher" / "config.json"
    config.write_text(json.dumps({name: value for name, value in (json.loads(config.read_text()) | change).items() if value is not None}))
    with pytest.raises(UserError, match=says):
        prepared(ladder_of(), folder)


def test_a_teacher_that_cannot_read_the_data_is_refused_at_import(folder: Path) -> None:
    save_bert(folder / "teacher")
    config = RobertaConfig(**NARROW, vocab_size=9, max_position_embeddings=34, pad_token_id=None, id2label={0: "good", 1: "bad"})
    RobertaForSequenceClassification(config).save_pretrained(folder / "teacher")
    with pytest.raises(UserError, match=r"teacher\.path: got '.*teacher'; allowed: a model that reads 16 ids.*transformers said"):
        prepared(ladder_of(), folder)


def test_a_tokenizer_that_fails_at_unknown_letters_is_refused(folder: Path) -> None:
    save_bert(folder / "teacher")
    described = folder / "teacher" / "tokenizer.json"
    plain = json.loads(described.read_text())
    del plain["model"]["vocab"]["[UNK]"]
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["content"] != "[UNK]"]
    described.write_text(json.dumps(plain))
    settings = folder / "teacher" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "unk_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(UserError, match=r"allowed: a tokenizer that has ids for every text.*\[UNK\]"):
        prepared(ladder_of(), folder)


def test_samples_stay_within_the_positions_of_a_model(folder: Path) -> None:
    made = tokenizers.bytes_tokenizer()
    tokenizers.save(made, folder / "tokenizer")
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=len(made), n_positions=16)).eval()
    (sample,) = continuations(model, folder / "tokenizer", ["a" * 10, "b" * 20], 50)
    assert sample.prompt == "a" * 10
    assert len(sample.text) <= 6
    assert positions_of(MptForCausalLM(MptConfig(d_model=8, n_layers=1, n_heads=2, vocab_size=9, max_seq_len=8))) == 8
