"""The raw documents of every data source, before splitting."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import TransientError, UserError
from conf.home import home
from conf.loading.load import suggest
from conf.schema.data import Columns, Data, DatasetData, DigitsData, FilesData, StdlibData
from conf.schema.ladder import Workload
from models.data.corpus import SplitName
from tasks.data.reading.files import file_contents, file_documents
from tasks.data.reading.images import ImageReader, ReadImage
from tasks.data.reading.readers import SPLIT_WORDS, Document, content_key, row_documents, wanted_of
from tasks.data.reading.tables import check_columns, unreadable
from tasks.runtime.retries import is_transient

if TYPE_CHECKING:
    from datasets import Dataset

# Modules of `encodings` are tables in one form: with them, every sixth held-out line would stand in the training part, too.
STDLIB_SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3", "encodings"}


SAVED = ("dataset_dict.json", "state.json")  # of a folder of `save_to_disk`: of several splits, of one
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


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
            documents = file_documents(data, workload, base, dropped, images)
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
        UserError: As `read_source` for missing files.
        TransientError: As `read_source`.
    """
    match data:
        case StdlibData():
            return _hash_files(_stdlib_files())
        case DigitsData():
            images, labels = _digit_arrays()
            return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        case FilesData():
            return _hash_files(file_contents(data, base, workload))
        case DatasetData():
            folder = _dataset_folder(data, base)
            if folder is None:
                prints = [f"{split}:{_open_dataset(data, base, name)._fingerprint}" for split, name in _dataset_splits(data)]
                return prints[0].partition(":")[2] if data.splits is None else hashlib.sha256("\n".join(prints).encode()).hexdigest()
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return _hash_files((path.relative_to(folder).as_posix(), path) for path in files)


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


def _dataset_folder(data: DatasetData, base: Path) -> Path | None:
    """The saved folder that the name means; None for a dataset of the hub.

    Raises:
        UserError: It is neither. `datasets` would take `json`, `text` and their like as loaders of whatever lies in the working directory,
            `pandas` even of pickles.
    """
    folder = Path(os.path.abspath(base / os.path.expanduser(data.name)))
    if any((folder / marker).is_file() for marker in SAVED):
        check_saved(folder)
        return folder
    allowed = "a folder written by save_to_disk, or the id owner/name of a dataset on the hub"
    if folder.exists() or os.path.lexists(data.name) or data.name.startswith((".", "/", "~")) or data.name.count("/") > 1:
        remedy = f"{folder} is no such folder. Write it with datasets' save_to_disk, or read plain files with data.source files."
        raise UserError.about("data.name", data.name, allowed, remedy)
    if not HUB_ID.fullmatch(data.name):
        remedy = "Add the owner, as in stanfordnlp/imdb; plain files are read with data.source files."
        raise UserError.about("data.name", data.name, allowed, remedy)
    return None


def check_saved(folder: Path) -> None:
    """Refuse a saved dataset whose own lists name files elsewhere, and links that lead out of it.

    Raises:
        UserError: Naming the file.
    """
    allowed, remedy = "a dataset whose files lie in its folder", "Write it again with save_to_disk."
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        for marker in SAVED:
            for name in _names_in(place / marker):
                if Path(name).name != name or name in ("", ".", ".."):
                    raise UserError.about("data.name", f"{place / marker} that points to {name}", allowed, remedy)
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise UserError.about("data.name", f"{path}, a link to {path.resolve()}", allowed, "Copy the file there in place of the link.")


def _names_in(file: Path) -> list[str]:
    """Names of files or splits in a list of `save_to_disk`; none where it is missing or no such list, which `datasets` refuses."""
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        found = plain["splits"] if file.name == SAVED[0] else [each["filename"] for each in plain["_data_files"]]
        return [str(name) for name in found]
    except (OSError, ValueError, LookupError, TypeError):
        return []


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
            cache = os.environ.get("HF_DATASETS_CACHE") or str(home().root / "datasets")
            loaded: Any = datasets.load_dataset(data.name, data.subset, split=split, revision=data.revision, cache_dir=cache)
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

    wanted = wanted_of(data, workload)
    for split, dataset in parts:
        name = data.name if split is None else f"{data.name} {split}"
        check_columns(dataset.column_names, wanted, name)
        rows = dataset.select_columns(list(dict.fromkeys(wanted.values())))
        if read_image is not None and isinstance(rows.features[data.columns.image], datasets.Image):
            rows = rows.cast_column(data.columns.image, datasets.Image(decode=False))
        placed = ((f"{name}, row {index}", rows[index]) for index in range(len(rows)))
        yield from row_documents(placed, data, workload, dropped, split, dataset.features, read_image)
