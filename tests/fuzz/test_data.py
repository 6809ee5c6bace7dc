"""Data files with anything in them are refused in a message, or they are data."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from conf.errors import UserError
from conf.schema.data import FilesData
from tasks.data.reading.sources import read_source
from tests.fuzz.tried import tried

ROWS = [{"text": f"a text, {i}", "label": f"class {i % 2}"} for i in range(6)]
ODD = [
    b"9" * 5000,
    b"[" * 50_000,
    b'"\\ud800"',
    b"\\u0000",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"NaN",
    b"1e999",
    b'"',
    b",,,",
    b"\r",
    b"\n\n",
    b"\t",
]


def write(folder: Path) -> dict[str, bytes]:
    """The bytes of the same small table in every form."""
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "whole.parquet")
    lines = [json.dumps(row) for row in ROWS]
    return {
        ".jsonl": "\n".join(lines).encode(),
        ".json": f"[{','.join(lines)}]".encode(),
        ".csv": ("text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in ROWS)).encode(),
        ".tsv": ("text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in ROWS)).encode(),
        ".txt": "\n".join(row["text"] for row in ROWS).encode(),
        ".parquet": (folder / "whole.parquet").read_bytes(),
    }


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet"])
def test_bytes_changed_anywhere(suffix: str, tmp_path: Path) -> None:
    content = write(tmp_path)[suffix]
    file = tmp_path / f"data{suffix}"

    @settings(settings.get_profile("fuzz"))
    @given(st.integers(0, len(content)), st.integers(0, 40), st.sampled_from(ODD) | st.binary(max_size=8), st.booleans())
    def changed(place: int, gone: int, new: bytes, cut: bool) -> None:
        file.write_bytes(content[:place] + new + (b"" if cut else content[place + gone :]))
        for workload in ("causal-lm", "sequence-classification"):
            said = "data"
            try:
                for document in read_source(FilesData(paths=(file.name,)), workload, tmp_path).documents:
                    (document.text or "").encode()
                tried(f"{suffix}: read")
            except UserError as error:
                tried(f"{suffix}: refused")
                said = str(error)
            assert "data" in said
            assert "\n" not in said

    changed()


def test_links_that_lead_nowhere_and_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "nowhere.csv").symlink_to(tmp_path / "gone")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "folder.csv").mkdir()
    for path in ("nowhere.csv", "loop.csv", "folder.csv", "*.csv", "x" * 300, "x/" * 3000, "[[[", "~nobody/x", "/dev/null"):
        with pytest.raises(UserError, match=r"^data\.paths"):
            read_source(FilesData(paths=(path,)), "causal-lm", tmp_path)


def test_values_that_no_column_of_text_or_labels_holds(tmp_path: Path) -> None:
    odd = {
        "date": pa.array([5 * 10**6], pa.date32()),
        "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32())),
        "bytes": pa.array([b"\xff"]),
        "list": pa.array([["a"]]),
        "half": pa.array(["a\x00b"]),
    }
    for name, column in odd.items():
        parquet.write_table(pa.table({"text": ["x"], "label": column}), tmp_path / f"{name}.parquet")
        with pytest.raises(UserError, match=r"^data\."):
            read_source(FilesData(paths=(f"{name}.parquet",)), "sequence-classification", tmp_path)
