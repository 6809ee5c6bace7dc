import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from conf.errors import UserError
from conf.schema.data import StdlibData
from conf.schema.ladder import Ladder
from models.data import tokenizers
from models.data.corpus import SPLITS, Corpus, CorpusInfo, SplitName
from tasks.data.build import build_corpus, corpus_identity
from tasks.data.reading.readers import Document
from tasks.data.splits import DROPPED, split_documents
from tasks.data.spool import NONE, place_of
from tasks.records.data import COUNTS, DataCounts

TRAINING = {"steps": 1}
SHAPES: dict[str, dict[str, Any]] = {
    "causal-lm": {"family": "llama", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8},
    "sequence-classification": {"family": "bert", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8},
    "image-classification": {"family": "vit", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8},
}


def ladder(workload: str, data: dict[str, Any], tokenizer: dict[str, Any] | None = None, name: str = "small") -> Ladder:
    teaches = (tokenizer or {}).get("kind") == "teacher"
    return Ladder.model_validate(
        {
            "name": name,
            "workload": workload,
            "data": data,
            "tokenizer": tokenizer or {"kind": "bytes"},
            "teacher": {"source": "checkpoint", "path": "t"}
            if teaches
            else {"source": "train", "shape": SHAPES[workload], "training": TRAINING},
            "stages": [{"name": "only", "student": {"shape": SHAPES[workload]}, "training": TRAINING}],
        }
    )


def rows(path: Path, count: int, label: Any = lambda n: n % 2) -> dict[str, Any]:
    """Write `count` labelled rows and return the settings that read them."""
    texts = [f"row {n}: the brown fox {'ran ' * (n % 5)}home" for n in range(count)]
    path.write_text("".join(json.dumps({"text": text, "label": label(n), "group": f"g{n % 3}"}) + "\n" for n, text in enumerate(texts)))
    return {"source": "files", "paths": [path.name], "columns": {"slice": "group"}, "valid_fraction": 0.2, "test_fraction": 0.2}


def build(made: Ladder, base: Path, teacher: Path | None = None) -> tuple[Corpus, CorpusInfo, list[str]]:
    folder = base / "corpus"
    folder.mkdir()
    told: list[str] = []
    info = build_corpus(made, base, teacher, folder, told.append)
    return Corpus(folder, "hash"), info, told


def parts_of(keys: list[str], **data: Any) -> NDArray[np.uint8]:
    """The part of each document with these keys, where the source gives none."""
    return split_documents(np.array([place_of(key) for key in keys], dtype=np.uint64), np.full(len(keys), NONE), StdlibData(**data))


def keys_of(keys: list[str], **data: Any) -> dict[SplitName, list[str]]:
    parts = parts_of(keys, **data)
    return {name: [key for key, part in zip(keys, parts, strict=True) if part == index] for index, name in enumerate(SPLITS)}


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


def decode(corpus: Corpus, name: Any, index: int) -> str:
    split = corpus.split(name)
    tokenizer = tokenizers.load(corpus.folder / "tokenizer")
    ids = split.values[split.offsets[index] : split.offsets[index + 1]].tolist()
    return str(tokenizer.decode(ids, skip_special_tokens=True))


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


@given(st.lists(st.text(max_size=5), min_size=3, max_size=60, unique=True), st.randoms(use_true_random=False))
def test_every_document_has_a_part_and_one_key_one_part(keys: list[str], random: Any) -> None:
    repeated = [*keys, *random.choices(keys, k=len(keys))]
    splits = keys_of(repeated)
    assert all(splits.values())
    assert sum(map(len, splits.values())) == len(repeated)
    assert sum(len(set(split)) for split in splits.values()) == len(keys)


def test_the_hash_of_the_key_decides_the_split() -> None:
    splits = keys_of([f"package/module{n}.py" for n in range(2000)], valid_fraction=0.1, test_fraction=0.2)
    bounds: dict[SplitName, tuple[float, float]] = {"valid": (0.0, 0.1), "test": (0.1, 0.3), "train": (0.3, 1.0)}
    for name, (low, high) in bounds.items():
        place = [int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) / 2**64 for key in splits[name]]
        assert low <= min(place) < max(place) < high
    assert 160 < len(splits["valid"]) < 240


def test_added_documents_move_no_other() -> None:
    keys = [f"module{n}.py" for n in range(300)]
    before, after = keys_of(keys), keys_of([f"new{n}.py" for n in range(300)] + keys)
    for name in SPLITS:
        assert set(before[name]) == set(after[name]) & set(keys)


@pytest.mark.parametrize("keys", [["a", "b"], ["a", "b", "a", "b"]])
def test_three_different_documents_are_needed(keys: list[str]) -> None:
    with pytest.raises(UserError, match=rf"data: got '{len(set(keys))} different documents'; allowed: at least 3"):
        parts_of(keys)


def test_a_limit_draws_by_seed_and_more_documents_include_fewer() -> None:
    keys = [f"text {n}" for n in range(500)]
    drawn = {n: {key for key, part in zip(keys, parts_of(keys, max_documents=n), strict=True) if part != DROPPED} for n in (50, 60, 500)}
    assert [len(chosen) for chosen in drawn.values()] == [50, 60, 500]
    assert drawn[50] < drawn[60]
    assert drawn[50] != set(keys[:50])
    other = {key for key, part in zip(keys, parts_of(keys, max_documents=50, seed=1), strict=True) if part != DROPPED}
    assert len(other & drawn[50]) < 15, "another seed draws others"
    places = [keys.index(key) / 500 for key in drawn[50]]
    assert 0.35 < sum(places) / 50 < 0.65, "from the whole source"


