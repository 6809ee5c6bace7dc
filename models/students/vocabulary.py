"""A student with fewer ids than its teacher: those that the data use, and what any other text needs to be spelt out.

Kept are the ids that occur in the corpus, every byte, every special token, and each part of which the tokenizer's merges make a kept
token. A byte-level BPE merges the pair of lowest rank first; all pairs that it meets on the way to kept tokens are among those kept,
so the smaller tokenizer cuts the corpus's text exactly as the larger one does. Other text falls back to shorter tokens, in the end to
bytes.

Teacher and student are compared in the student's ids: the corpus is read through a table, and the teacher answers with the rows of its
embedding and head that are kept, so its probabilities are renormalised over them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, SplitName
from models.data.tokenizers import byte_letters

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.losses.loss import Signal

KEPT = "kept_ids.json"  # beside a student's weights: the corpus's id of each of its own
NO_VOCABULARY = ("vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")  # older forms of what tokenizer.json holds


@functools.lru_cache(maxsize=2)
def used_ids(corpus: Corpus) -> tuple[int, ...]:
    """The ids to keep, ascending: those that occur in any split, bytes, specials, and the parts of which kept tokens are merged.

    Raises:
        UserError: The corpus's tokenizer is no BPE.
    """
    present = np.zeros(corpus.info.vocabulary or 0, dtype=bool)
    for name in SPLITS:
        values = corpus.split(name).values
        for start in range(0, len(values), 2**24):  # bounds the memory that a large corpus takes
            present[np.unique(values[start : start + 2**24]).astype(np.int64)] = True
    special = [i for i in (corpus.info.end_id, corpus.info.pad_id) if i is not None]
    return _closed(_bpe(corpus.tokenizer_folder), {*np.flatnonzero(present).tolist(), *special})


def _bpe(folder: Path | None) -> dict[str, Any]:
    """The serialised tokenizer.

    Raises:
        UserError: It is no BPE.
    """
    file = folder / "tokenizer.json" if folder else None
    raw = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    kind = raw.get("model", {}).get("type")
    if kind != "BPE":
        raise UserError.about(
            "student.vocabulary",
            "used",
            f"teacher, for a tokenizer of type {kind or 'unknown'}",
            "Only a BPE can be cut to the ids in use.",
        )
    return raw


def _pairs(model: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Left part, right part and result of every merge, by rank."""
    prefix = len(model.get("continuing_subword_prefix") or "")
    halves = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right, left + right[prefix:]) for left, right in halves]


def _closed(raw: dict[str, Any], ids: set[int]) -> tuple[int, ...]:
    vocabulary: dict[str, int] = raw["model"]["vocab"]
    letters = [*byte_letters(), *(f"<0x{byte:02X}>" for byte in range(256))]
    kept = ids | {vocabulary[letter] for letter in letters if letter in vocabulary} | {token["id"] for token in raw["added_tokens"]}
    unknown = raw["model"].get("unk_token")
    if unknown in vocabulary:
        kept.add(vocabulary[unknown])
    parts: dict[int, list[int]] = {}
    for left, right, result in _pairs(raw["model"]):
        parts.setdefault(vocabulary[result], []).extend((vocabulary[left], vocabulary[right]))
    waiting = list(kept)
    while waiting:
        for part in parts.get(waiting.pop(), ()):
            if part not in kept:
                kept.add(part)
                waiting.append(part)
    return tuple(sorted(kept))


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

    def originals(self, ids: Tensor) -> Tensor:
        """(...) ids of the smaller vocabulary in the larger one's."""
        import torch

        return torch.tensor(self.kept, device=ids.device)[ids]

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


def restrict(signal: Signal, vocabulary: VocabularyMap) -> Signal:
    """A teacher's answer in a smaller vocabulary.

    Dense: only the kept logits, which a softmax renormalises. Sparse: the mass of dropped ids joins the residual.
    """
    import torch

    from models.losses.loss import SparseSignal, TeacherSignal

    if isinstance(signal, TeacherSignal):
        return TeacherSignal(signal.logits[..., torch.tensor(vocabulary.kept, device=signal.logits.device)])
    assert isinstance(signal, SparseSignal)
    table = torch.from_numpy(vocabulary.table).to(signal.ids.device)
    place = torch.where(signal.ids < len(table), table[signal.ids.clamp(max=len(table) - 1)], -1)
    dropped = place < 0
    lost = signal.log_probs.masked_fill(~dropped, -torch.inf).logsumexp(dim=-1)
    # An unused place repeats an id of the row; a row of which nothing is kept has only the residual.
    spare = place.amax(dim=-1, keepdim=True).clamp(min=0)
    return SparseSignal(
        torch.where(dropped, spare, place),
        signal.log_probs.masked_fill(dropped, -torch.inf),
        torch.logaddexp(signal.log_residual, lost),
    )


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
        return replace(whole, vocabulary=len(self.vocabulary.kept), end_id=end_id, pad_id=pad_id)

    def split(self, name: SplitName) -> Split:
        """The documents of one split, their ids looked up as they are read."""
        split = super().split(name)
        return replace(split, values=cast(Any, MappedIds(split.values, self.vocabulary)))


