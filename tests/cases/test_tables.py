"""Tables as programs export them: JSON arrays, TSV, other separators and encodings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.schema.data import FilesData
from tasks.data.reading.sources import read_source

ROWS = [{"text": f"{n} plus {n} is {2 * n} .\n{n} plus 1 is {n + 1} .", "label": n % 2} for n in range(30)]


def read(folder: Path, *paths: str) -> list[str | None]:
    return [each.text for each in read_source(FilesData(paths=paths), "causal-lm", folder).documents]


def test_arrays_of_objects_are_rows_and_no_text(tmp_path: Path) -> None:
    for part in range(3):
        (tmp_path / f"data{part}.json").write_text(json.dumps(ROWS[part * 10 : part * 10 + 10], indent=part or None))
    assert read(tmp_path, "data*.json") == [row["text"] for row in ROWS]


def test_tab_separated_values_are_a_table(tmp_path: Path) -> None:
    (tmp_path / "reviews.tsv").write_text('text\tlabel\na bad trip, really poor\tnegative\n"a ""great"" walk"\tpositive\n')
    found = read_source(FilesData(paths=("reviews.tsv",)), "sequence-classification", tmp_path).documents
    assert [(each.text, each.label) for each in found] == [("a bad trip, really poor", "negative"), ('a "great" walk', "positive")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("excel.csv", "text;label\ngut;1\n".encode("utf-8-sig"), "separated by semicolons"),
        ("excel.csv", "text,label\nschön,1\n".encode("cp1252"), "'excel.csv:2'"),
        ("excel.csv", "text,label\ngut,1\n".encode("utf-16"), "UTF-16"),
        ("one.json", b'{"text": "a", "label": 1}', "one JSON object"),
        ("cut.json", b'[{"text": "a"}, {"te', "'cut.json:1'"),
        ("api.json", b'{"data": [{"text": "a"}]}', "the list under 'data' alone"),
        ("twice.csv", b"text,label,text\na,1,b\n", "has it 2 times"),
        ("nothing.csv", b"", "it is empty"),
    ],
)
def test_what_cannot_be_read_gets_one_message(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        read(tmp_path, name)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.processes
def test_memory_does_not_grow_with_an_array(tmp_path: Path) -> None:
    row = json.dumps({"text": "the quick brown fox " * 250})
    with (tmp_path / "big.json").open("w") as file:
        file.write("[" + f"{row},\n" * 7999 + row + "]")
    code = (
        "import resource, sys; from pathlib import Path; from tasks.data.reading.tables import read_rows; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "rows = sum(1 for _ in read_rows('big.json', Path(sys.argv[1]), {'text': 'text'})); "
        "print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "big.json"], capture_output=True, text=True, check=True)
    rows, grown = map(int, done.stdout.split())
    assert rows == 8000
    assert grown < 15, "MiB, for a file of 40 MB"
