"""The raw documents of every data source, before splitting."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import os
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import TransientError, UserError
from conf.loading.load import suggest
from conf.schema.data import Columns, Data, DatasetData, DigitsData, FilesData, StdlibData
from conf.schema.ladder import Workload
from models.data.corpus import SplitName
from tasks.data.images import ImageReader, ReadImage, image_files, image_places, named_files
from tasks.data.labels import class_name, clean_label
from tasks.data.readers import ONE_SLICE, SPLIT_WORDS, Document, content_key, missing_role, row_document, split_named, wanted_columns
from tasks.data.tables import TABLES, Row, check_columns, read_rows, read_text, unreadable
from tasks.runtime.retries import is_transient

if TYPE_CHECKING:
    from datasets import Dataset

# Modules of `encodings` are tables in one form: with them, every sixth held-out line would stand in the training part, too.
STDLIB_SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3", "encodings"}


@dataclass(frozen=True)
class Source:
    """Documents in the source's order.

    Attributes:
        documents: Read while they are iterated over; `read_source` holds them in a list.
        class_names: Names of the classes 0, 1, ... where the source itself declares them.
        dropped: `text`, `image` or `label` -> rows so far that lack it and were left out.
    """

    documents: Iterable[Document]
    class_names: tuple[str, ...] | None = None
    dropped: Counter[str] = field(default_factory=Counter)


def open_source(data: Data, workload: Workload, base: Path, images: ImageReader | None = None) -> Source:
    """Open the source that `data` names; its documents are read while they are iterated over, once.

    Args:
        data: The data settings.
        workload: Decides which columns are read.
        base: Folder that relative paths count from.
        images: Reads images; None: as for a teacher that is trained here.

    Raises:
        UserError: Missing files, columns or datasets, unreadable content: now, or while the documents are read.
        TransientError: The hub did not answer.
    """
    class_names: tuple[str, ...] | None = None
    dropped: Counter[str] = Counter()
    if images is None and workload == "image-classification" and isinstance(data, FilesData | DatasetData):
        images = ImageReader(data, None)
    match data:
        case StdlibData():
            documents = _stdlib_documents()
        case DigitsData():
            documents = _digits()
        case FilesData():
            documents = _file_documents(data, workload, base, dropped, images)
        case DatasetData():
            parts: list[tuple[SplitName | None, Dataset]] = [
                (split, _open_dataset(data, base, name)) for split, name in _dataset_splits(data)
            ]
            class_names = _declared_classes(parts[0][1], data.columns, workload)
            documents = _dataset_documents(parts, data, workload, dropped, images and images.beside(base))
    return Source(documents, class_names, dropped)


def read_source(data: Data, workload: Workload, base: Path, images: ImageReader | None = None) -> Source:
    """Read all documents of a small source into memory; see `open_source`."""
    source = open_source(data, workload, base, images)
    return Source(list(source.documents), source.class_names, source.dropped)


def first_image_shape(data: Data, base: Path, teacher: Path | None) -> tuple[int, int, int] | None:
    """(C, H, W) of the first image as a corpus stores it; None where only the hub knows.

    Raises:
        UserError: As `read_source`.
    """
    if isinstance(data, DatasetData) and _dataset_folder(data, base) is None:
        return None
    images = ImageReader(data, teacher) if isinstance(data, FilesData | DatasetData) else None
    for document in open_source(data, "image-classification", base, images).documents:
        assert document.image is not None
        channels, height, width = document.image.shape
        return channels, height, width
    raise no_documents(data)


def no_documents(data: Data) -> UserError:
    """The error about a source without any document."""
    return UserError.about("data", data.source, "a source with documents", "The source is empty: nothing can be learned from it.")


def source_hash(data: Data, base: Path, workload: Workload = "causal-lm") -> str:
    """Hash the raw content without preparing it: the identity of the data, with the images that a table names.

    Names of files count relative to `base` or to the source's own folder, so a moved folder keeps its hash.

    Raises:
        UserError: As `read_source` for what is missing.
        TransientError: As `read_source`.
    """
    match data:
        case StdlibData():
            return _hash_files(_stdlib_files())
        case DigitsData():
            images, labels = _digit_arrays()
            return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        case FilesData():
            return _hash_files(_content(data, base, workload))
        case DatasetData():
            folder = _dataset_folder(data, base)
            if folder is None:
                prints = [f"{split}:{_open_dataset(data, base, name)._fingerprint}" for split, name in _dataset_splits(data)]
                return prints[0].partition(":")[2] if data.splits is None else hashlib.sha256("\n".join(prints).encode()).hexdigest()
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return _hash_files((path.relative_to(folder).as_posix(), path) for path in files)


def _content(data: FilesData, base: Path, workload: Workload) -> Iterator[tuple[str, Path]]:
    """Name and path of each file that the data are read from."""
    for split, name, path in _files(data, base, workload):
        yield f"{split}\0{name}" if split else name, path
        if workload == "image-classification" and path.suffix.lower() in TABLES:
            rows = read_rows(name, path, {"image": data.columns.image})
            yield from named_files((row[data.columns.image] for _, row in rows), path.parent)


def _hash_files(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        try:
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise unreadable(name.rpartition("\0")[2], str(error)) from error
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def _stdlib_files() -> Iterator[tuple[str, Path]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, Path] = {}
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in STDLIB_SKIPPED]
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            found[path.relative_to(root).as_posix()] = path
    return iter(sorted(found.items()))


def _stdlib_documents() -> Iterator[Document]:
    for key, path in _stdlib_files():
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:  # a few modules are written in another encoding on purpose
            continue
        yield Document(content_key(text), key.split("/")[0] if "/" in key else "(modules)", key, text=text)


def _digit_arrays() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images in [0, 1] (1797, 1, 8, 8) and their digits, from scikit-learn's file: importing scikit-learn takes a second."""
    found = importlib.util.find_spec("sklearn")
    assert found
    assert found.submodule_search_locations
    table = np.loadtxt(Path(found.submodule_search_locations[0], "datasets", "data", "digits.csv.gz"), delimiter=",")
    return (table[:, :-1].reshape(-1, 1, 8, 8) / 16).astype(np.float32), table[:, -1].astype(np.int64)