def test_a_limit_of_the_training_part_leaves_the_others() -> None:
    keys = [f"text {n}" for n in range(500)]
    whole, limited = keys_of(keys), keys_of(keys, max_train_documents=20)
    assert (limited["valid"], limited["test"]) == (whole["valid"], whole["test"])
    assert len(limited["train"]) == 20
    assert set(limited["train"]) < set(keys_of(keys, max_train_documents=30)["train"]) < set(whole["train"])
    assert set(limited["train"]) != set(keys_of(keys, max_train_documents=20, seed=3)["train"])


def test_a_limit_counts_copies_of_a_text_as_documents() -> None:
    parts = parts_of(["one", "two", "three", *["four"] * 30], max_documents=10)
    assert (parts != DROPPED).sum() == 10


def test_the_same_text_in_two_files_is_in_one_split(tmp_path: Path) -> None:
    for n in range(60):
        (tmp_path / f"{n}.txt").write_text(f"text {n % 20} " * 3)
    data = {"source": "files", "paths": ["*.txt"], "sequence_length": 8, "valid_fraction": 0.3, "test_fraction": 0.3}
    corpus, info, _ = build(ladder("causal-lm", data), tmp_path)
    texts = {name: {decode(corpus, name, index) for index in range(info.documents[name])} for name in SPLITS}
    assert sum(info.documents.values()) == 60
    assert len(set.union(*texts.values())) == sum(map(len, texts.values())) == 20


@pytest.mark.parametrize("missing", [(), ("valid",), ("test",), ("valid", "test")])
def test_given_splits_stay_and_missing_ones_are_drawn_from_train(missing: tuple[SplitName, ...]) -> None:
    chosen = [n for n in range(500) if ("train", "train", "train", "valid", "test")[n % 5] not in missing]
    given = np.array([(0, 0, 0, 1, 2)[n % 5] for n in chosen], dtype=np.uint8)
    places = np.array([place_of(f"k{n}") for n in chosen], dtype=np.uint64)
    parts = split_documents(places, given, StdlibData(valid_fraction=0.1, test_fraction=0.2))
    for index, name in enumerate(SPLITS):
        assert set(given[parts == index]) == {0 if name in missing else index}
    assert ("valid" in missing) == (10 < (parts == 1).sum() < 60)
    assert ("test" in missing) == (30 < (parts == 2).sum() < 95)
    few = np.array([0, *[1] * 40], dtype=np.uint8)
    with pytest.raises(UserError, match=r"at least 2: one to train on, and one for what is drawn from train"):
        split_documents(places[: len(few)], few, StdlibData())


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


def test_identity_is_json_and_names_what_the_corpus_depends_on(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 9)
    made = ladder("causal-lm", data)
    before = corpus_identity(made, tmp_path, None)
    assert json.loads(json.dumps(before)) == before
    assert set(before) == {"workload", "data", "tokenizer", "source", "preparation"}
    assert "paths" not in before["data"]

    def differs(other: Ladder, tokenizer: str | None = None) -> bool:
        return corpus_identity(other, tmp_path, tokenizer) != before

    assert not differs(ladder("causal-lm", data, name="another"))
    assert not differs(ladder("causal-lm", data | {"paths": ["*.jsonl"]}))
    assert not differs(ladder("causal-lm", data, {"kind": "bytes", "vocabulary": 300}))
    assert differs(ladder("causal-lm", data | {"valid_fraction": 0.1}))
    assert differs(ladder("causal-lm", data | {"max_documents": 5}))
    assert differs(ladder("causal-lm", data | {"columns": {"text": "text"}}))
    assert differs(ladder("causal-lm", data, {"kind": "bpe", "vocabulary": 300}))
    assert differs(ladder("sequence-classification", data))
    assert not {"missing", "unlabelled", "splits"} & set(before["data"]), "settings that came later change no identity at their default"
    assert differs(ladder("causal-lm", data | {"missing": "drop"}))
    assert differs(ladder("causal-lm", data | {"unlabelled": ["-100"]}))
    teacher = ladder("causal-lm", data, {"kind": "teacher"})
    assert corpus_identity(teacher, tmp_path, "one") != corpus_identity(teacher, tmp_path, "two")
    rows(tmp_path / "r.jsonl", 10)
    assert differs(made)


def test_corpora_of_earlier_versions_keep_their_identity_where_they_are_the_same(tmp_path: Path) -> None:
    data = rows(tmp_path / "r.jsonl", 9)
    (tmp_path / "a.txt").write_text("a")

    def identity(workload: str, **settings: Any) -> dict[str, Any]:
        return corpus_identity(ladder(workload, settings), tmp_path, None)

    # As 0.3.0 hashed them: tests/flows/test_old_version.py restores a whole home.
    old = {"sequence_length", "valid_fraction", "test_fraction", "max_documents", "classes", "source", "columns"}
    kept = identity("causal-lm", **data)
    assert (set(kept["data"]), kept["preparation"]) == (old, 1)
    assert identity("causal-lm", **data, seed=5) == kept, "nothing is drawn"
    assert identity("image-classification", source="digits")["preparation"] == 1
    assert identity("causal-lm", **data | {"paths": ["a.txt"]})["preparation"] == 2, "split by content"
    assert identity("causal-lm", source="python-stdlib")["preparation"] == 2
    drawn = identity("causal-lm", **data, max_documents=5)
    assert drawn["preparation"] == 2
    assert identity("causal-lm", **data, max_documents=5, seed=1) != drawn
    assert identity("causal-lm", **data, max_train_documents=5) != kept


def test_documents_are_frozen() -> None:
    document = Document("k", "all", "o")
    assert replace(document, text="t").text == "t"
    with pytest.raises(AttributeError):
        document.text = "t"
