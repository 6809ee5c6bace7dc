"""Documents of every kind of source, and the hash of its content."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from conf.errors import UserError
from conf.schema.data import DigitsData, StdlibData
from tasks.data.reading.sources import read_source, source_hash
from tests.tasks.data.builders import ROWS, WRITERS, files, texts, write_csv, write_jsonl


def test_the_standard_library_is_read_without_tests_and_installed_packages() -> None:
    documents = read_source(StdlibData(), "causal-lm", Path()).documents
    names = [document.origin for document in documents]
    assert names == sorted(names)
    assert len(names) > 400
    left_out = {"site-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3", "encodings"}
    assert not [name for name in names if left_out & set(name.split("/"))]
    slices = {document.origin: document.slice for document in documents}
    assert (slices["ast.py"], slices["json/decoder.py"], slices["xml/dom/minidom.py"]) == ("(modules)", "json", "xml")
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    assert documents[names.index("ast.py")].text == (stdlib / "ast.py").read_bytes().decode()


def test_digits_are_grey_images_with_their_slices() -> None:
    documents = read_source(DigitsData(), "image-classification", Path()).documents
    assert len(documents) == 1797
    first = documents[0]
    assert (first.key, first.slice, first.label) == ("digit-0", "digit-0", 0)
    images = np.stack([document.image for document in documents if document.image is not None])
    assert (images.shape, images.dtype, images.min(), images.max()) == ((1797, 1, 8, 8), np.float32, 0, 1)


def test_text_files_are_documents_sliced_by_folder(tmp_path: Path) -> None:
    for name in ("a/one.txt", "a/deep/two.md", "three.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(f"text of {name}\r\n".encode())
    documents = read_source(files("**/*.*", "a/one.txt"), "causal-lm", tmp_path).documents
    assert [(d.origin, d.slice) for d in documents] == [("a/deep/two.md", "deep"), ("a/one.txt", "a"), ("three.py", "all")]
    assert documents[0].text == "text of a/deep/two.md\r\n"


def test_paths_outside_the_base_are_found_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "ladders").mkdir()
    (tmp_path / "data" / "x[1].txt").write_text("text")
    for pattern, name in (
        ("../data/x[1].txt", "../data/x[1].txt"),
        (str(tmp_path / "data" / "*.txt"), str(tmp_path / "data" / "x[1].txt")),
    ):
        (document,) = read_source(files(pattern), "causal-lm", tmp_path / "ladders").documents
        assert (document.origin, document.slice) == (name, "data")


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_yields_the_same_documents(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"rows{suffix}", ROWS)
    documents = read_source(files(f"rows{suffix}", slice="group"), "sequence-classification", tmp_path).documents
    assert [(d.text, d.label, d.slice) for d in documents] == [(row["text"], row["label"], row["group"]) for row in ROWS]
    assert [d.key for d in documents] == [hashlib.sha256(row["text"].encode()).hexdigest() for row in ROWS]
    assert all(d.origin.startswith(f"rows{suffix}") for d in documents)


@pytest.mark.parametrize("suffix", WRITERS)
def test_columns_are_named_and_needed_only_where_they_serve(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"rows{suffix}", [{"body": "a", "sentiment": 3}])
    read = read_source(files(f"rows{suffix}", text="body"), "causal-lm", tmp_path).documents
    assert [(d.text, d.label, d.slice) for d in read] == [("a", None, "all")]
    labelled = read_source(files(f"rows{suffix}", text="body", label="sentiment"), "sequence-classification", tmp_path).documents
    assert str(labelled[0].label) == "3"
    with pytest.raises(UserError, match=r"data\.columns\.text: got 'bodi'.*body, sentiment.*Did you mean 'body'"):
        read_source(files(f"rows{suffix}", text="bodi"), "causal-lm", tmp_path)
    with pytest.raises(UserError, match=r"data\.columns\.slice: got 'nowhere'"):
        read_source(files(f"rows{suffix}", text="body", slice="nowhere"), "causal-lm", tmp_path)


def test_a_very_long_csv_field_is_read(tmp_path: Path) -> None:
    write_csv(tmp_path / "long.csv", [{"text": "x" * 300_000}])
    assert texts(read_source(files("long.csv"), "causal-lm", tmp_path).documents) == ["x" * 300_000]


def test_a_byte_order_mark_is_no_part_of_a_column_name(tmp_path: Path) -> None:
    (tmp_path / "mark.csv").write_bytes(b"\xef\xbb\xbftext\nhello\n\n")
    (tmp_path / "mark.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "hello"}\n\n')
    (tmp_path / "mark.json").write_bytes(b'\xef\xbb\xbf[{"text": "hello"}]')
    (tmp_path / "mark.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert texts(read_source(files("mark.*"), "causal-lm", tmp_path).documents) == ["hello"] * 4


def test_a_json_file_may_hold_json_lines(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "lines.json")
    assert texts(read_source(files("lines.json"), "causal-lm", tmp_path).documents) == [row["text"] for row in ROWS]


def test_a_json_array_is_decoded_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f'ü "{n}" {{[,]}} \\ ' * (n % 5), "more": [n, None, {"a": [True, -1.5e-3]}]} for n in range(60)]
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    for size in (1, 2, 7, 64, 1 << 20):
        monkeypatch.setattr("tasks.data.reading.json_rows.CHUNK", size)
        assert texts(read_source(files("rows.json"), "causal-lm", tmp_path).documents) == [row["text"] for row in rows]


def test_a_pattern_that_matches_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.txt").write_text("a")
    for ask in (read_source, lambda data, _, base: source_hash(data, base)):
        with pytest.raises(UserError, match=r"data\.paths\[1\]: got '\*\.md'.*Nothing matches it"):
            ask(files("a.txt", "*.md"), "causal-lm", tmp_path)
        with pytest.raises(UserError, match=r"data\.paths\[0\]: got 'folder'.*names a folder"):
            ask(files("folder"), "causal-lm", tmp_path)
        for name in ("one.csv", "two.csv", "note.txt"):
            (tmp_path / "folder" / name).write_text("text\na\n")
        for pattern in ("folder", "folder/", str(tmp_path / "folder")):
            with pytest.raises(UserError, match=rf"names a folder: add a pattern such as {pattern.rstrip('/')}/\*\*/\*\.csv"):
                ask(files(pattern), "causal-lm", tmp_path)
        for name in ("one.csv", "two.csv", "note.txt"):
            (tmp_path / "folder" / name).unlink()


def test_the_hash_follows_content_and_names_but_not_the_place(tmp_path: Path) -> None:
    for base in ("here", "there"):
        (tmp_path / base).mkdir()
        (tmp_path / base / "a.txt").write_text("a")
        (tmp_path / base / "b.txt").write_text("b")
    here, there = tmp_path / "here", tmp_path / "there"
    before = source_hash(files("*.txt"), here)
    assert source_hash(files("*.txt"), there) == before
    assert source_hash(files("a.txt", "b.txt"), here) == before
    assert source_hash(files("b.txt", "a.txt"), here) != before, "documents stay in the source's order"
    (there / "a.txt").write_text("A")
    assert source_hash(files("*.txt"), there) != before
    (here / "a.txt").rename(here / "c.txt")
    assert source_hash(files("*.txt"), here) != before


def test_hashes_of_what_python_carries_stay() -> None:
    for data in (StdlibData(), DigitsData()):
        assert source_hash(data, Path()) == source_hash(data, Path("/"))
    assert source_hash(StdlibData(), Path()) != source_hash(DigitsData(), Path())
