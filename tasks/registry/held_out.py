"""Held-out data on which a champion and a challenger are judged.

Fresh data are read in the ids of each model's own corpus, all of their documents. Else it is the validation split of the challenger's
run. Documents that either model was trained on are left out, and counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from conf.schema.data import FilesData
from conf.schema.ladder import Ladder
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, SplitName
from models.data.tokenizers import tokenizer_hash
from tasks.data.prepare import prepare_like
from tasks.records.run import DataRecord, RunRecord
from tasks.registry.versions import Version
from tasks.runtime.runs.run_registry import Context, full_record, now

KEY = "--data"


@dataclass(frozen=True)
class VersionOrigin:
    """The run of a version: its record, its settings, and its corpus."""

    record: RunRecord
    ladder: Ladder
    corpus: Corpus
    context: Context


class HeldOut(NamedTuple):
    """Data to judge by.

    Attributes:
        corpora: By model (`challenger`, `champion`): the same documents in its ids.
        splits: The splits that are judged.
        examples: Most examples of a split.
        words: The data in words.
        fresh: Whether they were given, and are not the challenger's own.
        trained_on: By model, numbers of the documents that it was trained on; None: not known, as its run is not in this home.
    """

    corpora: dict[str, DataRecord]
    splits: tuple[SplitName, ...]
    examples: int
    words: str
    fresh: bool
    trained_on: dict[str, NDArray[np.int64] | None]


def origin_of(home: Home, version: Version) -> VersionOrigin | None:
    """The run of a version; None where this home has not got it, its settings or its data."""
    record = full_record(home, version.run)
    settings = home.runs / version.run / "ladder.yaml"
    if record is None or record.data is None or not settings.is_file() or not (Path(record.data.folder) / "corpus.json").is_file():
        return None
    ladder = load(str(settings)).ladder
    context = Context(run=f"promote-{version.name}-{now()}", ladder=version.name, home=str(home.root), base=str(Path.cwd()))
    return VersionOrigin(record, ladder, record.data.corpus(), context)


def held_out(home: Home, challenger: Version, champion: Version | None, path: str | None) -> HeldOut:
    """The data of a comparison.

    Args:
        home: Where the runs are.
        challenger: Its run must be in this home.
        champion: None: there is none.
        path: Files or a glob pattern of fresh rows; None: the validation split of the challenger's run.

    Raises:
        UserError: A run or its data are gone, fresh data cannot be read, or the two models do not read the same documents.
    """
    own = origin_of(home, challenger)
    if own is None:
        remedy = "Its run, or the run's data, are not in this home: run its ladder again here, or promote in the home of the run."
        raise UserError.about("MODEL", challenger.label, "a version whose run and data are in this home", remedy)
    other = origin_of(home, champion) if champion else None
    origins = {"challenger": own, **({"champion": other} if other else {})}
    corpora: dict[str, DataRecord] = {}
    splits: tuple[SplitName, ...] = SPLITS
    if path is None:
        if other and not same_ids(own.corpus, other.corpus):
            remedy = f"{challenger.label} and the champion read text in other ids: give fresh rows with {KEY}, or use --force."
            raise UserError.about(KEY, "nothing", "a path, where the models have different tokenizers or lengths", remedy)
        assert own.record.data is not None
        corpora |= dict.fromkeys(origins, own.record.data)
        words, examples = f"the validation split of {own.record.run}", own.ladder.evaluation.examples
        splits = ("valid",)
    else:
        fresh = fresh_source(path, own.ladder)
        corpora |= {name: _prepared(each, fresh, path) for name, each in origins.items()}
        words, examples = f"fresh rows of {path}", 2**62
    trained: dict[str, NDArray[np.int64] | None] = {}
    for name, each in origins.items():
        trained[name] = trained_on(each.corpus, corpora[name].corpus(), splits)
    if champion and other is None:
        _require_same_tokenizer(challenger, champion)
        corpora["champion"], trained["champion"] = corpora["challenger"], None
    if champion:
        _require_same_documents(corpora["challenger"].corpus(), corpora["champion"].corpus(), splits)
    return HeldOut(corpora, splits, examples, words, path is not None, trained)


def _prepared(origin: VersionOrigin, fresh: FilesData, path: str) -> DataRecord:
    try:
        made = prepare_like(origin.corpus, KEY, fresh, origin.ladder, origin.context)
        if made.corpus().interface != origin.corpus.interface:
            shape = origin.corpus.info.image_shape
            allowed = f"images of (channels, height, width) {shape}" if shape else "text in the ids of the model"
            raise UserError.about(KEY, path, f"{allowed}, as the model reads them", "Bring the rows into the form of the ladder's data.")
        return made
    except UserError as error:
        if not str(error).startswith("teacher.path: got 'classes"):
            raise
        names = ", ".join(origin.corpus.info.label_names[:20])
        raise UserError.about(KEY, path, f"rows with the classes of the ladder's data: {names}", "Leave out rows of others.") from None


def fresh_source(path: str, ladder: Ladder) -> FilesData:
    """Settings of the data of fresh rows, in the columns of the ladder's own data where these are files.

    Raises:
        UserError: No file has that path.
    """
    place = str(Path(path).expanduser().absolute())
    common = {
        "paths": (place,),
        "splits": None,
        "sources": (),
        "max_documents": None,
        "max_train_documents": None,
        "max_labels": None,
        "transfer": (),
    }
    if isinstance(ladder.data, FilesData):
        return ladder.data.model_copy(update=common)
    shared = {name: getattr(ladder.data, name) for name in FilesData.model_fields if hasattr(ladder.data, name)}
    return FilesData.model_validate({**shared, **common, "source": "files"})


def same_ids(one: Corpus, other: Corpus) -> bool:
    """Whether two corpora hold documents in the same ids: the same tokenizer, length, classes and pixels."""
    folders = [each.tokenizer_folder for each in (one, other)]
    hashes = [folder and tokenizer_hash(folder) for folder in folders]
    return hashes[0] == hashes[1] and _form(one.info) == _form(other.info)


def _form(info: CorpusInfo) -> CorpusInfo:
    return replace(info, documents={}, tokens={}, slice_names=(), cross_document_attention=True)


def _require_same_tokenizer(challenger: Version, champion: Version) -> None:
    """Refuse a champion of another home that may read other ids."""
    if tokenizer_hash(challenger.folder) != tokenizer_hash(champion.folder):
        remedy = "Promote in the home of the champion's run, or use --force with a reason."
        raise UserError.about(
            "MODEL", champion.label, f"a champion with the tokenizer of {challenger.label}, as its run is elsewhere", remedy
        )


def _require_same_documents(one: Corpus, other: Corpus, splits: Sequence[SplitName]) -> None:
    for name in splits:
        if not np.array_equal(one.split(name).sizes, other.split(name).sizes):
            remedy = "Leave out empty or unlabelled rows."
            raise UserError.about(KEY, name, "rows of which both models read the same", remedy)


def trained_on(own: Corpus, judged: Corpus, splits: Sequence[SplitName]) -> NDArray[np.int64]:
    """Numbers of the judged documents, as `DocumentScores.document`, that are among the training documents of a model."""
    learned = set(_hashes(own.split("train")))
    found = []
    for name in splits:
        before = sum(judged.info.documents[each] for each in SPLITS[: SPLITS.index(name)])
        found += [before + place for place, each in enumerate(_hashes(judged.split(name))) if each in learned]
    return np.asarray(found, dtype=np.int64)


def _hashes(split: Split) -> list[bytes]:
    """A hash of each document's ids or pixels."""
    kind = np.int64 if split.values.dtype.kind in "iu" else np.float32
    offsets = np.asarray(split.offsets)
    return [
        hashlib.blake2b(np.asarray(split.values[begin:end], dtype=kind).tobytes(), digest_size=16).digest()
        for begin, end in pairwise(offsets)
    ]
