"""Window files: what is read, what is left out with a sentence, and when nothing is read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.schema.shipping.monitoring import WindowColumns
from tasks.monitoring.windows import Window, list_windows, pack_keys, read_window, unpack_keys
from tests.tasks.monitoring.conftest import reviews, write_rows

COLUMNS = WindowColumns()


def window(path: Path, text: str, columns: WindowColumns = COLUMNS) -> Window:
    path.write_text(text)
    found = read_window(path, columns)
    assert found is not None
    return found


def line(**row: object) -> str:
    return json.dumps({"time": "2026-03-01T00:00:00+00:00", "input": "a", **row}) + "\n"


def test_files_of_a_folder_without_those_that_are_still_written(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.parquet", "c.jsonl.part", ".d.jsonl", "e.csv"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "images").mkdir()
    assert [path.name for path in list_windows(str(tmp_path))] == ["a.parquet", "b.jsonl"]
    assert [path.name for path in list_windows(str(tmp_path / "*.jsonl"))] == ["b.jsonl"]
    assert list_windows(str(tmp_path / "*.ndjson")) == []
    with pytest.raises(UserError, match=r"--windows: got .*nowhere'; allowed: a folder of window files, or a pattern"):
        list_windows(str(tmp_path / "nowhere"))


def test_rows_of_json_lines_by_time(tmp_path: Path) -> None:
    rows = reviews(20, 1)
    found = read_window(write_rows(tmp_path / "w.jsonl", rows[::-1]), COLUMNS)
    assert found is not None
    assert [row.request for row in found.rows] == [row["request"] for row in rows]
    assert (found.name, found.began, found.problems, found.unusable) == ("w", rows[0]["time"], [], None)


def test_the_same_rows_as_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = reviews(20, 1)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "w.parquet")
    found = read_window(tmp_path / "w.parquet", COLUMNS)
    plain = read_window(write_rows(tmp_path / "w.jsonl", rows), COLUMNS)
    assert found is not None
    assert plain is not None
    assert (found.rows, found.keys) == (plain.rows, plain.keys)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "It is empty."),
        ("\n\n", "It is empty."),
        ("nonsense\n", "It holds no row."),
        ('{"text": "a", "when": 1}\n', "It has no column 'input' of inputs but text, when. Set monitoring.columns.input to the right one."),
        ('{"inputs": "a"}\n', "It has no column 'input' of inputs but inputs. Did you mean 'inputs'? Set monitoring.columns.input"),
        ('{"input": ""}\n', "It holds no usable row."),
    ],
)
def test_an_unusable_window_has_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert (window(tmp_path / "w.jsonl", text).unusable or "").startswith(sentence)


def test_a_damaged_parquet_file_has_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "w.parquet").write_bytes(b"PAR1 and more")
    found = read_window(tmp_path / "w.parquet", COLUMNS)
    assert found is not None
    assert (found.unusable or "").startswith("It cannot be read: ")


def test_broken_rows_are_left_out_with_the_first_place(tmp_path: Path) -> None:
    text = line() + '{"time": "2026\n' + line(input=None) + line(input="b", time="yesterday") + "[1]\n" + line(input="c")
    found = window(tmp_path / "w.jsonl", text)
    assert [row.input for row in found.rows] == ["a", "c"]
    assert found.problems == [
        "2 lines are no JSON object, the first line 2; left out.",
        "2 rows are broken, the first line 3: no input; left out.",
    ]


def test_unknown_columns_are_named_and_others_mapped(tmp_path: Path) -> None:
    columns = WindowColumns(input="q", label="truth", time="at")
    found = window(tmp_path / "w.jsonl", '{"q": "a", "truth": "yes", "at": 1772323200, "user": 3, "zip": 1}\n', columns)
    assert (found.rows[0].input, found.rows[0].label, found.rows[0].time) == ("a", "yes", "2026-03-01T00:00:00+00:00")
    assert found.problems == ["Unknown columns user, zip are not read."]


def test_times_without_offset_are_utc_and_a_missing_one_is_that_of_the_file(tmp_path: Path) -> None:
    found = window(tmp_path / "w.jsonl", '{"input": "a", "time": "2026-03-01T00:00:00"}\n{"input": "b"}\n')
    assert found.problems == ["1 time is without offset, taken as UTC."]
    assert found.rows[0].time == "2026-03-01T00:00:00+00:00"


def test_a_row_that_is_in_it_twice_is_counted_once_with_its_label(tmp_path: Path) -> None:
    found = window(tmp_path / "w.jsonl", line(request="1") + line(request="1", label="good") + line(request="2"))
    assert [(row.request, row.label) for row in found.rows] == [("1", "good"), ("2", None)]
    assert found.problems == ["1 row is in it twice; each is counted once."]
    assert unpack_keys(pack_keys(found.keys)) == set(found.keys)


def test_a_file_that_grows_while_it_is_read_is_put_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "w.jsonl", reviews(3, 1))
    read = Path.read_bytes

    def grown(self: Path) -> bytes:
        content = read(self)
        with open(self, "ab") as file:
            file.write(b"{}\n")
        return content

    monkeypatch.setattr(Path, "read_bytes", grown)
    assert read_window(path, COLUMNS) is None
    monkeypatch.undo()
    assert read_window(path, COLUMNS) is not None


def test_a_file_that_cannot_be_opened_has_one_sentence(tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone", tmp_path / "w.jsonl")
    found = read_window(tmp_path / "w.jsonl", COLUMNS)
    assert found is not None
    assert (found.unusable or "").startswith("It cannot be opened: ")
