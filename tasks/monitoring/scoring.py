"""Answers and losses of a model on held-out rows, and on the rows of windows.

Shapes: n rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from conf.schema.ladder import Ladder
from models.architectures.checkpoint import load_model
from models.base.device import resolve_device, use_threads
from models.data import image_processors, tokenizers
from models.data.batches import IGNORE
from models.data.corpus import Corpus, CorpusInfo, Split, SplitName
from models.data.held_out import evaluation_batches, evaluation_documents
from models.evaluation.evaluation import collect
from models.monitoring.features import Described, image_features, text_features
from models.signals.sources import rows as logits_of
from models.students.vocabulary import read_kept, reduce_corpus
from tasks.data.tokenizing import text_encoder

Floats = NDArray[np.float64]
SPLIT: SplitName = "test"  # rows of windows stand in its place


@dataclass(frozen=True)
class GivenCorpus(Corpus):
    """Rows of a window in the place of a corpus, in memory."""

    given: Split
    described: CorpusInfo

    @cached_property
    def info(self) -> CorpusInfo:
        """The description of the corpus that the model learned from, in the model's own ids."""
        return self.described

    def split(self, name: SplitName) -> Split:
        """The rows, whatever split is asked for."""
        return self.given


class Scorer:
    """A loaded model that answers rows of its ladder's data.

    Args:
        folder: Its Hugging Face folder.
        ladder: The ladder that made it.
        corpus: The data that it learned from.
    """

    def __init__(self, folder: Path, ladder: Ladder, corpus: Corpus) -> None:
        use_threads(ladder)
        self.folder, self.ladder = folder, ladder
        self.device = torch.device(resolve_device(ladder.compute.device))
        self.corpus = reduce_corpus(corpus, read_kept(folder))
        self.model: nn.Module = load_model(folder, ladder.workload, key="MODEL").to(self.device).eval().requires_grad_(False)

    @cached_property
    def tokenizer(self) -> Any:
        """Its own tokenizer, or that of the data where a checkpoint came without."""
        own = any((self.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
        place = self.folder if own else self.corpus.tokenizer_folder
        assert place is not None
        return tokenizers.load_teacher(place)

    @torch.no_grad()
    def probabilities(self, corpus: Corpus, split: SplitName, most: int) -> Floats:
        """(n, C) probabilities of at most so many examples of a split, drawn as evaluations draw them."""
        found = []
        for batch in evaluation_batches(corpus, split, most, self.ladder.evaluation.batch_size):
            logits = logits_of(self.model, batch.to(self.device), None)
            found.append(logits.double().softmax(-1).cpu().numpy())
        return np.concatenate(found) if found else np.zeros((0, max(corpus.info.classes, 1)))

    def bits_per_byte(self, corpus: Corpus, split: SplitName, most: int) -> tuple[Floats, NDArray[np.int64]]:
        """Bits per byte of at most so many sequences (n,) of a split, and the document of each."""
        size, part = self.ladder.evaluation.batch_size, corpus.split(split)
        ids = [(batch.targets != IGNORE).sum(dim=1).numpy() for batch in evaluation_batches(corpus, split, most, size)]
        documents = evaluation_documents(corpus, split, most)
        if not ids:
            return np.zeros(0), documents
        counts = np.concatenate(ids)
        columns = collect(self.model, {}, evaluation_batches(corpus, split, most, size), corpus.interface.output_ids, self.device, "fp32")
        sums = np.add.reduceat(np.append(columns.nll.astype(np.float64), 0.0), np.cumsum(counts) - counts)
        per_byte = (part.predicted - len(corpus.info.prefix)) / np.maximum(part.sizes, 1)
        counted = counts > 0  # a document of nothing but its prefix has no figure
        return (sums / np.maximum(counts, 1) / math.log(2) * per_byte[documents])[counted], documents[counted]

    def rows(self, contents: Sequence[Any], labels: Sequence[int], slices: Sequence[str]) -> GivenCorpus:
        """Rows of a window as the model gets them.

        Args:
            contents: Texts, or pictures.
            labels: Class of each; -1: unknown.
            slices: Slice of each.
        """
        info = replace(self.corpus.info, slice_names=tuple(sorted(set(slices))))
        places = np.array([info.slice_names.index(name) for name in slices], dtype=np.int32)
        classes = np.array(labels, dtype=np.int64)
        if info.workload == "image-classification":
            values = self._pixels(contents)
            given = Split(values, np.arange(len(contents) + 1), classes, places, np.zeros(len(contents), dtype=np.int64))
            return GivenCorpus(self.corpus.folder, "", given, replace(info, pixels=None))
        encoded = text_encoder(self.tokenizer, self.ladder).documents(list(contents))
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(encoded.counts)])
        sizes = np.array([len(text.encode()) for text in contents], dtype=np.int64)
        end_id, pad_id = tokenizers.special_ids(self.tokenizer)
        info = replace(info, vocabulary=tokenizers.id_count(self.tokenizer), end_id=end_id, pad_id=pad_id)
        if info.workload == "causal-lm":
            info = replace(info, prefix=tuple(tokenizers.frame(self.tokenizer)[0]))
        return GivenCorpus(self.corpus.folder, "", Split(encoded.values, offsets, classes, places, sizes), info)

    def _pixels(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        shape = self.corpus.info.image_shape
        assert shape is not None
        processor = image_processors.load(self.folder)
        if processor is None and self.corpus.processor_folder is not None:
            processor = image_processors.load(self.corpus.processor_folder)
        mode = "L" if shape[0] == 1 else "RGB"
        if processor is None:
            processor = image_processors.plain(shape[1:], shape[0])
        found = [image_processors.pixels(processor, picture.convert(mode)) for picture in pictures]
        return np.stack(found) if found else np.zeros((0, *shape), dtype=np.float32)

    def features(self, corpus: Corpus, split: SplitName, chosen: NDArray[np.int64], log_frequency: Floats) -> Described:
        """Features of the chosen examples of a split."""
        part, info = corpus.split(split), corpus.info
        if info.workload == "image-classification":
            values = np.asarray(part.values[chosen])
            return image_features(values.astype(np.float32) if info.pixels is None else info.pixels.of(values))
        pieces = [np.asarray(part.values[part.offsets[i] : part.offsets[i + 1]], dtype=np.int64) for i in chosen]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum([len(piece) for piece in pieces], dtype=np.int64)])
        joined = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
        return text_features(joined, offsets, np.asarray(part.sizes)[chosen], log_frequency, self._decode)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
