import csv
import hashlib
import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from conf.schema.data import Columns, DatasetData, DigitsData, FilesData, StdlibData
from tasks.data.reading.readers import Document
from tasks.data.reading.sources import read_source, source_hash

ROWS = [
    {"text": "one, with a comma\nand two lines", "label": "good", "group": "x"},
    {"text": 'a "quoted" ünï', "label": "bad", "group": "y"},
    {"text": "NA", "label": "good", "group": "x"},
]


def write_jsonl(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_tsv(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    path.write_text(json.dumps(rows, indent=1))


def write_parquet(path: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    ".jsonl": write_jsonl,
    ".ndjson": write_jsonl,
    ".json": write_json,
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".parquet": write_parquet,
}


def files(*paths: str, **columns: str) -> FilesData:
    return FilesData(paths=paths, columns=Columns(**columns))


def texts(documents: list[Document]) -> list[str | None]:
    return [document.text for document in documents]


def save_dataset(folder: Path, columns: dict[str, list[Any]], features: dict[str, Any] | None = None, split: str | None = None) -> None:
    import datasets

    made = datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)
    (made if split is None else datasets.DatasetDict({split: made})).save_to_disk(str(folder))


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
        monkeypatch.setattr("tasks.data.reading.tables.CHUNK", size)
        assert texts(read_source(files("rows.json"), "causal-lm", tmp_path).documents) == [row["text"] for row in rows]


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


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": [1]}])
    with pytest.raises(UserError, match=r"data\.columns\.label.*rows\.jsonl:1 holds \[1\]"):
        read_source(files("rows.jsonl"), "sequence-classification", tmp_path)


GAPS = [
    {"text": "a", "label": "0"},
    {"text": "", "label": "1"},
    {"text": "b", "label": " "},
    {"text": "c", "label": "-100"},
    {"text": "d", "label": "1"},
]


@pytest.mark.parametrize("suffix", WRITERS)
def test_rows_without_text_or_label_are_left_out_where_asked(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"gaps{suffix}", GAPS)
    wanted = files(f"gaps{suffix}").model_copy(update={"missing": "drop", "unlabelled": ("-100",)})
    source = read_source(wanted, "sequence-classification", tmp_path)
    assert [(d.text, d.label) for d in source.documents] == [("a", "0"), ("d", "1")]
    assert source.dropped == {"text": 1, "label": 2}
    kept = wanted.model_copy(update={"unlabelled": ()})
    assert [d.label for d in read_source(kept, "sequence-classification", tmp_path).documents] == ["0", "-100", "1"]
    with pytest.raises(UserError, match=r"data\.columns\.text.*holds ''.*data\.missing=drop"):
        read_source(files(f"gaps{suffix}"), "sequence-classification", tmp_path)


def test_values_that_stand_for_no_label_make_rows_unlabelled(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": label} for label in (0, -100, -100.0, "-100.0", "NaN", None, 1)])
    data = FilesData.model_validate({"paths": ["rows.jsonl"], "unlabelled": [-100, float("nan")]})
    documents = read_source(data, "sequence-classification", tmp_path).documents
    assert [d.label for d in documents] == [0, None, None, None, None, None, 1]


def test_slices_of_classes_have_their_names(tmp_path: Path) -> None:
    import datasets

    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    save_dataset(tmp_path / "saved", {"text": ["a", "b", "c"], "label": [1, 0, -1]}, features)
    data = DatasetData(name="saved", columns=Columns(slice="label"))
    assert [d.slice for d in read_source(data, "sequence-classification", tmp_path).documents] == ["pos", "neg", "unlabelled"]
    write_csv(tmp_path / "rows.csv", [{"text": "a", "label": " 10.0"}, {"text": "b", "label": "good "}])
    documents = read_source(files("rows.csv", slice="label"), "sequence-classification", tmp_path).documents
    assert [d.slice for d in documents] == ["10", "good"]


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


def test_a_saved_dataset_is_read_with_the_names_of_its_classes(tmp_path: Path) -> None:
    import datasets

    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    save_dataset(tmp_path / "saved", {"text": ["a", "b", "c"], "label": [1, 0, -1]}, features)
    source = read_source(DatasetData(name="saved"), "sequence-classification", tmp_path)
    assert source.class_names == ("neg", "pos")
    assert [(d.text, d.label) for d in source.documents] == [("a", 1), ("b", 0), ("c", None)]
    assert read_source(DatasetData(name="saved"), "causal-lm", tmp_path).class_names is None


def test_a_split_of_a_saved_dataset_dict_is_chosen(tmp_path: Path) -> None:
    save_dataset(tmp_path / "saved", {"text": ["a", "b"]}, split="validation")
    assert texts(read_source(DatasetData(name="saved", split="validation"), "causal-lm", tmp_path).documents) == ["a", "b"]
    with pytest.raises(UserError, match=r"data\.split: got 'validaton'; .*validation.*Did you mean 'validation'"):
        read_source(DatasetData(name="saved", split="validaton"), "causal-lm", tmp_path)
    with pytest.raises(UserError, match=r"data\.columns\.text: got 'body'.*Name the column"):
        read_source(DatasetData(name="saved", split="validation", columns=Columns(text="body")), "causal-lm", tmp_path)


def test_a_folder_that_is_no_saved_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for name in ("plain", "./missing", str(tmp_path / "missing")):
        with pytest.raises(UserError, match=r"data\.name.*save_to_disk"):
            source_hash(DatasetData(name=name), tmp_path)


def test_a_damaged_saved_dataset_is_refused(tmp_path: Path) -> None:
    save_dataset(tmp_path / "saved", {"text": ["a"]})
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"data\.name.*datasets says"):
        read_source(DatasetData(name="saved"), "causal-lm", tmp_path)
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"data\.name.*datasets says"):
        read_source(DatasetData(name="saved"), "causal-lm", tmp_path)


