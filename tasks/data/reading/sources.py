"""The raw documents of every data source, before splitting."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.data import Data, DatasetData, DigitsData, FilesData, StdlibData, transfer_data
from conf.schema.ladder import Workload
from models.data.corpus import SplitName
from models.data.images import ImageReader
from tasks.data.reading.files import file_contents, file_documents, hash_files, list_files
from tasks.data.reading.hub_datasets import dataset_documents, dataset_folder, dataset_hash, dataset_splits, declared_classes, open_dataset
from tasks.data.reading.readers import Document, content_key

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
        case FilesData() if data.is_mixed:
            list_files(data, base, workload)
            documents = _mixed(data, workload, base, dropped, images)
        case FilesData():
            documents = file_documents(data, workload, base, dropped, images)
        case DatasetData():
            parts: list[tuple[SplitName | None, Dataset]] = [
                (split, open_dataset(data, base, name)) for split, name in dataset_splits(data)
            ]
            class_names = declared_classes(parts[0][1], data.columns, workload)
            documents = dataset_documents(parts, data, workload, dropped, images and images.beside(base))
    if data.transfer:
        documents = chain(documents, _transferred(data, workload, base, dropped, images, class_names))
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
    first = data.of_source(data.sources[0]) if isinstance(data, FilesData) and data.sources else data
    if isinstance(first, DatasetData) and dataset_folder(first, base) is None:
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
    """Hash of the raw content and of that of `data.transfer`; see `_own_hash`."""
    own = _own_hash(data, base, workload)
    if not data.transfer:
        return own
    prints = [own]
    for place in range(len(data.transfer)):
        with renamed({"data.paths": f"data.transfer[{place}].paths"}):
            files = list(file_contents(transfer_data(data, place), base, workload))
            prints.append(hash_files((str(number), path) for number, (_, path) in enumerate(files)))
    return hashlib.sha256("\n".join(prints).encode()).hexdigest()


def _own_hash(data: Data, base: Path, workload: Workload) -> str:
    """Hash the raw content without preparing it: the identity of the data, with the images that a table names.

    Names of files count relative to `base` or to the source's own folder, so a moved folder keeps its hash.

    Raises:
        UserError: As `read_source` for missing files.
        TransientError: As `read_source`.
    """
    match data:
        case StdlibData():
            return hash_files(_stdlib_files())
        case DigitsData():
            images, labels = _digit_arrays()
            return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        case FilesData():
            files = hash_files(file_contents(data, base, workload))
            if not data.has_datasets:
                return files
            prints = []
            for place, source in enumerate(data.sources):
                own = data.of_source(source)
                if isinstance(own, DatasetData):
                    with _named(place):
                        prints.append(f"{source.name}\0{source.split}\0{dataset_hash(own, base)}")
            return hashlib.sha256("\n".join([files, *prints]).encode()).hexdigest()
        case DatasetData():
            return dataset_hash(data, base)


def _mixed(data: FilesData, workload: Workload, base: Path, dropped: Counter[str], images: ImageReader | None) -> Iterator[Document]:
    """Documents of several sources, one after another; each bears its source's weight, and its name as slice where no column has another.

    A dataset that declares names for its classes 0, 1, ... gives the names.
    """
    for place, source in enumerate(data.sources):
        own, read = data.of_source(source), 0
        with _named(place, bool(source.columns)):
            opened = open_source(own, workload, base, images)
            for document in opened.documents:
                read += 1
                label, names = document.label, opened.class_names
                if names and isinstance(label, int) and 0 <= label < len(names):
                    label = names[label]
                group = document.slice if own.columns.slice else source.name
                yield replace(document, label=label, slice=group, weight=source.weight)
        dropped.update(opened.dropped)
        if not read:
            kind, what = ("paths", "files") if source.dataset is None else ("dataset", "a dataset")
            given = ", ".join(source.paths) or source.dataset
            raise UserError.about(
                f"data.sources[{place}].{kind}", given, f"{what} with documents", f"{source.name} has none: leave it out."
            )


def _transferred(
    data: Data, workload: Workload, base: Path, dropped: Counter[str], images: ImageReader | None, class_names: tuple[str, ...] | None
) -> Iterator[Document]:
    """Documents of `data.transfer`; where the source declares names of its classes 0, 1, ..., labels may be either."""
    numbers = {name: number for number, name in enumerate(class_names or ())}
    for place, rows in enumerate(data.transfer):
        own = transfer_data(data, place)
        columns = {"data.columns": f"data.transfer[{place}].columns"} if rows.columns else {}
        with renamed({"data.paths": f"data.transfer[{place}].paths"} | columns):
            opened = open_source(own, workload, base, images)
            for document in opened.documents:
                label = numbers.get(document.label, document.label) if isinstance(document.label, str) else document.label
                yield replace(document, label=label, weight=rows.weight, transfer=True)
        dropped.update(opened.dropped)


def _named(place: int, columns: bool = False) -> AbstractContextManager[None]:
    """Let errors name the settings of a source, those of its columns too where it has its own."""
    keys = {"data.name": "dataset", "data.subset": "subset", "data.split": "split", "data.revision": "revision"}
    if columns:
        keys["data.columns"] = "columns"
    return renamed({plain: f"data.sources[{place}].{key}" for plain, key in keys.items()})


@contextmanager
def renamed(keys: Mapping[str, str]) -> Iterator[None]:
    """Let errors name other keys of settings than the readers do."""
    try:
        yield
    except UserError as error:
        words = str(error)
        for plain, key in keys.items():
            words = re.sub(rf"\b{re.escape(plain)}\b", key, words)
        raise UserError(words) from error


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