def _digits() -> Iterator[Document]:
    for index, (image, label) in enumerate(zip(*_digit_arrays(), strict=True)):
        yield Document(f"digit-{index}", f"digit-{label}", f"digit {index}", image=image, label=int(label))


def _files(data: FilesData, base: Path, workload: Workload) -> list[tuple[SplitName | None, str, Path]]:
    """Split, name and path of each file that the patterns match: patterns in their order, files sorted, each once.

    A folder stands for the images in it, where the workload has any.
    """
    root = os.path.abspath(base)
    found: dict[str, tuple[SplitName | None, str]] = {}
    for key, patterns in data.patterns().items():
        split = SPLIT_WORDS.get(key.rpartition(".")[2])
        for index, pattern in enumerate(patterns):
            for file, name in _matches(pattern, f"{key}[{index}]", root, workload):
                known, _ = found.setdefault(file, (split, name))
                if known != split:
                    raise UserError.about(f"{key}[{index}]", pattern, f"files that are not in {known} too", f"{name} is in both.")
    return [(split, name, Path(file)) for file, (split, name) in found.items()]


def _matches(pattern: str, key: str, root: str, workload: Workload) -> Iterator[tuple[str, str]]:
    """Path and name of each file that a pattern matches."""
    wanted = os.path.join(root, os.path.expanduser(pattern))
    hits = [wanted] if os.path.exists(wanted) else sorted(glob.glob(wanted, recursive=True))
    if workload == "image-classification":
        hits = [file for hit in hits for file in (map(str, image_files(Path(hit))) if os.path.isdir(hit) else (hit,))]
    files = [os.path.normpath(hit) for hit in hits if os.path.isfile(hit)]
    if not files:
        remedy = _folder_remedy(pattern, hits[0]) if hits else f"Nothing matches it under {root}."
        raise UserError.about(key, pattern, "a file, or a pattern that matches files", remedy)
    for file in files:
        inside = file.startswith(root + os.sep) or not os.path.isabs(os.path.expanduser(pattern))
        yield file, Path(os.path.relpath(file, root) if inside else file).as_posix()