def test_an_unreachable_hub_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for ask in (lambda data: read_source(data, "causal-lm", tmp_path), lambda data: source_hash(data, tmp_path)):
        with pytest.raises(UserError, match=r"data\.name: got 'someone/something'.*HF_HUB_OFFLINE.*datasets says"):
            ask(DatasetData(name="someone/something"))


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


def test_the_hash_of_a_saved_dataset_follows_its_files(tmp_path: Path) -> None:
    save_dataset(tmp_path / "one", {"text": ["a"]})
    save_dataset(tmp_path / "two", {"text": ["b"]})
    first = source_hash(DatasetData(name="one"), tmp_path)
    assert first == source_hash(DatasetData(name="./one"), tmp_path / "two" / "..")
    assert first != source_hash(DatasetData(name="two"), tmp_path)


def test_hashes_of_what_python_carries_stay() -> None:
    for data in (StdlibData(), DigitsData()):
        assert source_hash(data, Path()) == source_hash(data, Path("/"))
    assert source_hash(StdlibData(), Path()) != source_hash(DigitsData(), Path())


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "one.json"])
@pytest.mark.parametrize(
    ("value", "says"), [("9" * 5000, "a number has too many digits"), ("[" * 90_000 + "]" * 90_000, "nested too deep")]
)
def test_json_that_python_cannot_hold_is_named(tmp_path: Path, name: str, value: str, says: str) -> None:
    row = f'{{"text": "a", "n": {value}}}'
    (tmp_path / name).write_text(f"[{row}]" if name == "r.json" else row)
    with pytest.raises(UserError, match=f"{name}.*{says}"):
        read_source(files(name), "causal-lm", tmp_path)


def test_objects_without_the_key_of_the_label_have_none_where_others_have_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "r.jsonl", [{"text": "a"}, {"text": "b", "label": 1}])
    found = read_source(files("r.jsonl"), "sequence-classification", tmp_path).documents
    assert [document.label for document in found] == [None, 1]
    write_jsonl(tmp_path / "r.jsonl", [{"text": "a", "lable": 1}, {"text": "b", "lable": 1}])
    with pytest.raises(UserError, match=r"data\.columns\.label: got 'label'; .* Did you mean 'lable'"):
        read_source(files("r.jsonl"), "sequence-classification", tmp_path)
