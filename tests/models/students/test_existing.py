"""A checkpoint as student: its body as it is, its head as the data need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
)

from conf.errors import UserError
from conf.schema.stage.student import Student
from models.base.interface import Interface
from models.students.existing import existing_config, load_existing
from models.students.initialise import make_student, student_on_meta

SENTENCES = Interface("sequence-classification", 32, vocabulary=64, end_id=0, pad_id=1, classes=3)
TEXT = Interface("causal-lm", 32, vocabulary=60, end_id=0, pad_id=1)
SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model, a classifier of five classes and a language model, with ids to spare."""
    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    bert = BertConfig(**SIZES, max_position_embeddings=40, num_labels=5)
    BertForMaskedLM(bert).save_pretrained(place / "masked")
    BertForSequenceClassification(bert).save_pretrained(place / "five")
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(place / "llama")
    return place


@pytest.mark.parametrize("name", ["masked", "five"])
def test_a_head_is_made_from_the_seed_and_the_body_is_kept(folders: Path, name: str) -> None:
    one, same, other = (cast(Any, load_existing(folders / name, SENTENCES, seed, "student")) for seed in (1, 1, 2))
    kept: Any = (
        BertForMaskedLM.from_pretrained(folders / "masked")
        if name == "masked"
        else BertForSequenceClassification.from_pretrained(folders / name)
    )
    for key, tensor in kept.base_model.state_dict().items():
        assert torch.equal(tensor, one.base_model.state_dict()[key])
    head = one.classifier.weight
    assert head.shape == (3, 16)
    assert torch.equal(head, same.classifier.weight)
    assert not torch.equal(head, other.classifier.weight)
    assert {m.p for m in one.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}


def test_a_language_model_is_taken_with_its_spare_ids(folders: Path) -> None:
    student = Student(source="checkpoint", path=str(folders / "llama"))
    teacher = LlamaForCausalLM(LlamaConfig(**SIZES))
    model = cast(Any, make_student(student, teacher, TEXT, 0, "student").model)
    assert model.config.vocab_size == 64
    on_meta = student_on_meta(student, teacher, TEXT, "student")
    assert sum(p.numel() for p in on_meta.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "interface", "says"),
    [
        ("llama", Interface("causal-lm", 32, vocabulary=65, end_id=0, pad_id=1), "with 64 ids.*the same tokenizer"),
        ("five", Interface("sequence-classification", 48, vocabulary=64, end_id=0, pad_id=1, classes=5), "with 40 positions.*at most 40"),
        ("five", TEXT, "It lacks"),
        ("nowhere", TEXT, "an existing Hugging Face folder"),
    ],
)
def test_what_does_not_fit(folders: Path, name: str, interface: Interface, says: str) -> None:
    with pytest.raises(UserError, match=rf"^student\.path: got .*{says}"):
        load_existing(folders / name, interface, 0, "student")


def test_a_weight_that_is_no_number_and_too_few_positions_by_another_name(tmp_path: Path) -> None:
    model = MptForCausalLM(MptConfig(d_model=8, n_layers=1, n_heads=2, vocab_size=40, max_seq_len=8))
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "mpt")
    with pytest.raises(UserError, match=r"student\.path: got '.*mpt with 8 positions'; allowed: at least 16"):
        existing_config(tmp_path / "mpt", Interface("causal-lm", 16, 40, 0, 1), "student")
    with pytest.raises(UserError, match=r"student\.path: got '.*NaN or infinite'; allowed: finite weights"):
        load_existing(tmp_path / "mpt", Interface("causal-lm", 8, 40, 0, 1), 0, "student")
