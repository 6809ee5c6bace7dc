"""Local files that patterns name, and the documents in them."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from conf.errors import UserError, reason_of
from conf.loading.path_policy import check_read
from conf.schema.data import FilesData, WeightedSource
from conf.schema.ladder import Workload
from conf.schema.workloads import reads_pictures
from models.data.corpus import SplitName
from models.data.images import BROKEN, ImageReader, UnreadableImage, named_files
from tasks.data.reading.columns import NoLabelColumn
from tasks.data.reading.images import SUFFIXES, image_files, image_places
from tasks.data.reading.known_hashes import current_hashes
from tasks.data.reading.readers import ONE_SLICE, SPLIT_WORDS, Document, content_key, row_documents, wanted_of
from tasks.data.reading.tables import TABLES, Row, read_rows
from tasks.data.reading.text_files import read_text, unreadable


class DataFile(NamedTuple):
    """A file of the data: the split that it is given as, its name, its path, and its source among several."""

    split: SplitName | None
    name: str
    path: Path
    source: WeightedSource | None


def list_files(data: FilesData, base: Path, workload: Workload) -> list[DataFile]:
    """Each file that the patterns match: patterns in their order, files sorted, each once.

    A folder stands for the images in it, where the workload has any.
    """
    root = os.path.abspath(base)
    found: dict[str, tuple[str, DataFile]] = {}
    for place, (key, patterns) in enumerate(data.patterns().items()):
        split, source = SPLIT_WORDS.get(key.rpartition(".")[2]), data.sources[place] if data.sources else None
        for index, pattern in enumerate(patterns):
            for file, name in _matches(pattern, f"{key}[{index}]", root, workload):
                known, first = found.setdefault(file, (key, DataFile(split, name, Path(file), source)))
                if known != key:
                    other = first.source.name if first.source else first.split
                    raise UserError.about(f"{key}[{index}]", pattern, f"files that are not in {other} too", f"{name} is in both.")
    return [file for _, file in found.values()]


def _matches(pattern: str, key: str, root: str, workload: Workload) -> Iterator[tuple[str, str]]:
    """Path and name of each file that a pattern matches."""
    wanted = os.path.join(root, os.path.expanduser(pattern))
    hits = [wanted] if os.path.exists(wanted) else sorted(glob.glob(wanted, recursive=True))
    found = bool(hits)
    if workload == "image-classification":
        hits = [file for hit in hits for file in (map(str, image_files(Path(hit))) if os.path.isdir(hit) else (hit,))]
    files = [os.path.normpath(hit) for hit in hits if os.path.isfile(hit)]
    if not files:
        remedy = _folder_remedy(pattern, hits[0]) if hits else f"Nothing matches it under {root}."
        if found and not hits:
            remedy = f"It names a folder without pictures: their names end in {', '.join(sorted(SUFFIXES))}."
        raise UserError.about(key, pattern, "a file, or a pattern that matches files", remedy)
    for file in files:
        check_read(Path(file), key)
        inside = file.startswith(root + os.sep) or not os.path.isabs(os.path.expanduser(pattern))
        yield file, Path(os.path.relpath(file, root) if inside else file).as_posix()


def file_suffixes(data: FilesData, base: Path) -> set[str]:
    """The endings of all files that the patterns match, in lower case; for text."""
    return {file.path.suffix.lower() for file in list_files(data, base, "causal-lm")}


def _folder_remedy(pattern: str, folder: str) -> str:
    """A pattern in place of one that names a folder: with the suffix that most of its files have."""
    files = islice((name for _, _, names in os.walk(folder) for name in names), 1000)
    suffixes = Counter(Path(name).suffix for name in files if not name.startswith("."))
    suffix = suffixes.most_common(1)[0][0] if suffixes else ".txt"
    inside = pattern.rstrip("/") if os.path.isdir(folder) and "*" not in pattern else os.path.dirname(pattern) or "."
    return f"It names a folder{'' if suffixes else ' without files'}: add a pattern such as {inside}/**/*{suffix}."


def file_contents(data: FilesData, base: Path, workload: Workload) -> Iterator[tuple[str, Path]]:
    """Name and path of each file that the data are read from."""
    for split, name, path, source in list_files(data, base, workload):
        group = split or (source and source.name)
        yield f"{group}\0{name}" if group else name, path
        if reads_pictures(workload) and path.suffix.lower() in TABLES:
            column = ((source and source.columns) or data.columns).image
            yield from named_files(((origin, row[column]) for origin, row in read_rows(name, path, {"image": column})), path.parent)


def file_documents(
    data: FilesData, workload: Workload, base: Path, dropped: Counter[str], images: ImageReader | None
) -> Iterator[Document]:
    """Documents of all files, read while they are iterated over.

    Args:
        data: Patterns, columns and given splits.
        workload: Decides which columns are read.
        base: Folder that relative patterns count from.
        dropped: Counts rows that are left out, by the missing column.
        images: Reads images, for image workloads.

    Raises:
        UserError: A pattern matches nothing, or a file cannot be read.
    """
    files = list_files(data, base, workload)
    tables = [file for file in files if file.path.suffix.lower() in TABLES]
    wanted = wanted_of(data, workload)
    without = _without_labels(tables, wanted)
    places = picture_places(data, files, base) if workload == "image-classification" else {}
    read: Counter[str] = Counter()
    for split, name, path, source in files:
        found: Iterable[Document]
        try:
            if path.suffix.lower() in TABLES:
                rows = read_rows(name, path, wanted) if without is None else _rows(name, path, wanted, without)
                found = row_documents(rows, data, workload, dropped, split, read_image=images and images.beside(path.parent))
            elif workload in ("image-text", "image-text-embedding"):
                allowed = "tables, whose rows hold an image, a prompt and a completion, or an image and a text"
                raise UserError.about("data.paths", name, allowed, "Leave the file out, or name it in a table's column.")
            elif images is not None:
                try:
                    image, key = images.read(str(path), name, "data.paths")
                except UnreadableImage:
                    if data.missing != "drop":
                        raise
                    dropped[BROKEN] += 1
                    continue
                label, part = places[path]
                label = None if label in data.unlabelled else label
                found = [Document(key, label or ONE_SLICE, name, image=image, label=label, split=split or part)]
            elif data.columns.conversations:
                allowed = "tables, whose rows hold conversations"
                raise UserError.about("data.paths", name, allowed, "Leave the file out, or drop columns.messages and columns.prompt.")
            else:
                text = read_text(name, path)
                found = [Document(content_key(text), Path(name).parent.name or ONE_SLICE, name, text=text, split=split)]
            if source is None:
                yield from found
                continue
            for document in found:
                read[source.name] += 1
                yield _of_source(document, source, data)
        except OSError as error:
            raise unreadable(name, reason_of(error)) from error
    if without and len(without) == len(tables):
        raise without[0]
    for place, source in enumerate(data.sources):
        if not read[source.name]:
            allowed = "files with documents"
            raise UserError.about(
                f"data.sources[{place}].paths", ", ".join(source.paths), allowed, f"{source.name} has none: leave it out."
            )


def _without_labels(tables: list[DataFile], wanted: Mapping[str, str]) -> list[NoLabelColumn] | None:
    """A list for the errors of tables without labels, whose rows are unlabelled beside another's; None where all must have them.

    Raises:
        NoLabelColumn: No table has any, as far as the headers tell.
    """
    if len(tables) < 2 or "label" not in wanted:
        return None
    error: NoLabelColumn | None = None
    for _, name, path, _ in tables:
        try:
            next(read_rows(name, path, wanted), None)
        except NoLabelColumn as found:
            error = error or found
        else:
            return []
    assert error is not None
    raise error


def _rows(name: str, path: Path, wanted: Mapping[str, str], without: list[NoLabelColumn]) -> Iterator[tuple[str, Row]]:
    """Rows of a table; where it has no labels the label of each is None, and the error is added to `without`."""
    began = False
    try:
        for found in read_rows(name, path, wanted):
            began = True
            yield found
    except NoLabelColumn as error:
        without.append(error)
        if not began:  # a header tells before the first row
            others = {role: column for role, column in wanted.items() if role != "label"}
            yield from ((origin, {**row, wanted["label"]: None}) for origin, row in read_rows(name, path, others))


def _of_source(document: Document, source: WeightedSource, data: FilesData) -> Document:
    """The document of one of several sources, which is its slice where no column has another."""
    group = document.slice if data.columns.slice else source.name
    return replace(document, slice=group, weight=source.weight)


def picture_places(data: FilesData, files: Sequence[DataFile], base: Path) -> dict[Path, tuple[str | None, SplitName | None]]:
    """Class and given split of each picture among the files, by the folders that it lies in; see `image_places`."""
    root = Path(os.path.abspath(base))
    folders = [root / os.path.expanduser(pattern) for patterns in data.patterns().values() for pattern in patterns]
    pictures = [file.path for file in files if file.path.suffix.lower() not in TABLES]
    direct = {file.parent for file in pictures} & set(folders)
    if len(direct) > 1 and all(file.parent in direct for file in pictures) and not (data.splits and data.splits.train):
        folders = [folder.parent for folder in folders]  # folders of classes are named one by one
    return image_places(pictures, folders, SPLIT_WORDS)


def hash_files(files: Iterable[tuple[str, Path]]) -> str:
    """Hash of names and contents of files, in their order; contents that are remembered are not read."""
    digest, hashes, files = hashlib.sha256(), current_hashes(), list(files)
    hashes.check(path for _, path in files)
    for name, path in files:
        try:
            content = hashes.of(path)
        except OSError as error:
            raise unreadable(name.rpartition("\0")[2], reason_of(error)) from error
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()
