"""Small pictures, ladders of them, and their corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from conf.schema.ladder import Ladder
from models.data.corpus import Corpus, CorpusInfo
from tasks.data.build import build_corpus
from tasks.data.reading.readers import Document
from tasks.data.reading.sources import read_source

SHAPE = {"family": "vit", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8}


def picture(seed: int = 0, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Image.Image:
    """Noise of (width, height)."""
    levels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(levels).convert(mode)


def class_folders(root: Path, count: int = 12, size: tuple[int, int] = (6, 4)) -> None:
    for number in range(count):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number, size).save(folder / f"{number}.png")


def documents(data: Any, base: Path) -> list[Document]:
    return list(read_source(data, "image-classification", base).documents)


def levels(document: Document) -> np.ndarray:
    assert document.image is not None
    return document.image


def ladder(data: dict[str, Any], teacher: dict[str, Any] | None = None) -> Ladder:
    training = {"steps": 1, "batch_size": 4}
    return Ladder.model_validate(
        {
            "name": "pictures",
            "workload": "image-classification",
            "data": {"valid_fraction": 0.2, "test_fraction": 0.2, **data},
            "teacher": teacher or {"source": "train", "shape": SHAPE, "training": training},
            "stages": [{"name": "only", "student": {"shape": SHAPE}, "training": training}],
        }
    )


def build(made: Ladder, base: Path, teacher: Path | None = None) -> tuple[Corpus, CorpusInfo]:
    folder = base / "corpus"
    folder.mkdir()
    info = build_corpus(made, base, teacher, folder, lambda _: None)
    return Corpus(folder, "hash"), info
