"""The reduced tokenizer cuts the corpus as the larger one and can still write any text."""

import json
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import UserError
from models.data import tokenizers
from models.data.corpus import SPLITS, Corpus
from models.students.reduced_tokenizer import reduced_tokenizer
from models.students.vocabulary import VocabularyMap

ODD = "Zażółć gęślą jaźń 漢字 🎉\t\r\n  <|end|> ǅ \x00 quixotry"
OTHER = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[40].read_text()[:4000]  # not in the corpus


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


def test_the_smaller_tokenizer_cuts_the_corpus_as_the_larger_one(
    corpus: Corpus, kept: VocabularyMap, smaller: Path, texts: list[str]
) -> None:
    assert corpus.tokenizer_folder is not None
    large, small = tokenizers.load(corpus.tokenizer_folder), tokenizers.load(smaller)
    assert len(small) == len(kept.kept)
    for theirs, ours in zip(tokenizers.encode(large, texts), tokenizers.encode(small, texts), strict=True):
        assert np.array_equal(kept.ids(theirs), ours)
    assert tokenizers.special_ids(small) == tuple(int(kept.ids(i)) for i in tokenizers.special_ids(large))
    assert small.all_special_tokens == large.all_special_tokens


@given(st.text(max_size=40))
def test_any_text_can_still_be_written(smaller: Path, text: str) -> None:
    tokenizer = _loaded(smaller)
    (ids,) = tokenizers.encode(tokenizer, [text])
    assert tokenizer.decode(ids.tolist()) == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("text", [ODD, OTHER])
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


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram"}}))
    with pytest.raises(UserError, match=r"student\.vocabulary: got 'used'; allowed: teacher, for a tokenizer of type Unigram"):
        reduced_tokenizer(tmp_path, (0,), tmp_path)
