"""Documents of a language model begin as the teacher's tokenizer begins them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from models.architectures.configs import fitted_config
from models.architectures.shapes import build
from models.base.interface import Interface
from models.data import tokenizers
from models.data.held_out import evaluation_batches
from models.evaluation.evaluation import collect, quality
from models.evaluation.generation import continuations, prompts
from tasks.data.prepare import data_identity, prepare_data
from tasks.records.run import DataRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.import_checkpoint import import_checkpoint
from tasks.training.find_or_train import find_or_train
from tasks.training.student import student_work
from tests.factories import ladder_of_file

TEXTS = [f"item {i} costs {i * 7 % 50} and item {i + 1} costs {(i + 1) * 7 % 50}; " * (1 + i % 3) for i in range(30)]
CPU = torch.device("cpu")


def save_teacher(folder: Path, template: str) -> PreTrainedTokenizerFast:
    tokenizer = tokenizers.train_bpe(TEXTS, 300)
    tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<sop>"]})
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "<sop>", tokenizers.END)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = LlamaConfig(**shape, vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=0, pad_token_id=1)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizers.save(tokenizer, folder)
    return tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "home").mkdir()
    return tmp_path


def ladder_of(**student: Any) -> Ladder:
    shape = {"hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8}
    return ladder_of_file(
        workload="causal-lm",
        data={"source": "files", "paths": ["texts.jsonl"], "sequence_length": 24, "valid_fraction": 0.3, "test_fraction": 0.1},
        tokenizer={"kind": "teacher"},
        teacher={"source": "checkpoint", "path": "teacher"},
        stages=[{"name": "small", "student": {"shape": shape, **student}, "training": {"steps": 1, "batch_size": 2, "precision": "fp32"}}],
    )


def prepared(folder: Path) -> tuple[DataRecord, Context]:
    context = Context(run="run-1", ladder="tiny", home=str(folder / "home"), base=str(folder))
    return prepare_data(ladder_of(), context), context


@pytest.mark.parametrize("template", ["<s> $A", "<s> <sop> $A"])
def test_the_teachers_loss_is_that_under_its_own_tokenizer(folder: Path, template: str) -> None:
    own = save_teacher(folder / "teacher", template)
    corpus = prepared(folder)[0].corpus()
    model = AutoModelForCausalLM.from_pretrained(folder / "teacher").eval()
    columns = collect(model, {}, evaluation_batches(corpus, "valid", 10_000, 8), corpus.interface.output_ids, CPU, "fp32")
    split, nats, ids_of_texts, windows = corpus.split("valid"), list[float](), 0, 24
    for begin, end in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        text = own.decode(split.values[begin:end].tolist(), skip_special_tokens=True)
        ids = [*own(text)["input_ids"], own.eos_token_id]
        assert ids == split.values[begin:end].tolist()
        given = len(ids) - len(own(text, add_special_tokens=False)["input_ids"]) - 1
        ids_of_texts += len(ids) - given
        for start in range(given, len(ids), windows):  # each window is given as many ids as a text's beginning has
            window = torch.tensor([ids[start - given : start + windows]])
            with torch.no_grad():
                log_p = functional.log_softmax(model(input_ids=window).logits[0, :-1], dim=-1)
            nats += (-log_p.gather(-1, window[0, 1:, None])[given - 1 :, 0]).tolist()
    assert len(columns.nll) == len(nats) == ids_of_texts
    assert float(columns.nll.mean()) == pytest.approx(np.mean(nats), abs=1e-5)
    figures = quality(columns, corpus, "valid").metrics
    assert figures["bits_per_byte"] == pytest.approx(sum(nats) / np.log(2) / split.sizes.sum(), abs=1e-4)


@pytest.mark.parametrize("vocabulary", ["teacher", "used"])
def test_a_students_configuration_and_tokenizer_agree(folder: Path, vocabulary: str) -> None:
    save_teacher(folder / "teacher", "<s> $A")
    data, context = prepared(folder)
    ladder = ladder_of(vocabulary=vocabulary)
    assert isinstance(ladder.teacher, CheckpointTeacher)
    inputs = StageInputs(ladder, data, context)
    root = import_checkpoint(ladder.teacher, inputs)
    made = find_or_train(student_work(ladder.stages[0], root, ladder, data), inputs)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(made.folder), AutoTokenizer.from_pretrained(made.folder)
    ids = tokenizer("item 1")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == model.config.bos_token_id == model.generation_config.bos_token_id
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id


def test_generation_begins_with_it_and_shows_it_to_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = save_teacher(folder / "teacher", "<s> $A")
    corpus = prepared(folder)[0].corpus()
    assert corpus.tokenizer_folder is not None
    beginnings = prompts(corpus, "train", 2)
    assert beginnings
    assert not any("<s>" in beginning for beginning in beginnings)
    model, given = AutoModelForCausalLM.from_pretrained(folder / "teacher").eval(), list[torch.Tensor]()
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **more: given.append(more["input_ids"]) or generate(**more))
    continuations(model, corpus.tokenizer_folder, beginnings, 2)
    assert [ids[0, 0].item() for ids in given] == [own.bos_token_id] * len(beginnings)


@pytest.mark.parametrize(
    ("template", "prefix"), [("<s> $A", ["<s>"]), ("$A", []), (f"{tokenizers.END} $A", []), (f"$A {tokenizers.END}", [])]
)
def test_corpora_without_a_beginning_stay_what_they_were(folder: Path, template: str, prefix: list[str]) -> None:
    """The end id of the document before begins a text where the tokenizer has no beginning of its own, or that id."""
    own = save_teacher(folder / "teacher", template)
    data, context = prepared(folder)
    ids = [own.convert_tokens_to_ids(token) for token in prefix]
    assert list(data.corpus().info.prefix) == ids
    assert data_identity(ladder_of(), context).get("prefix", []) == ids
    described = json.loads((Path(data.folder) / "corpus.json").read_text())
    assert ("prefix" in described) == bool(prefix)
    train = data.corpus().split("train")
    assert (int(train.values[0]) in own.all_special_ids) == bool(prefix)


def test_an_encoder_is_no_language_model(folder: Path) -> None:
    own = save_teacher(folder / "teacher", "<s> $A")
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for file in folder.glob("teacher/*.safetensors"):
        file.unlink()
    BertForMaskedLM(BertConfig(**shape, initializer_range=0.5, vocab_size=len(own), eos_token_id=0, pad_token_id=1)).save_pretrained(
        folder / "teacher"
    )
    data, context = prepared(folder)
    teacher = ladder_of().teacher
    assert isinstance(teacher, CheckpointTeacher)
    with pytest.raises(UserError, match=r"teacher\.path: got .*; allowed: a causal language model\. Its answers depend on ids that come"):
        import_checkpoint(teacher, StageInputs(ladder_of(), data, context))
    config = fitted_config({"model_type": "bert", **shape}, data.corpus().interface, "student.config")
    student, ids = build(config, "causal-lm").eval(), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        one, other = student(input_ids=ids).logits, student(input_ids=torch.tensor([[5, 6, 9]])).logits
    assert torch.equal(one[:, :2], other[:, :2])


@pytest.mark.parametrize(
    ("change", "name"), [({"num_hidden_layers": -1}, "num_hidden_layers"), ({"num_attention_heads": 3}, "num_attention")]
)
def test_configurations_of_students_that_make_no_sense_are_named(change: dict[str, Any], name: str) -> None:
    given = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, **change}
    with pytest.raises(UserError, match=rf"^student\.config\.{name}"):
        fitted_config(given, Interface("causal-lm", 16, 300, 0, 1), "student.config")
