"""Tiny corpora and models for the tests of `models/`, on one thread."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data.corpus import SPLITS, Corpus, Split
from tests.factories import END, PAD, corpus_in, interface_for, split_of

TEXT = "the quick brown fox jumps over the lazy dog while the hounds look on; "


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lm_corpus(tmp_path: Path) -> Callable[..., Corpus]:
    """Make a causal-lm corpus of ids per document; the end id is appended, as preparation does."""

    def make(
        train: Sequence[Sequence[int]], valid: Sequence[Sequence[int]] | None = None, length: int = 8, slices: Sequence[int] | None = None
    ):
        def part(documents: Sequence[Sequence[int]]) -> Split:
            ended = [[*document, END] for document in documents]
            return split_of(ended, [-1] * len(ended), slices or [0] * len(ended), [len(document) for document in documents])

        splits = {"train": part(train), "valid": part(valid or train), "test": part(valid or train)}
        return corpus_in(Path(tempfile.mkdtemp(dir=tmp_path)), "causal-lm", length, splits)

    return make


@pytest.fixture
def prose(lm_corpus: Callable[..., Corpus]) -> Corpus:
    """Text that a tiny model learns in a few steps."""
    documents = [list((TEXT * 3)[i : i + 150].encode()) for i in range(40)]
    return lm_corpus(documents, documents[:6], length=24)


@pytest.fixture
def sentences(tmp_path: Path) -> Corpus:
    """Texts of two classes, told apart by a word, of different lengths."""
    generator = np.random.default_rng(0)

    def part(count: int) -> Split:
        labels = generator.integers(0, 2, count)
        words = [("good " if label else "bad ") * int(generator.integers(1, 4)) + "x" * int(generator.integers(0, 6)) for label in labels]
        ids = [[*word.encode(), PAD, END] for word in words]  # the id of padding is also one of the text's own
        return split_of(ids, labels.tolist(), (np.arange(count) % 2).tolist(), [len(word) for word in words])

    return corpus_in(tmp_path / "sentences", "sequence-classification", 32, {name: part(60) for name in SPLITS}, classes=2)


@pytest.fixture
def images(tmp_path: Path) -> Corpus:
    """Images of three classes: the class is the row that is bright."""
    generator = np.random.default_rng(1)

    def part(count: int) -> Split:
        labels = np.arange(count) % 3
        pixels = generator.random((count, 1, 4, 4)).astype(np.float32) * 0.3
        pixels[np.arange(count), 0, labels] += 0.7
        offsets, zeros = np.arange(count + 1), np.zeros(count, dtype=np.int64)
        return Split(pixels, offsets, labels.astype(np.int64), (labels % 2).astype(np.int32), zeros)

    return corpus_in(tmp_path / "images", "image-classification", 2, {name: part(48) for name in SPLITS}, classes=3, image=(1, 4, 4))


@pytest.fixture
def training() -> Callable[..., Training]:
    """Settings of a short training; keywords change them."""

    def make(**changes: object) -> Training:
        common = {"steps": 8, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", "validate_every": 2, "checkpoint_every": 2}
        return Training.model_validate(common | changes)

    return make


@pytest.fixture
def model_for() -> Callable[..., nn.Module]:
    """Make a tiny model that fits a corpus; the same seed, the same weights."""

    def make(corpus: Corpus, seed: int = 0, hidden: int = 16, layers: int = 1, family: str | None = None) -> nn.Module:
        info = corpus.info
        family = family or {"causal-lm": "llama", "sequence-classification": "bert", "image-classification": "vit"}[info.workload]
        shape = Shape.model_validate({"family": family, "hidden_size": hidden, "layers": layers, "heads": 2, "feed_forward": 2 * hidden})
        torch.manual_seed(seed)
        return build(config_for(shape, interface_for(corpus)), info.workload)

    return make


@pytest.fixture
def interface() -> Callable[[Corpus], Interface]:
    """What a corpus asks of a model."""
    return interface_for
