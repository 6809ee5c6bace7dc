"""Teacher and student of different vocabularies meet in the same ids."""

import json
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from conf.errors import UserError
from conf.schema.ladder import Shape
from models.architectures.checkpoint import save_model
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data import tokenizers
from models.data.batches import IGNORE, TrainingBatches, evaluation_batches
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.students.reduced_tokenizer import reduced_tokenizer, used_ids
from models.students.vocabulary import KEPT, VocabularyMap, read_kept, reduce_corpus, resize_vocabulary, write_kept

STDLIB = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
TAUGHT, SEEN = STDLIB[:24], STDLIB[24:32]  # what the tokenizer was trained on, and the corpus: part of the ids does not occur in it
ODD = "Zażółć gęślą jaźń 漢字 🎉\t\r\n  <|end|> ǅ \x00 quixotry"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Files of the standard library in the ids of a BPE that was trained on others."""
    folder = tmp_path_factory.mktemp("corpus")
    tokenizer = tokenizers.train_bpe((path.read_text() for path in TAUGHT), 2000)
    tokenizers.save(tokenizer, folder / "tokenizer")
    end, pad = tokenizers.special_ids(tokenizer)
    parts = {"train": SEEN[:-2], "valid": SEEN[-2:-1], "test": SEEN[-1:]}
    splits = {}
    for name in SPLITS:
        documents = [[*ids.tolist(), end] for ids in tokenizers.encode(tokenizer, [path.read_text()[:9000] for path in parts[name]])]
        lengths, zeros = [len(document) for document in documents], np.zeros(len(documents), dtype=np.int64)
        values = np.array([i for document in documents for i in document], dtype=np.uint16)
        splits[name] = Split(values, np.array([0, *np.cumsum(lengths)]), zeros - 1, zeros.astype(np.int32), zeros + 100)
    tokens = {name: len(split.values) for name, split in splits.items()}
    counts = {name: len(split) for name, split in splits.items()}
    write_corpus(folder, CorpusInfo("causal-lm", 32, len(tokenizer), end, pad, (), ("one",), None, counts, tokens), splits)
    return Corpus(folder, "hash")


@pytest.fixture(scope="module")
def kept(corpus: Corpus) -> VocabularyMap:
    return VocabularyMap(used_ids(corpus))


@pytest.fixture(scope="module")
def smaller(corpus: Corpus, kept: VocabularyMap, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smaller")
    assert corpus.tokenizer_folder is not None
    reduced_tokenizer(corpus.tokenizer_folder, kept.kept, folder)
    return folder


def test_used_ids_are_those_that_occur_with_bytes_specials_and_parts(corpus: Corpus, kept: VocabularyMap) -> None:
    occur = {int(i) for name in SPLITS for i in corpus.split(name).values}
    assert occur < set(kept.kept)
    assert list(kept.kept) == sorted(set(kept.kept))
    assert 300 < len(kept.kept) < 2000
    assert corpus.tokenizer_folder is not None
    model = json.loads((corpus.tokenizer_folder / "tokenizer.json").read_text())["model"]
    assert {model["vocab"][letter] for letter in tokenizers.byte_letters()} | {0, 1} <= set(kept.kept)
    for left, right in model["merges"]:
        if model["vocab"][left + right] in kept.kept:
            assert {model["vocab"][left], model["vocab"][right]} <= set(kept.kept)


def test_the_smaller_tokenizer_cuts_the_corpus_as_the_larger_one(corpus: Corpus, kept: VocabularyMap, smaller: Path) -> None:
    assert corpus.tokenizer_folder is not None
    large, small = tokenizers.load(corpus.tokenizer_folder), tokenizers.load(smaller)
    assert len(small) == len(kept.kept)
    texts = [path.read_text()[:9000] for path in SEEN]
    for theirs, ours in zip(tokenizers.encode(large, texts), tokenizers.encode(small, texts), strict=True):
        assert np.array_equal(kept.ids(theirs), ours)
    assert tokenizers.special_ids(small) == tuple(int(kept.ids(i)) for i in tokenizers.special_ids(large))
    assert small.all_special_tokens == large.all_special_tokens


@given(st.text(max_size=40))
def test_any_text_can_still_be_written(smaller: Path, text: str) -> None:
    tokenizer = _loaded(smaller)
    (ids,) = tokenizers.encode(tokenizer, [text])
    assert tokenizer.decode(ids.tolist()) == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("text", [ODD, STDLIB[40].read_text()[:4000]])
def test_text_beyond_the_corpus_can_still_be_written(smaller: Path, text: str) -> None:
    tokenizer = _loaded(smaller)
    (ids,) = tokenizers.encode(tokenizer, [text])
    assert tokenizer.decode(ids.tolist()) == text


LOADED: dict[Path, Any] = {}


def _loaded(folder: Path) -> Any:
    if folder not in LOADED:
        LOADED[folder] = tokenizers.load(folder)
    return LOADED[folder]


def test_every_place_that_names_an_id_is_changed(tmp_path: Path) -> None:
    """Post-processors, padding and the list of added tokens, in each of the forms that tokenizers write."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    whole.mkdir(), out.mkdir()
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "<s>": 7, "bc": 5, "abc": 6}
    template = {"type": "TemplateProcessing", "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}}
    raw = {
        "added_tokens": [{"id": 7, "content": "<s>"}],
        "padding": {"pad_id": 7},
        "post_processor": {"type": "Sequence", "processors": [{"type": "RobertaProcessing", "sep": ["<s>", 7], "cls": ["a", 0]}, template]},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["a b", "b c", "ab c"]},
    }
    (whole / "tokenizer.json").write_text(json.dumps(raw))
    (whole / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"7": {"content": "<s>"}}}))
    (whole / "vocab.json").write_text("{}")
    reduced_tokenizer(whole, (0, 1, 2, 5, 7), out)
    made = json.loads((out / "tokenizer.json").read_text())
    assert made["model"]["vocab"] == {"a": 0, "b": 1, "c": 2, "<s>": 4, "bc": 3}
    assert made["model"]["merges"] == ["b c"]
    assert made["added_tokens"][0]["id"] == made["padding"]["pad_id"] == 4
    roberta, moved = made["post_processor"]["processors"]
    assert (roberta["sep"], roberta["cls"], moved["special_tokens"]["<s>"]["ids"]) == (["<s>", 4], ["a", 0], [4])
    assert json.loads((out / "tokenizer_config.json").read_text()) == {"added_tokens_decoder": {"4": {"content": "<s>"}}}
    assert sorted(path.name for path in out.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_ids_and_targets_by_hand() -> None:
    small = VocabularyMap((0, 3, 4, 9))
    ids = torch.tensor([[9, 0], [4, 3]])
    assert small.inputs(ids).tolist() == [[3, 0], [2, 1]]
    assert small.targets(torch.tensor([9, IGNORE, 3])).tolist() == [3, IGNORE, 1]
    for dropped in (1, 10):
        with pytest.raises(ValueError, match="dropped"):
            small.inputs(torch.tensor([dropped]))


def test_the_corpus_is_read_in_the_smaller_ids(corpus: Corpus, kept: VocabularyMap) -> None:
    small = reduce_corpus(corpus, kept)
    info = small.info
    assert (info.vocabulary, info.end_id, info.pad_id) == (len(kept.kept), int(kept.ids(0)), int(kept.ids(1)))
    assert small.content_hash != corpus.content_hash
    originals = torch.tensor(kept.kept)
    for step in (0, 3, 100):
        ours, theirs = TrainingBatches(small, 4, 1).at(step), TrainingBatches(corpus, 4, 1).at(step)
        assert torch.equal(originals[ours.inputs["input_ids"]], theirs.inputs["input_ids"])
        assert torch.equal(originals[ours.targets], theirs.targets)
    pairs = zip(evaluation_batches(small, "valid", 20, 8), evaluation_batches(corpus, "valid", 20, 8), strict=True)
    for ours, theirs in pairs:
        assert torch.equal(ours.targets, kept.targets(theirs.targets))


@pytest.mark.parametrize("tied", [True, False])
def test_a_teacher_answers_in_the_smaller_ids(tied: bool) -> None:
    shape = Shape(hidden_size=16, layers=2, heads=2, feed_forward=24, tied_embeddings=tied)
    torch.manual_seed(0)
    model: Any = build(config_for(shape, Interface("causal-lm", 16, vocabulary=40, end_id=0, pad_id=1)), "causal-lm").eval()
    small = VocabularyMap((0, 1, 5, 7, 39))
    ids = torch.tensor([[5, 39, 7, 0]])
    expected = model(input_ids=ids).logits[..., list(small.kept)]
    resize_vocabulary(model, small)
    assert torch.allclose(model(input_ids=small.inputs(ids)).logits, expected, atol=1e-6)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert model.config.vocab_size == 5


def test_a_teacher_may_have_fewer_ids_and_never_fewer_than_the_student() -> None:
    student, teacher = VocabularyMap((2, 5)), VocabularyMap((1, 2, 5, 8))
    assert student.within(teacher, "stages[1].student.vocabulary").kept == (1, 2)
    assert student.within(None, "k") is student
    with pytest.raises(UserError, match=r"stages\[1\]\.student\.vocabulary: got '4 ids'; allowed: .*lacks 2 of them"):
        teacher.within(student, "stages[1].student.vocabulary")


def test_an_exported_student_loads_in_plain_transformers_and_writes_text(
    corpus: Corpus, kept: VocabularyMap, smaller: Path, tmp_path: Path
) -> None:
    info = reduce_corpus(corpus, kept).info
    interface = Interface("causal-lm", 32, info.vocabulary, info.end_id, info.pad_id)
    torch.manual_seed(0)
    model = build(config_for(Shape(hidden_size=16, layers=1, heads=2, feed_forward=24), interface), "causal-lm")
    save_model(model, tmp_path, smaller)
    write_kept(kept, tmp_path)
    read, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("def main():", return_tensors="pt").input_ids
    text = tokenizer.decode(read.generate(ids, max_new_tokens=8, min_new_tokens=8, do_sample=False)[0])
    assert text.startswith("def main():")
    assert read.get_input_embeddings().weight.shape == (len(kept.kept), 16)
    assert read_kept(tmp_path) == kept
    assert (tmp_path / KEPT).stat().st_size < 10 * len(kept.kept)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram"}}))
    with pytest.raises(UserError, match=r"student\.vocabulary: got 'used'; allowed: teacher, for a tokenizer of type Unigram"):
        reduced_tokenizer(tmp_path, (0,), tmp_path)