def reduced(corpus: Corpus, vocabulary: VocabularyMap | None) -> Corpus:
    """A corpus in the ids of `vocabulary`; None: as it is."""
    if vocabulary is None:
        return corpus
    kept = hashlib.sha256(json.dumps(vocabulary.kept).encode()).hexdigest()
    mark = hashlib.sha256(f"{corpus.content_hash} in {kept}".encode()).hexdigest()
    return ReducedCorpus(corpus.folder, mark, vocabulary)


def resize(model: nn.Module, vocabulary: VocabularyMap) -> nn.Module:
    """Leave a model only the kept rows of its embedding and head, in place; it then speaks the smaller vocabulary's ids."""
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
    (folder / KEPT).write_text(json.dumps(vocabulary.kept))


def read_kept(folder: Path) -> VocabularyMap | None:
    """The vocabulary of a student in the store; None where it has every id."""
    file = folder / KEPT
    return VocabularyMap(tuple(json.loads(file.read_text()))) if file.is_file() else None


def reduced_tokenizer(folder: Path, kept: tuple[int, ...], out: Path) -> None:
    """Write the tokenizer of a smaller vocabulary: the same text, the same cuts, the smaller ids.

    Args:
        folder: The larger tokenizer's, a byte-level BPE's.
        kept: The ids to keep, ascending, as `used_ids` gives them.
        out: An existing folder.

    Raises:
        UserError: It is no BPE.
    """
    raw, place = _bpe(folder), {old: new for new, old in enumerate(kept)}
    model = raw["model"]
    vocabulary = {token: place[old] for token, old in model["vocab"].items() if old in place}
    pairs = zip(model["merges"], _pairs(model), strict=True)
    model["merges"] = [merge for merge, parts in pairs if all(part in vocabulary for part in parts)]
    model["vocab"] = vocabulary
    for token in raw["added_tokens"]:
        token["id"] = place[token["id"]]
    raw["post_processor"] = _moved(raw.get("post_processor"), place)
    if raw.get("padding"):
        raw["padding"]["pad_id"] = place[raw["padding"]["pad_id"]]
    for path in folder.iterdir():
        if path.is_file() and path.name not in NO_VOCABULARY:
            shutil.copy(path, out / path.name)
    (out / "tokenizer.json").write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
    config = out / "tokenizer_config.json"
    if config.is_file():
        settings = json.loads(config.read_text())
        if "added_tokens_decoder" in settings:
            settings["added_tokens_decoder"] = {str(place[int(old)]): token for old, token in settings["added_tokens_decoder"].items()}
            config.write_text(json.dumps(settings, indent=2))


def _moved(processor: Any, place: dict[int, int]) -> Any:
    """A post-processor with new ids for the special tokens that it adds."""
    if not isinstance(processor, dict):
        return processor
    moved = dict(processor)
    if "processors" in moved:
        moved["processors"] = [_moved(each, place) for each in moved["processors"]]
    for name in ("sep", "cls"):
        if isinstance(moved.get(name), list):
            token, old = moved[name]
            moved[name] = [token, place[old]]
    if isinstance(moved.get("special_tokens"), dict):
        moved["special_tokens"] = {
            token: {**known, "ids": [place[old] for old in known["ids"]]} for token, known in moved["special_tokens"].items()
        }
    return moved


def fit(teacher: nn.Module, folder: Path, vocabulary: VocabularyMap | None, key: str = "student.vocabulary") -> nn.Module:
    """Make a teacher from the store speak a student's vocabulary, in place.

    Raises:
        UserError: It lacks ids of the student's.
    """
    own = read_kept(folder)
    if own == vocabulary:
        return teacher
    if vocabulary is None:
        from conf.errors import UserError

        allowed = "used, as its teacher has only the ids that the data use"
        raise UserError.about(key, "teacher", allowed, "A student's vocabulary cannot be larger than its teacher's.")
    return resize(teacher, vocabulary.within(own, key))


def vocabulary_of_student(choice: str, corpus: Corpus) -> VocabularyMap | None:
    """The ids that a student keeps of the corpus's; None: all.

    Raises:
        UserError: `used` is asked for and the corpus's tokenizer is no BPE.
    """
    return VocabularyMap(used_ids(corpus)) if choice == "used" else None