def file_suffixes(data: FilesData, base: Path) -> set[str]:
    """The endings of all files that the patterns match, in lower case; for text."""
    return {path.suffix.lower() for _, _, path in _files(data, base, "causal-lm")}


def _folder_remedy(pattern: str, folder: str) -> str:
    """What to write in place of a pattern that names a folder: the suffix that most of its files have."""
    files = islice((name for _, _, names in os.walk(folder) for name in names), 1000)
    suffixes = Counter(Path(name).suffix for name in files if not name.startswith("."))
    suffix = suffixes.most_common(1)[0][0] if suffixes else ".txt"
    inside = pattern.rstrip("/") if os.path.isdir(folder) and "*" not in pattern else os.path.dirname(pattern) or "."
    return f"It names a folder{'' if suffixes else ' without files'}: add a pattern such as {inside}/**/*{suffix}."


def _file_documents(
    data: FilesData, workload: Workload, base: Path, dropped: Counter[str], images: ImageReader | None
) -> Iterator[Document]:
    files, root = _files(data, base, workload), Path(os.path.abspath(base))
    pictures = [path for _, _, path in files if images is not None and path.suffix.lower() not in TABLES]
    folders = [root / os.path.expanduser(pattern) for patterns in data.patterns().values() for pattern in patterns]
    places = image_places(pictures, folders, SPLIT_WORDS)
    for split, name, path in files:
        try:
            if path.suffix.lower() in TABLES:
                rows = read_rows(name, path, _wanted(data, workload))
                yield from _row_documents(rows, data, workload, dropped, split, read_image=images and images.beside(path.parent))
            elif images is not None:
                image, key = images.read(str(path), name, "data.paths")
                label, found = places[path]
                label = None if label in data.unlabelled else label
                yield Document(key, label or ONE_SLICE, name, image=image, label=label, split=split or found)
            elif data.columns.conversations:
                allowed = "tables, whose rows hold conversations"
                raise UserError.about("data.paths", name, allowed, "Leave the file out, or drop columns.messages and columns.prompt.")
            else:
                text = read_text(name, path)
                yield Document(content_key(text), Path(name).parent.name or ONE_SLICE, name, text=text, split=split)
        except OSError as error:
            raise unreadable(name, str(error)) from error


def _wanted(data: FilesData | DatasetData, workload: Workload) -> dict[str, str]:
    """Role -> name of the columns that are read."""
    column = data.splits.column if data.splits else None
    return wanted_columns(data.columns, workload) | ({} if column is None else {"split": column})


def _row_documents(
    rows: Iterable[tuple[str, Row]],
    data: FilesData | DatasetData,
    workload: Workload,
    dropped: Counter[str],
    split: SplitName | None,
    features: Mapping[str, Any] | None = None,
    read_image: ReadImage | None = None,
) -> Iterator[Document]:
    """Documents of rows, those left out that lack something where `data.missing` is drop.

    Args:
        rows: Where each stands, and its content.
        data: The data settings.
        workload: Decides which columns are read.
        dropped: Counts what is left out, under what it lacks.
        split: The split that they are in; None: a column or the hash decides.
        features: Column to feature, of a dataset.
        read_image: Gives pixels and key of what a row holds; for image workloads.
    """
    columns, column = data.columns, data.splits.column if data.splits else None
    names: dict[str, Sequence[str]] = {name: found for name, each in (features or {}).items() if (found := getattr(each, "names", None))}
    no_label = {class_name(value).casefold() for value in data.unlabelled}
    if columns.label in names:
        no_label.add("-1")
    for origin, row in rows:
        if no_label and workload != "causal-lm":
            label = clean_label(row[columns.label], columns, origin)
            if label is not None and class_name(label).casefold() in no_label:
                row = {**row, columns.label: None}
        if data.missing == "drop" and (role := missing_role(row, columns, workload)) is not None:
            dropped[role] += 1
            continue
        if column is not None:
            word = row[column]
            split = split_named(names[column][word] if column in names and isinstance(word, int) else word, column, origin)
        yield row_document(row, columns, workload, origin, names.get(columns.slice or "", ()), read_image, split)


