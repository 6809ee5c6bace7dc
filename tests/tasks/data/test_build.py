"""Corpora from documents: tokenised, labelled, cut, counted and written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from conf.errors import UserError
from models.data import tokenizers
from models.data.corpus import SPLITS, Corpus, SplitName
from tasks.data.build import build_corpus
from tasks.data.reading.readers import Document
from tasks.records.data import COUNTS, DataCounts
from tests.tasks.data.builders import build, decode, ladder, rows


def bert_like(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "row", "the", "fox", "home"]
    backend = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]", mask_token="[UNK]"
    )
    tokenizers.save(made, folder)


def test_a_language_corpus_is_every_document_and_its_end(tmp_path: Path) -> None:
    made = ladder("causal-lm", rows(tmp_path / "r.jsonl", 60) | {"sequence_length": 16})
    corpus, info, told = build(made, tmp_path)
    assert corpus.info == info
    assert (info.vocabulary, info.end_id, info.pad_id, info.classes, info.image_shape) == (258, 256, 257, 0, None)
    assert info.slice_names == ("g0", "g1", "g2")
    found: dict[str, str] = {}
    for name in SPLITS:
        split = corpus.split(name)
        assert (split.values.dtype, split.labels.dtype, split.slices.dtype) == (np.uint16, np.int64, np.int32)
        assert info.tokens[name] == split.offsets[-1] == len(split.values)
        assert info.documents[name] == len(split) > 0
        assert set(split.labels) == {-1}
        for index in range(len(split)):
            ids = split.values[split.offsets[index] : split.offsets[index + 1]]
            text = decode(corpus, name, index)
            assert ids.tolist() == [*text.encode(), 256]
            assert split.sizes[index] == len(text.encode())
            found[text] = info.slice_names[split.slices[index]]
    wanted = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert found == {row["text"]: row["group"] for row in wanted}
    assert any("documents" in line for line in told)
    assert AutoTokenizer.from_pretrained(corpus.tokenizer_folder)("ab")["input_ids"] == [97, 98]


def test_two_builds_are_equal_to_the_byte(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 60) | {"sequence_length": 16}
    for tokenizer in ({"kind": "bytes"}, {"kind": "bpe", "vocabulary": 280}):
        contents = []
        for copy in ("one", "two"):
            folder = tmp_path / copy / tokenizer["kind"]
            folder.mkdir(parents=True)
            build_corpus(ladder("causal-lm", data, tokenizer), tmp_path, None, folder, lambda _: None)
            contents.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
        assert contents[0] == contents[1]


def test_empty_texts_are_no_documents_of_a_language_corpus(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "empty"):
        (tmp_path / f"{name}.txt").write_text("" if name == "empty" else f"text {name}" * 9)
    _, info, _ = build(ladder("causal-lm", {"source": "files", "paths": ["*.txt"], "sequence_length": 16}), tmp_path)
    assert info.documents == {"train": 1, "valid": 1, "test": 1}


@pytest.mark.parametrize(("name", "content"), [("empty.jsonl", "\n"), ("header.csv", "text\n"), ("empty.txt", "")])
def test_a_source_without_documents_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"data: got 'files'.*The source is empty"):
        build(ladder("causal-lm", {"source": "files", "paths": [name]}), tmp_path)


def test_special_strings_in_a_document_end_nothing(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"{name} <|end|> <|pad|> " * 4)
    corpus, _, _ = build(ladder("causal-lm", {"source": "files", "paths": ["*.txt"], "sequence_length": 16}), tmp_path)
    for name in SPLITS:
        ids = corpus.split(name).values
        assert [place for place, index in enumerate(ids.tolist()) if index > 255] == [len(ids) - 1]


def test_the_same_text_in_two_files_is_in_one_split(tmp_path: Path) -> None:
    for n in range(60):
        (tmp_path / f"{n}.txt").write_text(f"text {n % 20} " * 3)
    data = {"source": "files", "paths": ["*.txt"], "sequence_length": 8, "valid_fraction": 0.3, "test_fraction": 0.3}
    corpus, info, _ = build(ladder("causal-lm", data), tmp_path)
    texts = {name: {decode(corpus, name, index) for index in range(info.documents[name])} for name in SPLITS}
    assert sum(info.documents.values()) == 60
    assert len(set.union(*texts.values())) == sum(map(len, texts.values())) == 20


def test_a_training_split_shorter_than_a_sequence_is_refused(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"{name}2345678")
    data = {"source": "files", "paths": ["*.txt"], "sequence_length": 9}
    with pytest.raises(UserError, match=r"data\.sequence_length: got 9; allowed: at most 8\. The training documents, 1, hold 9 tokens"):
        build(ladder("causal-lm", data), tmp_path)
    (tmp_path / "fits").mkdir()
    build_corpus(ladder("causal-lm", data | {"sequence_length": 8}), tmp_path, None, tmp_path / "fits", lambda _: None)


def test_bpe_is_trained_on_the_training_documents_alone(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 40) | {"sequence_length": 8}
    corpus, info, _ = build(ladder("causal-lm", data, {"kind": "bpe", "vocabulary": 290}), tmp_path)
    train = [decode(corpus, "train", index) for index in range(info.documents["train"])]
    saved = tokenizers.load(corpus.folder / "tokenizer")
    assert saved.get_vocab() == tokenizers.train_bpe(train, 290).get_vocab()
    everything = [json.loads(line)["text"] for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert saved.get_vocab() != tokenizers.train_bpe([*everything] * 2, 290).get_vocab(), "the test could not tell"
    assert info.vocabulary == len(saved)


def test_a_large_vocabulary_is_stored_in_32_bits(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    words = {"[UNK]": 0, "</s>": 1} | {f"w{n}": n + 2 for n in range(70_000)}
    backend = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizers.save(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="[UNK]"), teacher)
    for name, text in {"a": "w69999 w1 w2", "b": "w69999 w1  w2", "c": "w69999  w1 w2"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    made = ladder("causal-lm", {"source": "files", "paths": ["*.txt"], "sequence_length": 3}, {"kind": "teacher"})
    corpus, info, _ = build(made, tmp_path, teacher)
    assert (info.vocabulary, info.end_id, info.pad_id) == (70_002, 1, 1)
    values = corpus.split("train").values
    assert (values.dtype, values.tolist()) == (np.uint32, [70_001, 3, 4, 1])


@pytest.mark.parametrize("kind", [{"kind": "bytes"}, {"kind": "bpe", "vocabulary": 280}])
def test_examples_are_cut_and_end_as_the_published_tokenizer_ends_them(tmp_path: Path, kind: dict[str, Any]) -> None:
    data = rows(tmp_path / "r.jsonl", 30) | {"sequence_length": 12}
    corpus, info, _ = build(ladder("sequence-classification", data, kind), tmp_path)
    assert info.label_names == ("0", "1")
    published = AutoTokenizer.from_pretrained(corpus.tokenizer_folder)
    by_text = {row["text"]: row for row in map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())}
    wanted = {tuple(published(text, truncation=True, max_length=12)["input_ids"]): row["label"] for text, row in by_text.items()}
    assert all(ids[-1] == info.end_id and len(ids) <= 12 for ids in wanted)
    for name in SPLITS:
        split = corpus.split(name)
        for index in range(len(split)):
            ids = tuple(split.values[split.offsets[index] : split.offsets[index + 1]].tolist())
            assert wanted[ids] == split.labels[index]


def test_examples_of_a_berts_tokenizer_stand_between_its_own_marks(tmp_path: Path) -> None:
    bert_like(tmp_path / "teacher")
    data = rows(tmp_path / "r.jsonl", 30) | {"sequence_length": 5}
    corpus, info, _ = build(ladder("sequence-classification", data, {"kind": "teacher"}), tmp_path, tmp_path / "teacher")
    assert (info.end_id, info.pad_id, info.vocabulary) == (3, 0, 8)
    split = corpus.split("train")
    for index in range(len(split)):
        ids = split.values[split.offsets[index] : split.offsets[index + 1]].tolist()
        assert ids == [2, 4, 1, 1, 3]
    (tmp_path / "short").mkdir()
    short = ladder("sequence-classification", data | {"sequence_length": 2}, {"kind": "teacher"})
    with pytest.raises(UserError, match=r"data\.sequence_length: got 2; allowed: at least 3"):
        build_corpus(short, tmp_path, tmp_path / "teacher", tmp_path / "short", lambda _: None)


def test_a_teacher_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 30)
    (tmp_path / "teacher").mkdir()
    with pytest.raises(UserError, match=r"teacher\.path"):
        build(ladder("causal-lm", data, {"kind": "teacher"}), tmp_path, tmp_path / "teacher")


def test_digits_become_a_corpus_of_images(tmp_path: Path) -> None:
    made = ladder("image-classification", {"source": "digits", "valid_fraction": 0.2, "test_fraction": 0.1})
    corpus, info, _ = build(made, tmp_path)
    assert (info.vocabulary, info.end_id, info.pad_id, info.image_shape) == (None, None, None, (1, 8, 8))
    assert info.label_names == tuple("0123456789")
    assert corpus.tokenizer_folder is None
    assert sum(info.documents.values()) == 1797
    assert info.documents == info.tokens
    for name in SPLITS:
        split = corpus.split(name)
        assert (split.values.dtype, split.values.shape) == (np.float32, (len(split), 1, 8, 8))
        assert split.offsets.tolist() == list(range(len(split) + 1))
        assert [f"digit-{label}" for label in split.labels] == [info.slice_names[index] for index in split.slices]
        assert not np.asarray(split.sizes).any()


def test_a_class_seen_only_outside_training_is_a_class(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 30)
    corpus, _, _ = build(ladder("sequence-classification", data), tmp_path)
    held_out = decode(corpus, "valid", 0)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    changed = [row | {"label": 7 if row["text"].startswith(held_out) else row["label"]} for row in lines]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    (tmp_path / "again").mkdir()
    info = build_corpus(ladder("sequence-classification", data), tmp_path, None, tmp_path / "again", lambda _: None)
    assert info.label_names == ("0", "1", "7")


def test_what_is_left_out_is_said_and_kept_beside_the_corpus(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 30, lambda n: "ab"[n % 2] if n % 10 else None) | {"missing": "drop"}
    corpus, info, told = build(ladder("sequence-classification", data), tmp_path)
    assert sum(info.documents.values()) == 27
    assert "3 rows without label left out" in told
    counts = DataCounts.model_validate_json((corpus.folder / COUNTS).read_text())
    labelled = info.documents["train"]
    said = {"dropped": {"label": 3}, "notes": ("3 rows without label left out",), "labelled": labelled, "unlabelled": 0}
    assert counts == DataCounts(**said, shared_lines={"valid": 0.0, "test": 0.0})


def test_what_is_cut_is_counted_and_said(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 40) | {"sequence_length": 30}
    corpus, _, told = build(ladder("sequence-classification", data), tmp_path)
    counts = DataCounts.model_validate_json((corpus.folder / COUNTS).read_text())
    lengths = {name: [len(text.encode()) + 1 for text in texts_of(corpus, name, tmp_path)] for name in SPLITS}
    for name, whole in lengths.items():
        cut = [length - 30 for length in whole if length > 30]
        assert counts.cut[name] == len(cut) > 0
        assert counts.cut_share[name] == pytest.approx(sum(cut) / sum(whole))
    assert counts.cut_in_words in told
    assert f"{counts.cut['train']} in train" in str(counts.cut_in_words)
    (tmp_path / "whole").mkdir()
    build_corpus(ladder("sequence-classification", data | {"sequence_length": 64}), tmp_path, None, tmp_path / "whole", told.append)
    assert DataCounts.model_validate_json((tmp_path / "whole" / COUNTS).read_text()).cut_in_words is None


def texts_of(corpus: Corpus, name: SplitName, folder: Path) -> list[str]:
    """The whole texts of a split of `rows`, found by their beginnings."""
    by_number = {row["text"].split(":")[0]: row["text"] for row in map(json.loads, (folder / "r.jsonl").read_text().splitlines())}
    return [by_number[decode(corpus, name, index).split(":")[0]] for index in range(len(corpus.split(name)))]


def test_lines_that_held_out_texts_share_with_the_training_texts_are_counted(tmp_path: Path) -> None:
    for n in range(60):
        own = "".join(f"line {k} of the text number {n}\n" for k in range(3))
        (tmp_path / f"{n}.txt").write_text(own + "  A LICENCE that stands in every file \nshort\n")
    data = {"source": "files", "paths": ["*.txt"], "sequence_length": 8, "valid_fraction": 0.3, "test_fraction": 0.3}
    corpus, _, told = build(ladder("causal-lm", data), tmp_path)
    counts = DataCounts.model_validate_json((corpus.folder / COUNTS).read_text())
    assert counts.shared_lines == {"valid": 0.25, "test": 0.25}
    assert "25.0 % of valid's and 25.0 % of test's lines and sentences (from 24 characters on) stand in the training split too" in told
    assert counts.notes[-1] == told[-2]


def test_documents_are_frozen() -> None:
    document = Document("k", "all", "o")
    assert replace(document, text="t").text == "t"
    with pytest.raises(AttributeError):
        document.text = "t"
