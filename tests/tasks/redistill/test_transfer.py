"""Windows as training data: each content once, a part held out by content, labels kept, weights that balance."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from tasks.redistill.transfer import WindowExample, gather, is_held_out, weight_of, window_files, write_window_data
from tests.factories import ladder_of_file
from tests.tasks.data.builders import SHAPES, TRAINING, write_parquet

CLASSES = ("bad", "good")
BEGAN, COUNTER = datetime(2026, 1, 1, tzinfo=UTC), itertools.count()


def ladder(**settings: Any) -> Ladder:
    kind = SHAPES["sequence-classification"]
    teacher = {"source": "train", "shape": kind, "training": TRAINING}
    return ladder_of_file(teacher=teacher, stages=[{"name": "small", "student": {"shape": kind}, "training": TRAINING}], **settings)


def language(**data: Any) -> Ladder:
    kind = SHAPES["causal-lm"]
    teacher = {"source": "train", "shape": kind, "training": TRAINING}
    source = {"source": "files", "paths": ["rows.jsonl"], **data}
    return ladder_of_file(
        workload="causal-lm", data=source, teacher=teacher, stages=[{"name": "small", "student": {"shape": kind}, "training": TRAINING}]
    )


def window(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(text: Any, label: Any = None, **more: Any) -> dict[str, Any]:
    """A request of its own time: the same row twice would be the same request."""
    moment = BEGAN + timedelta(seconds=next(COUNTER))
    return {"time": moment.isoformat(), "input": text, "label": label, **more}


def test_each_content_comes_once_with_the_last_label_it_had(tmp_path: Path) -> None:
    first = window(tmp_path, "a.jsonl", [row("one", "good"), row("two"), row("one"), row("three", "bad")])
    second = window(tmp_path, "b.jsonl", [row("two", "bad"), row("three", "good"), row(" ", "good"), row("four", "odd")])
    found = gather([first, second], ladder(), CLASSES, 100)
    assert {each.content: each.label for each in found.examples} == {"one": "good", "two": "bad", "three": "good"}
    assert (found.files, found.rows, found.unusable) == (2, 8, 2), "empty, of an unknown class"


def test_labels_are_read_as_the_classes_are_written(tmp_path: Path) -> None:
    path = window(tmp_path, "a.jsonl", [row("a", 1), row("b", " 0 "), row("c", "1.0"), row("d", "nan"), row("e", 7)])
    found = gather([path], ladder(), ("0", "1"), 100)
    assert {each.content: each.label for each in found.examples} == {"a": "1", "b": "0", "c": "1", "d": None}


def test_the_newest_rows_are_used_and_tables_need_no_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"input": f"text {n}"} for n in range(10)])
    found = gather([tmp_path / "a.parquet"], ladder(), CLASSES, 4)
    assert [each.content for each in found.examples] == [f"text {n}" for n in range(6, 10)]
    assert all(each.label is None for each in found.examples)


def test_windows_that_cannot_be_used_are_left_out_and_named(tmp_path: Path, calm: None, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text('{"input": "a"\n')
    (tmp_path / "b.jsonl").write_text("")
    third = window(tmp_path, "c.jsonl", [row("one", "good"), {"text": "no input"}])
    found = gather([tmp_path / "a.jsonl", tmp_path / "b.jsonl", third], ladder(), CLASSES, 10)
    assert [each.content for each in found.examples] == ["one"]
    assert "window a.jsonl left out" in caplog.text
    assert "window b.jsonl left out: It is empty" in caplog.text


def test_files_that_grow_are_left_and_none_is_an_error(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    (home.windows / "tiny").mkdir(parents=True)
    with pytest.raises(UserError, match=r"--windows: got .*home/windows/tiny'; allowed: a folder or pattern of window files"):
        window_files(None, home, "tiny", tmp_path)
    window(home.windows / "tiny", "20260101T01.jsonl", [row("a")])
    window(home.windows / "tiny", "20260101T00.jsonl", [row("b")])
    (home.windows / "tiny" / "20260101T02.jsonl.part").write_text("{")
    assert [path.name for path in window_files(None, home, "tiny", tmp_path)] == ["20260101T00.jsonl", "20260101T01.jsonl"]
    assert [path.name for path in window_files("home/windows/tiny/*01.jsonl", home, "tiny", tmp_path)] == ["20260101T01.jsonl"]


def made(tmp_path: Path, made_ladder: Ladder, examples: Sequence[dict[str, Any]], answer: Any = None, base: int = 1000) -> Any:
    path = window(tmp_path, "w.jsonl", examples)
    data = write_window_data(tmp_path / "rows", gather([path], made_ladder, CLASSES, 10**6), made_ladder, base, answer)
    read = [[] if file is None else [json.loads(line) for line in file.read_text().splitlines()] for file in (data.transfer, data.held_out)]
    return data, *read


def test_a_share_is_held_out_by_content_and_never_trains(tmp_path: Path) -> None:
    rows = [row(f"text {n}", CLASSES[n % 2]) for n in range(600)]
    data, train, judge = made(tmp_path, ladder(), rows)
    assert not {each["text"] for each in train} & {each["text"] for each in judge}
    assert len(train) + len(judge) == 600
    assert 0.24 < len(judge) / 600 < 0.36
    assert data.judged_by == "labels"
    again = [row(f"text {n}") for n in reversed(range(300))]
    _, later, _ = made(tmp_path, ladder(), again)
    assert {each["text"] for each in later} <= {each["text"] for each in train}, "a content stays on its side in later windows"
    lower = ladder(redistill={"holdout": 0.1})
    _, most, few = made(tmp_path, lower, rows)
    assert {each["text"] for each in few} < {each["text"] for each in judge}
    assert len(most) > len(train)


def test_rows_without_label_train_and_are_judged_by_the_teacher_where_labels_are_few(tmp_path: Path) -> None:
    rows = [row(f"text {n}", "good" if n % 50 == 0 else None) for n in range(400)]
    data, train, judge = made(tmp_path, ladder(), rows, lambda texts: ["bad"] * len(texts))
    assert data.judged_by == "labels and the teacher"
    assert {each["label"] for each in judge} == {"good", "bad"}
    assert {each["label"] for each in train} == {"good", None}
    assert data.counts.held_out_labelled == sum(each["label"] == "good" for each in judge)
    data, _, judge = made(tmp_path, ladder(), rows)
    assert {each["label"] for each in judge} == {"good"}, "nobody to ask"
    many = [row(f"text {n}", "good" if n % 2 else None) for n in range(800)]
    data, _, judge = made(tmp_path, ladder(), many, pytest.fail)
    assert (data.judged_by, {each["label"] for each in judge}) == ("labels", {"good"})


@pytest.mark.parametrize(("mix", "weight"), [(None, 1.0), (0.5, 2.46), (0.2, 0.616)])
def test_the_mix_sets_the_weight(tmp_path: Path, mix: float | None, weight: float) -> None:
    settings = {} if mix is None else {"redistill": {"mix": mix}}
    data, train, _ = made(tmp_path, ladder(**settings), [row(f"text {n}", "good") for n in range(600)])
    assert (len(train), data.counts.weight) == (406, weight)
    assert weight_of(0.9, 10**9, 3) == 100.0, "the largest weight of a source"


@pytest.mark.parametrize(
    ("columns", "content", "expected"),
    [
        ({}, "what is", {"text": "what is it"}),
        ({"prompt": "q", "completion": "a"}, "what is", {"q": "what is", "a": " it"}),
        (
            {"messages": "chat"},
            [{"role": "user", "content": "what"}],
            {"chat": [{"role": "user", "content": "what"}, {"role": "assistant", "content": " it"}]},
        ),
    ],
)
def test_language_models_learn_from_texts_and_right_answers(tmp_path: Path, columns: dict[str, str], content: Any, expected: Any) -> None:
    path = window(tmp_path, "a.jsonl", [{"input": content, "label": " it"}])
    found = gather([path], language(columns=columns), (), 10)
    example = WindowExample(found.examples[0].key, found.examples[0].content, " it", None)
    side = "held_out" if is_held_out(example, 0.3) else "transfer"
    made_ladder = language(columns=columns)
    data = write_window_data(tmp_path / "rows", found._replace(examples=[example]), made_ladder, 10, None)
    assert json.loads(getattr(data, side).read_text()) == expected