def _dataset_folder(data: DatasetData, base: Path) -> Path | None:
    """The saved folder that the name means; None for a dataset of the hub."""
    folder = Path(os.path.abspath(base / os.path.expanduser(data.name)))
    if any((folder / marker).is_file() for marker in ("dataset_dict.json", "state.json")):
        return folder
    if folder.exists() or data.name.startswith((".", "/", "~")) or data.name.count("/") > 1:
        remedy = f"{folder} is no such folder. Write it with datasets' save_to_disk, or read plain files with data.source files."
        raise UserError.about("data.name", data.name, "a folder written by save_to_disk, or a dataset id on the hub", remedy)
    return None


def _dataset_splits(data: DatasetData) -> list[tuple[SplitName | None, str]]:
    """Our split, and the dataset's, of all that is read."""
    given = data.splits.named() if data.splits else {}
    found: list[tuple[SplitName | None, str]] = [(SPLIT_WORDS[split], name) for split, names in given.items() for name in names]
    return found or [(None, data.split)]


def _open_dataset(data: DatasetData, base: Path, split: str) -> Dataset:
    import datasets
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    folder = _dataset_folder(data, base)
    allowed = "a readable folder written by save_to_disk" if folder else "the id of a dataset that the hub has and this machine can reach"
    remedy = (
        "Write it again." if folder else "Check data.name, data.subset, data.split and data.revision, and that HF_HUB_OFFLINE is not 1."
    )
    try:
        if folder is None:
            loaded: Any = datasets.load_dataset(data.name, data.subset, split=split, revision=data.revision)
        else:
            loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, DatasetsError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if folder is None and is_transient(error):
            raise TransientError(f"data.name: the hub did not give {data.name} ({reason}).") from error
        raise UserError.about("data.name", data.name, allowed, f"{remedy} (datasets says: {reason})") from error
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            names = [str(name) for name in loaded]
            key = "data.split" if split == data.split else "data.splits"
            raise UserError.about(
                key, split, f"the splits of {data.name}: {', '.join(names)}", f"{suggest(split, names)}Choose one of them."
            )
        loaded = loaded[split]
    elif folder is not None and data.splits and data.splits.train:
        raise UserError.about(
            "data.splits", split, f"a column: {data.name} has no splits of its own", "Set data.splits.column, or leave it out."
        )
    return loaded.with_format(None)  # a saved dataset may remember that it gives tensors


def _declared_classes(dataset: Dataset, columns: Columns, workload: Workload) -> tuple[str, ...] | None:
    import datasets

    feature = dataset.features.get(columns.label) if workload != "causal-lm" else None
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _dataset_documents(
    parts: Sequence[tuple[SplitName | None, Dataset]],
    data: DatasetData,
    workload: Workload,
    dropped: Counter[str],
    read_image: ReadImage | None,
) -> Iterator[Document]:
    import datasets

    wanted = _wanted(data, workload)
    for split, dataset in parts:
        name = data.name if split is None else f"{data.name} {split}"
        check_columns(dataset.column_names, wanted, name)
        rows = dataset.select_columns(list(dict.fromkeys(wanted.values())))
        if read_image is not None and isinstance(rows.features[data.columns.image], datasets.Image):
            rows = rows.cast_column(data.columns.image, datasets.Image(decode=False))
        placed = ((f"{name}, row {index}", rows[index]) for index in range(len(rows)))
        yield from _row_documents(placed, data, workload, dropped, split, dataset.features, read_image)
