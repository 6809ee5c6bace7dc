"""Prepared documents on disk, mapped into memory.

A corpus is a folder: `corpus.json` beside one sub-folder for each of train, valid and test, holding five `.npy` arrays that are
mapped into memory. Its content hash is part of the identity of every model trained on it.

Shapes: n documents, t tokens in all, C H W channels, height and width of an image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.base.files import read_json
from models.base.interface import Interface, Picture

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
FIELDS = ("values", "offsets", "labels", "slices", "sizes")
COUNTED = "counted"  # field of completions alone
PICTURE = "picture."  # begins the names of files of a picture's inputs
PIXELS = "pixel_values"
RATIONALES = "rationales"  # folder beside the splits
PAIRS, PAIR_SCORES = "pairs", "scores.npy"  # folder of scored pairs, two documents each, and the file of their scores


@dataclass(frozen=True)
class Split:
    """Documents of one split.

    Attributes:
        values: (t,) uint16 or uint32 ids of all documents one after another, each ending in the end-of-text id for causal-lm;
            or (n, C, H, W) for images: uint8, which `CorpusInfo.pixels` scales for the models, or float32.
        offsets: (n + 1,) int64, where document i begins in `values`: `values[offsets[i]:offsets[i + 1]]`. Images: 0..n.
        labels: (n,) int64 classes; -1 for an example without label, and for causal-lm.
        slices: (n,) int32 indices into `Corpus.slice_names`.
        sizes: (n,) int64 UTF-8 bytes of each document's text, of its completions alone where `counted` is there; 0 for images.
        counted: (t,) uint8, 1 for each id that a model is to predict: those of completions, in `CorpusInfo.completions`; None: all ids.
        pictures: Inputs of a vision-language model beside its ids, by their names: `pixel_values` (n, m, ...), as `values` of images; the
            others (1, m, ...) alike for all documents. Empty: documents are texts alone, or images alone.
    """

    values: NDArray[np.generic]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    slices: NDArray[np.int32]
    sizes: NDArray[np.int64]
    counted: NDArray[np.uint8] | None = None
    pictures: Mapping[str, NDArray[Any]] = dataclass_field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def save(self, folder: Path) -> None:
        """Write the arrays into `folder`, which is made."""
        folder.mkdir(parents=True)
        for field in (*FIELDS, *([] if self.counted is None else [COUNTED])):
            np.save(folder / f"{field}.npy", getattr(self, field), allow_pickle=False)
        for name, values in self.pictures.items():
            np.save(folder / f"{PICTURE}{name}.npy", values, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Split:
        """Map the arrays of `folder` into memory, read-only."""
        fields = (*FIELDS, *([COUNTED] if (folder / f"{COUNTED}.npy").is_file() else []))
        arrays = {field: np.load(folder / f"{field}.npy", mmap_mode="r", allow_pickle=False) for field in fields}
        shown = {
            path.stem.removeprefix(PICTURE): np.load(path, mmap_mode="r", allow_pickle=False) for path in folder.glob(f"{PICTURE}*.npy")
        }
        return cls(**arrays, pictures=shown)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Ids of each document that a model is to predict, (n,)."""
        if self.counted is None:
            return np.diff(self.offsets)
        before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.counted, dtype=np.int64)])
        return np.diff(before[self.offsets])


