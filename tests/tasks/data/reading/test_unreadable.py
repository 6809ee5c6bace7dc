"""Content that cannot be read is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from tasks.data.reading.sources import read_source
from tests.tasks.data.builders import files


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("latin.txt", "a\ngröße".encode("latin-1"), r"'latin\.txt:2'.*0xf6 at position 3 of the line is not UTF-8: iconv -f latin1"),
        ("latin.csv", b"text\na\n\xf6\n", r"'latin\.csv:3'.*0xf6 at position 1 of the line is not UTF-8"),
        ("wide.csv", "text\na\n".encode("utf-16"), r"'wide\.csv:1'.*it is UTF-16, not UTF-8: iconv -f utf-16 -t utf-8"),
        ("book.xlsx", b"PK\x03\x04\x8b", r"'book\.xlsx'.*an Excel workbook"),
        (
            "headless.csv",
            b"%s,1\nmore,0\n" % (b"long " * 99),
            r"columns of headless\.csv: long long [long ]{27}\.\.\., 1\. .*The first line of the file",
        ),
        ("packed.txt", b"\x1f\x8b\x08", r"'packed\.txt'.*compressed: gunzip"),
        ("latin.jsonl", b'{"text": "a"}\n{"text": "\xf6"}\n', r"'latin\.jsonl:2'.*0xf6 at position 11 of the line is not UTF-8"),
        ("half.jsonl", b'{"text": "a"}\n\n{"text": \n', r"'half\.jsonl:3'.*not JSON"),
        ("list.jsonl", b"[1]\n", r"'list\.jsonl:1'.*one JSON object"),
        ("surrogate.jsonl", b'{"text": "\\ud800"}\n', r"'surrogate\.jsonl:1'.*not Unicode"),
        ("number.jsonl", b'{"text": 5}\n', r"data\.columns\.text.*number\.jsonl:1 holds 5"),
        ("null.jsonl", b'{"text": null}\n', r"data\.columns\.text.*null\.jsonl:1 holds None"),
        ("absent.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', r"data\.columns\.text.*absent\.jsonl:2: txt.*Did you mean 'txt'"),
        ("ragged.csv", b"text,label\na,b\nc\n", r"'ragged\.csv:3'.*1 fields under a header of 2"),
        ("quote.csv", b'text\n"a" b\n', r"'quote\.csv:2'.*double quotes enclose a whole field, and are doubled inside it"),
        ("open.csv", b'text\n"never closed\n', r"'open\.csv:2'"),
        ("void.csv", b"", r"'void\.csv'.*it is empty"),
        ("void.jsonl", b"", r"'void\.jsonl'.*it is empty"),
        (
            "comma.csv",
            b"text,label\na,b,c\n",
            r"'comma\.csv:2'.*3 fields under a header of 2; a field that holds a ',' stands in double quotes",
        ),
        ("semi.csv", b"text;label\na;b\n", r"'semi\.csv'.*separated by semicolons, and in \.csv files by commas; write it again"),
        ("tabs.csv", b"text\tlabel\na\tb\n", r"'tabs\.csv'.*separated by tabs.*rename it to \.tsv"),
        ("commas.tsv", b"text,label\na,b\n", r"'commas\.tsv'.*separated by commas, and in \.tsv files by tabs; rename it to \.csv"),
        ("twice.csv", b"text,text\na,b\n", r"data\.columns\.text: got 'text'; .*header of twice\.csv has it 2 times"),
        ("void.json", b"", r"'void\.json'.*it is empty"),
        ("object.json", b'{"text": "a"}', r"'object\.json'.*one JSON object where a table is an array of objects"),
        ("inside.json", b'{"meta": 1,\n"rows": [{"text": "a"}]}', r"'inside\.json'.*the list under 'rows' alone may be meant"),
        ("broken.json", b'[{"text": "a"},\n {"text": "b"\n', r"'broken\.json:\d'.*not JSON: .* in item 2"),
        ("open.json", b'[{"text": "a"}', r"'open\.json:1'.*a comma or the end of the array is missing after item 1"),
        ("texts.json", b'["a", "b"]', r"'texts\.json:1'.*item 1 of the array is no object"),
        ("after.json", b'[{"text": "a"}]\n[]', r"'after\.json:2'.*text after the end of the array"),
        ("word.json", b'"a"', r"'word\.json'.*no JSON array of objects"),
        ("half.json", b'{"text": "a",\n"label": }', r"'half\.json'.*not JSON: .* in line 2"),
        ("latin.json", b'[{"text": "\xf6"}]', r"'latin\.json:1'.*0xf6 at position 12"),
        ("junk.parquet", b"not parquet at all", r"'junk\.parquet'"),
        ("void.parquet", b"", r"'void\.parquet'.*it is empty"),
    ],
)
def test_unreadable_content_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says):
        read_source(files(name), "causal-lm", tmp_path)


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "one.json"])
@pytest.mark.parametrize(
    ("value", "says"), [("9" * 5000, "a number has too many digits"), ("[" * 90_000 + "]" * 90_000, "nested too deep")]
)
def test_json_that_python_cannot_hold_is_named(tmp_path: Path, name: str, value: str, says: str) -> None:
    row = f'{{"text": "a", "n": {value}}}'
    (tmp_path / name).write_text(f"[{row}]" if name == "r.json" else row)
    with pytest.raises(UserError, match=f"{name}.*{says}"):
        read_source(files(name), "causal-lm", tmp_path)
