"""A student with fewer ids than its teacher: maps between the vocabularies.

Teacher and student are compared in the student's ids: the corpus is read through a table, and of the teacher's embedding and head only
the kept rows stay, so its probabilities are renormalised over them. Which ids are kept: `models.students.reduced_tokenizer`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from models.base.files import read_json
from models.data.corpus import Corpus, CorpusInfo, Split, SplitName
from models.students.reduced_tokenizer import used_ids

if TYPE_CHECKING:
    from torch import Tensor, nn


KEPT = "kept_ids.json"  # beside a student's weights: the corpus's id of each of its own


@dataclass(frozen=True)
class VocabularyMap:
    """From a larger vocabulary to a smaller one: id i of the smaller is `kept[i]` of the larger."""

    kept: tuple[int, ...]  # ascending

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """The smaller id of each of the larger; -1 where it is dropped."""
        table = np.full(self.kept[-1] + 1, -1, dtype=np.int64)
        table[list(self.kept)] = np.arange(len(self.kept))
        return table

    def ids(self, values: Any) -> NDArray[np.int64]:
        """Numpy ids of the larger vocabulary in the smaller one's.

        Raises:
            ValueError: One of them was dropped.
        """
        values = np.asarray(values)
        found = self.table[np.minimum(values, len(self.table) - 1)]
        if np.any(found < 0) or np.any(values >= len(self.table)):
            raise ValueError("an id that the smaller vocabulary dropped occurs in its data")
        return found

    def inputs(self, ids: Tensor) -> Tensor:
        """(...) ids of the larger vocabulary in the smaller one's; raises ValueError where one was dropped."""
        import torch

        return torch.from_numpy(self.ids(ids.cpu().numpy())).to(ids.device)

    def targets(self, ids: Tensor) -> Tensor:
        """The same for targets, where `IGNORE` stays."""
        from models.data.batches import IGNORE

        keep = ids != IGNORE
        mapped = ids.clone()
        mapped[keep] = self.inputs(ids[keep])
        return mapped

    def within(self, larger: VocabularyMap | None, key: str) -> VocabularyMap:
        """The same map from a teacher that itself keeps only the ids of `larger`; None: it has all.

        Raises:
            UserError: The teacher lacks some of these ids.
        """
        if larger is None:
            return self
        missing = len(set(self.kept) - set(larger.kept))
        if missing:
            allowed = f"ids that its teacher has; it lacks {missing:,} of them"
            raise UserError.about(key, f"{len(self.kept):,} ids", allowed, "Set vocabulary: used for this stage, too.")
        return VocabularyMap(tuple(larger.ids(self.kept).tolist()))


class MappedIds:
    """An array of ids that is read through a table; the array itself may be mapped from a file."""

    def __init__(self, values: NDArray[np.generic], vocabulary: VocabularyMap) -> None:
        self.values, self.vocabulary = values, vocabulary

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: Any) -> NDArray[np.int64]:
        return self.vocabulary.ids(self.values[place])


@dataclass(frozen=True)
class ReducedCorpus(Corpus):
    """A corpus in a smaller vocabulary's ids; nothing is copied."""

    vocabulary: VocabularyMap

    @cached_property
    def info(self) -> CorpusInfo:
        """The description, in the smaller vocabulary."""
        whole = Corpus(self.folder, self.content_hash).info
        end_id, pad_id = (None if i is None else int(self.vocabulary.ids(i)) for i in (whole.end_id, whole.pad_id))
        prefix = tuple(self.vocabulary.ids(whole.prefix).tolist()) if whole.prefix else ()
        return replace(whole, vocabulary=len(self.vocabulary.kept), end_id=end_id, pad_id=pad_id, prefix=prefix)

    def split(self, name: SplitName) -> Split:
        """The documents of one split, their ids looked up as they are read."""
        return self._mapped(super().split(name))

    @property
    def rationales(self) -> Split | None:
        """The second task of training documents, likewise."""
        split = super().rationales
        return None if split is None else self._mapped(split)

    def _mapped(self, split: Split) -> Split:
        return replace(split, values=cast(Any, MappedIds(split.values, self.vocabulary)))


def reduce_corpus(corpus: Corpus, vocabulary: VocabularyMap | None) -> Corpus:
    """A corpus in the ids of `vocabulary`; None: as it is."""
    if vocabulary is None:
        return corpus
    kept = hashlib.sha256(json.dumps(vocabulary.kept).encode()).hexdigest()
    fingerprint = hashlib.sha256(f"{corpus.content_hash} in {kept}".encode()).hexdigest()
    return ReducedCorpus(corpus.folder, fingerprint, vocabulary)


def resize_vocabulary(model: nn.Module, vocabulary: VocabularyMap) -> nn.Module:
    """Leave a model only the kept rows of its embedding and head, in place; its ids are then the smaller vocabulary's."""
    import torch
    from torch import nn

    whole = cast(Any, model)
    embedding, head = whole.get_input_embeddings(), whole.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    rows = torch.tensor(vocabulary.kept, device=embedding.weight.device)
    embedding.weight = nn.Parameter(embedding.weight.detach()[rows], requires_grad=embedding.weight.requires_grad)
    embedding.num_embeddings, whole.config.vocab_size = len(rows), len(rows)
    if embedding.padding_idx is not None:  # it only keeps a row from learning, and pads are masked by position here
        embedding.padding_idx = None
    if head is not None:
        head.weight = embedding.weight if tied else nn.Parameter(head.weight.detach()[rows], requires_grad=head.weight.requires_grad)
        head.out_features = len(rows)
        if head.bias is not None:
            head.bias = nn.Parameter(head.bias.detach()[rows], requires_grad=head.bias.requires_grad)
    if hasattr(whole, "vocab_size"):
        whole.vocab_size = len(rows)
    return model


def write_kept(vocabulary: VocabularyMap, folder: Path) -> None:
    """Note in a student's folder which of the corpus's ids it has."""
    (folder / KEPT).write_text(json.dumps(vocabulary.kept), encoding="utf-8")


def read_kept(folder: Path) -> VocabularyMap | None:
    """The vocabulary of a student in the store; None where it has every id."""
    file = folder / KEPT
    return VocabularyMap(tuple(read_json(file))) if file.is_file() else None


def fit_vocabulary(teacher: nn.Module, folder: Path, vocabulary: VocabularyMap | None, key: str = "student.vocabulary") -> nn.Module:
    """Cut a teacher from the store to a student's vocabulary, in place.

    Raises:
        UserError: It lacks ids of the student's.
    """
    own = read_kept(folder)
    if own == vocabulary:
        return teacher
    if vocabulary is None:
        allowed = "used, as its teacher has only the ids that the data use"
        raise UserError.about(key, "teacher", allowed, "A student's vocabulary cannot be larger than its teacher's.")
    return resize_vocabulary(teacher, vocabulary.within(own, key))


def student_vocabulary(choice: str, corpus: Corpus) -> VocabularyMap | None:
    """The ids that a student keeps of the corpus's; None: all.

    Raises:
        UserError: `used` is asked for and the corpus's tokenizer is no BPE.
    """
    return VocabularyMap(used_ids(corpus)) if choice == "used" else None