@dataclass(frozen=True)
class Pixels:
    """From stored values to a model's pixels: (value * factor - mean) / std, mean and std by channel."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def of(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Pixels (..., C, H, W) that a model takes, of the stored values."""
        scaled = values.astype(np.float32) * np.float32(self.factor)
        return scaled if self.is_plain else (scaled - _by_channel(self.mean)) / _by_channel(self.std)

    def undone(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pixels (..., C, H, W) before they were normalised."""
        return pixels if self.is_plain else pixels * _by_channel(self.std) + _by_channel(self.mean)

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the scale changes."""
        return not any(self.mean) and set(self.std) == {1.0}


def _by_channel(values: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)[:, None, None]


@dataclass(frozen=True)
class CorpusInfo:
    """The description of a corpus without its arrays; `corpus.json`."""

    workload: str
    sequence_length: int
    vocabulary: int | None  # ids of the tokenizer, specials included; None for images
    end_id: int | None  # id that ends a document
    pad_id: int | None
    label_names: tuple[str, ...]  # empty for causal-lm
    slice_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None  # (C, H, W)
    documents: dict[str, int]  # split -> documents
    tokens: dict[str, int]  # split -> tokens, or pixels' rows for images: the length of `values`
    pixels: Pixels | None = None  # None: the models take the values as they are
    completions: bool = False  # a document is a prompt with its completions, one to a window; `Split.counted` tells them apart
    cross_document_attention: bool = True  # whether attention in a training window crosses from one document into the next
    prefix: tuple[int, ...] = ()  # ids that the tokenizer begins a text with, at the head of every document of causal-lm
    picture: Picture | None = None  # of a document beside its text
    rationales: int = 0  # training documents of completions that have a rationale, see `Corpus.rationales`

    @property
    def classes(self) -> int:
        """Number of classes; 0 for causal-lm."""
        return len(self.label_names)

    @property
    def beginning(self) -> tuple[int, ...]:
        """Ids before the first predicted one of a document (causal-lm): the prefix, or the end id of a document before."""
        return self.prefix or (() if self.end_id is None else (self.end_id,))


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus in `folder`; `folder/tokenizer` holds the tokenizer, if the workload has one."""

    folder: Path
    content_hash: str

    @cached_property
    def info(self) -> CorpusInfo:
        """The description in `corpus.json`."""
        raw = read_json(self.folder / "corpus.json")
        for field in ("label_names", "slice_names", "image_shape"):
            raw[field] = None if raw[field] is None else tuple(raw[field])
        raw["prefix"] = tuple(raw.get("prefix", ()))
        pixels, picture = raw.pop("pixels", None), raw.pop("picture", None)
        scaling = pixels and Pixels(pixels["factor"], tuple(pixels["mean"]), tuple(pixels["std"]))
        return CorpusInfo(**raw, pixels=scaling, picture=picture and Picture(**{**picture, "shape": tuple(picture["shape"])}))

    def split(self, name: SplitName) -> Split:
        """The documents of one split, mapped into memory."""
        return Split.load(self.folder / name)

    @property
    def rationales(self) -> Split | None:
        """The second task of each training document, the reasoning behind its completion; of one without it the document is empty."""
        return Split.load(self.folder / RATIONALES) if self.info.rationales else None

    @property
    def has_pairs(self) -> bool:
        """Whether it holds scored pairs of texts."""
        return (self.folder / PAIRS).is_dir()

    @cached_property
    def pairs(self) -> Split:
        """The texts of the scored pairs, the two of a pair one after the other."""
        return Split.load(self.folder / PAIRS)

    @cached_property
    def pair_scores(self) -> NDArray[np.float64]:
        """(P,) scores of the pairs."""
        return np.load(self.folder / PAIRS / PAIR_SCORES, allow_pickle=False)

    @property
    def interface(self) -> Interface:
        """Inputs and outputs that the data need of every model."""
        info = self.info
        return Interface(
            info.workload,
            info.sequence_length,
            info.vocabulary,
            info.end_id,
            info.pad_id,
            info.classes,
            info.image_shape,
            info.prefix,
            info.picture,
        )

    @property
    def tokenizer_folder(self) -> Path | None:
        """Folder of the tokenizer, which every published student carries; None for images."""
        folder = self.folder / "tokenizer"
        return folder if folder.is_dir() else None

    @property
    def processor_folder(self) -> Path | None:
        """Folder of the image processor; None for text, for arrays that never were pictures, and in older corpora."""
        folder = self.folder / "image_processor"
        return folder if folder.is_dir() else None


# Fields that came later are written where they say something: the hash of a corpus is that of its files, and older ones keep theirs.
LATER = {"pixels": None, "completions": False, "cross_document_attention": True, "prefix": (), "picture": None, "rationales": 0}


@lru_cache(maxsize=4)
def shuffled(seed: int, epoch: int, examples: int, pool: int | None = None) -> NDArray[np.int64]:
    """Numbers of the training examples in the order of an epoch, of the first `pool` of the seed's first epoch where it is not None."""
    if pool is None or pool >= examples:
        return np.random.default_rng([seed, epoch]).permutation(examples)
    first = shuffled(seed, 0, examples)[:pool]
    return first[shuffled(seed, epoch, pool)] if epoch else first


def write_corpus(folder: Path, info: CorpusInfo, splits: dict[SplitName, Split], rationales: Split | None = None) -> None:
    """Write a corpus into an existing empty folder."""
    for name, split in splits.items():
        split.save(folder / name)
    if rationales is not None:
        rationales.save(folder / RATIONALES)
    write_info(folder, info)


def write_info(folder: Path, info: CorpusInfo) -> None:
    """Write the description of a corpus whose arrays are in its folder."""
    described = asdict(info)
    for name, usual in LATER.items():
        if described[name] == usual:
            del described[name]
    (folder / "corpus.json").write_text(json.dumps(described, indent=1, sort_keys=True), encoding="utf-8")
