"""`ladder init` looks at a teacher and at data and writes a ladder that loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from conf.schema.data import FilesData
from conf.schema.ladder import Ladder
from models.data import tokenizers
from tasks.planning.plan import make_plan
from tasks.runtime.runs.run_registry import PLAN, Context
from tasks.setup.guesses import Question
from tasks.setup.init import NewLadder, init_ladder
from tasks.setup.teacher_look import look_at_teacher
from tests.vision_models import save_model

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "room", "was", "warm", "cold")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
CLASSES = {0: "COLD", 1: "WARM"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teachers of three workloads and a body without a head, and data of four formats."""
    place = tmp_path_factory.mktemp("init")
    torch.manual_seed(0)
    words = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    bert = BertConfig(**SIZES, vocab_size=len(words), max_position_embeddings=64, id2label=CLASSES)
    for name, kind in (("classifier", BertForSequenceClassification), ("body", BertForMaskedLM)):
        kind(bert).save_pretrained(place / name)
        words.save_pretrained(place / name)
    LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=258, max_position_embeddings=128)).save_pretrained(place / "llama")
    tokenizers.save(tokenizers.bytes_tokenizer(), place / "llama")
    ViTForImageClassification(ViTConfig(**SIZES, image_size=8, patch_size=2, id2label=CLASSES)).save_pretrained(place / "vit")
    rows = [(f"room {n} was {'warm' if n % 2 else 'cold'}", "warm" if n % 2 else "cold", "DE" if n % 3 else "FR") for n in range(60)]
    (place / "reviews.csv").write_text("\n".join(["said,feel,country", *map(",".join, rows)]) + "\n")
    (place / "docs.jsonl").write_text(
        "".join(json.dumps({"url": f"u{n}", "text": text * 20}) + "\n" for n, (text, _, _) in enumerate(rows))
    )
    table = [{"text": text, "label": n % 2, "part": "train" if n % 5 else "test"} for n, (text, _, _) in enumerate(rows)]
    parquet.write_table(pa.Table.from_pylist(table), place / "rows.parquet")
    for number in range(12):
        (place / "photos" / ("cold", "warm")[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), 20 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(place / "photos" / ("cold", "warm")[number % 2] / f"{number}.png")
    return place


def first(question: Question) -> str:
    return question.choices[0][0]


def made(folder: Path, out: Path, teacher: str, data: str, sizes: Sequence[str] = ("14k",), ask=first) -> tuple[NewLadder, Ladder]:
    context = Context(run=PLAN, ladder="init", home=str(folder / "home"), base=str(folder))
    initialised = init_ladder(teacher, [data], sizes, str(out), ask, context)
    return initialised, load(str(out)).ladder


def test_a_classifier_and_a_table(folder: Path, tmp_path: Path) -> None:
    asked: list[Question] = []
    initialised, ladder = made(folder, tmp_path / "mine.yaml", "classifier", "reviews.csv", ask=lambda q: asked.append(q) or first(q))
    assert (ladder.name, ladder.workload, ladder.tokenizer.kind) == ("mine", "sequence-classification", "teacher")
    assert isinstance(ladder.data, FilesData)
    assert (ladder.data.columns.text, ladder.data.columns.label) == ("said", "feel")
    assert ladder.data.sequence_length == 16
    assert asked == [], "the teacher's classes tell which column holds the labels"
    assert "country (2 values)" in initialised.draft.reasons["data.columns"]
    assert "the teacher's" in initialised.text
    planned = make_plan(ladder, tmp_path, Home(tmp_path / "home"))
    assert planned.stages[0].parameters == pytest.approx(14_000, rel=0.03)


def test_a_language_model_and_documents(folder: Path, tmp_path: Path) -> None:
    _, ladder = made(folder, tmp_path / "docs.yaml", "llama", "docs.jsonl", sizes=())
    assert ladder.workload == "causal-lm"
    assert ladder.data.sequence_length == 64, "of 128 positions: longer windows would be few"
    assert len(ladder.stages) == 2
    assert ladder.stages[0].student.parameters == pytest.approx(11_000, rel=0.1)


def test_a_folder_of_images(folder: Path, tmp_path: Path) -> None:
    _, ladder = made(folder, tmp_path / "photos.yaml", "vit", "photos")
    assert ladder.workload == "image-classification"
    assert isinstance(ladder.data, FilesData)
    assert (tmp_path / ladder.data.paths[0]).resolve() == (folder / "photos").resolve()


def test_an_encoder_without_a_head_and_a_column_of_splits(folder: Path, tmp_path: Path) -> None:
    initialised, ladder = made(folder, tmp_path / "rows.yaml", "body", "rows.parquet")
    assert ladder.workload == "sequence-classification"
    assert "no head" in initialised.text
    assert isinstance(ladder.data, FilesData)
    assert ladder.data.splits is not None
    assert ladder.data.splits.column == "part"


@pytest.mark.parametrize("choice", [0, 1])
def test_a_folder_of_sentence_transformers_and_a_column_of_classes(folder: Path, tmp_path: Path, choice: int) -> None:
    shutil.copytree(folder / "body", tmp_path / "encoder")
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    (tmp_path / "encoder" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "encoder" / "1_Pooling").mkdir()
    (tmp_path / "encoder" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    asked: list[Question] = []

    def chosen(question: Question) -> str:
        asked.append(question)
        return question.choices[choice][0]

    _, ladder = made(folder, tmp_path / "rows.yaml", str(tmp_path / "encoder"), "rows.parquet", ask=chosen)
    assert [question.key for question in asked] == ["workload"], "classes in the data leave it open"
    assert ladder.workload == ("embedding", "sequence-classification")[choice]
    assert ladder.stages[0].objective.kind == ("cosine", "forward-kl")[choice]
    assert (getattr(ladder.teacher, "training", None) is None) == (choice == 0)
    planned = make_plan(ladder, tmp_path, Home(tmp_path / "home"))
    assert planned.stages[0].parameters == pytest.approx(14_000, rel=0.03)


@pytest.mark.parametrize("kind", ["messages", "prompt"])
def test_conversations(folder: Path, tmp_path: Path, kind: str) -> None:
    turns = [{"role": "user", "content": "Warm or cold?"}, {"role": "assistant", "content": "Warm."}]
    worked = {"instruction": "Warm or cold?", "output": "Warm.", "id": 1, "Reasoning": "It is May."}
    row = {"chat": turns, "id": 1} if kind == "messages" else worked
    (tmp_path / "chats.jsonl").write_text((json.dumps(row) + "\n") * 40)
    initialised, ladder = made(folder, tmp_path / f"{kind}.yaml", "llama", str(tmp_path / "chats.jsonl"))
    assert isinstance(ladder.data, FilesData)
    columns = ladder.data.columns
    if kind == "messages":
        assert columns.messages == "chat"
        assert "no chat template" in initialised.text
    else:
        assert (columns.prompt, columns.completion, columns.rationale) == ("instruction", "output", "Reasoning")
        assert "'Reasoning' is a second task" in initialised.text
    assert ladder.data.sequence_length == (24 if kind == "messages" else 32)  # of all that is read


def test_two_possible_columns_are_asked(folder: Path, tmp_path: Path) -> None:
    asked: list[Question] = []

    def last(question: Question) -> str:
        asked.append(question)
        return question.choices[-1][0]

    _, ladder = made(folder, tmp_path / "last.yaml", "body", "reviews.csv", ask=last)
    assert isinstance(ladder.data, FilesData)
    assert [question.key for question in asked] == ["data.columns.label"]
    assert ladder.data.columns.label == asked[0].choices[-1][0]
    assert {name for name, _ in asked[0].choices} == {"feel", "country"}


def test_a_model_of_pictures_with_texts_is_left_to_its_user(tmp_path: Path) -> None:
    save_model(tmp_path / "vlm")
    with pytest.raises(UserError, match=r"--teacher: got .*idefics3'; allowed: a language model or a classifier"):
        look_at_teacher("vlm", Context(run=PLAN, ladder="init", home=str(tmp_path / "home"), base=str(tmp_path)))


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("kept")
    with pytest.raises(UserError, match=r"^--out: .*mine\.yaml'; allowed: a file that does not exist yet"):
        made(folder, tmp_path / "mine.yaml", "classifier", "reviews.csv")
    assert (tmp_path / "mine.yaml").read_text() == "kept"


@pytest.mark.parametrize(
    ("teacher", "data", "sizes", "says"),
    [
        ("vit", "reviews.csv", ("14k",), "reads images, and the data hold none"),
        ("classifier", "photos", ("14k",), "reads text, and the data hold images"),
        ("classifier", "nothing.csv", ("14k",), "--data: got 'nothing.csv'; allowed: a file"),
        ("classifier", "docs.jsonl", ("14k",), "a column with classes"),
        ("classifier", "reviews.csv", ("9x",), "--to: got '9x'; allowed: numbers of parameters"),
        ("classifier", "reviews.csv", ("9m",), "--to: got '9m'; allowed: fewer than"),
        ("nothing", "reviews.csv", ("14k",), "teacher.path: got 'nothing'"),
    ],
)
def test_what_does_not_go_together(folder: Path, tmp_path: Path, teacher: str, data: str, sizes: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError) as caught:
        made(folder, tmp_path / "x.yaml", teacher, data, sizes)
    assert says in str(caught.value)
    assert not (tmp_path / "x.yaml").exists()


def rows_in(folder: Path, name: str, head: str, count: int = 60) -> None:
    (folder / name).write_text("\n".join([head, *(f"{name} {n} is so,{'warm' if n % 2 else 'cold'}" for n in range(count))]) + "\n")


def test_files_named_after_splits_are_given_splits(folder: Path, tmp_path: Path) -> None:
    for name in ("train-0.csv", "train-1.csv", "my_test.csv"):
        rows_in(tmp_path, name, "text,label")
    _, ladder = made(folder, tmp_path / "parts.yaml", "classifier", str(tmp_path))
    assert isinstance(ladder.data, FilesData)
    assert ladder.data.splits is not None
    assert {name: len(paths) for name, paths in ladder.data.splits.named().items()} == {"train": 2, "test": 1}
    rows_in(tmp_path, "latest.csv", "said,label")
    initialised, ladder = made(folder, tmp_path / "whole.yaml", "classifier", str(tmp_path / "*.csv"))
    assert isinstance(ladder.data, FilesData)
    assert ladder.data.splits is None
    assert any("60 of 240 rows that were looked at have no column 'text'" in warning for warning in initialised.draft.warnings)


def test_a_value_that_stands_for_no_label_becomes_a_setting(folder: Path, tmp_path: Path) -> None:
    rows = [{"text": f"room {n} was warm", "label": (0, 1, -100)[n % 3]} for n in range(60)]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    initialised, ladder = made(folder, tmp_path / "x.yaml", "body", str(tmp_path / "r.jsonl"))
    assert ladder.data.unlabelled == ("-100",)
    assert "2 classes: 0, 1" in initialised.draft.reasons["data.columns"]


def test_switches_are_classes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps({"text": f"room {n} was warm", "ok": n % 3 == 0}) + "\n" for n in range(60)))
    initialised, ladder = made(folder, tmp_path / "x.yaml", "body", str(tmp_path / "r.jsonl"))
    assert isinstance(ladder.data, FilesData)
    assert ladder.data.columns.label == "ok"
    assert "2 classes: False, True" in initialised.draft.reasons["data.columns"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("r.csv", b"text,label\n", "data with rows or text"),
        ("r.json", b"[]", "data with rows or text"),
        ("r.txt", b" \n", "data with rows or text"),
        ("r.csv", b"text;label\na;b\n", "separated by semicolons"),
        ("r.csv", b"fine,good\n" + b"warm,good\ncold,bad\n" * 3, "by 'good': write a line above it, such as text,label."),
        ("r.csv", b"it was a warm room,x\nit was a cold one,y\n", "by 'it was a warm room': write a line above it"),
        ("r.tsv", b"warm\t5\ncold\t1\nnice\t4\n", "by '5': write a line above it"),
        ("r.parquet", b"no table", "r.parquet"),
        ("photos/1.png", b"no matter", "a folder for each class"),
    ],
)
def test_data_without_content_or_in_another_format(folder: Path, tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        made(folder, tmp_path / "x.yaml", "classifier", str(tmp_path / name.split("/")[0]))
    assert says in str(caught.value)
    assert not (tmp_path / "x.yaml").exists()
