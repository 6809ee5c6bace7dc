"""Quality of embeddings: nearness to the teachers', and rank of scored pairs.

Shape legend: N held-out texts, P pairs, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from conf.schema.stage.objective import WHOLE_BATCH
from models.base.quality import BASELINE, Quality
from models.data.batches import Batch
from models.data.corpus import Corpus, SplitName
from models.data.held_out import evaluation_batches, pair_batches
from models.evaluation.evaluation import autocast
from models.multimodal.retrieval import recall, text_numbers
from models.signals.sources import rows

Vectors, Floats = NDArray[np.float32], NDArray[np.float64]
MOST = 1000  # texts that are compared with one another
DIGITS = 6  # of a cosine that count for its rank: more are noise of single precision
AGAINST = {"parent": "_parent", "root": ""}  # teacher -> end of the names of figures against it


def embed(model: nn.Module, batches: Iterable[Batch], device: torch.device, precision: str) -> Vectors:
    """Embeddings (N, D) of the texts of batches, scaled to length 1; of pictures and texts (2 N, D), one after the other."""
    model.eval()
    with torch.no_grad(), autocast(device, precision):
        found = [functional.normalize(rows(model, batch.to(device), None).float(), dim=-1).cpu() for batch in batches]
    return torch.cat(found).numpy()


def pair_cosines(vectors: Vectors) -> Floats:
    """Cosines (P,) of the pairs among vectors (2 P, D) of length 1, the two of a pair one after the other."""
    return (vectors[0::2].astype(np.float64) * vectors[1::2]).sum(1)


def text_cosines(vectors: Vectors) -> Floats:
    """Cosines of all pairs of different texts among the first `MOST` vectors (N, D) of length 1."""
    some = vectors[:MOST].astype(np.float64)
    return (some @ some.T)[np.triu_indices(len(some), 1)]


def rank_correlation(ours: Floats, theirs: Floats) -> float:
    """Spearman's rank correlation of two rows of numbers, ties at their mean rank; 0 where either does not vary."""
    from scipy.stats import rankdata

    if len(ours) < 2:
        return 0.0
    first, second = (ranks - ranks.mean() for ranks in (rankdata(each.round(DIGITS)) for each in (ours, theirs)))
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / size if size else 0.0


def spearman(model: nn.Module, corpus: Corpus, batch_size: int, device: torch.device, precision: str) -> float:
    """Rank correlation of a model's cosines of the corpus's scored pairs with their scores."""
    return rank_correlation(pair_cosines(embed(model, pair_batches(corpus, batch_size), device, precision)), corpus.pair_scores)


def judge_embeddings(
    model: nn.Module,
    teachers: Mapping[str, nn.Module],
    corpus: Corpus,
    split: SplitName,
    examples: int,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> Quality:
    """Figures of a model on held-out texts, against its teachers, and on the corpus's scored pairs.

    `similarity` is the rank correlation of the model's and the root's cosines between all held-out texts, whatever the rotation of either
    (representational similarity, Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008), `similarity_parent` the parent's. `cosine` and
    `mse` compare with the root's embeddings, `cosine_parent` and `mse_parent` with the parent's, all of length 1: the mean of the
    cosines, and of `|e_s - e_t|^2 / D`. The root is compared with itself. `spearman` is the rank correlation of cosines and
    scores over `pairs` pairs, `parent_spearman` and `root_spearman` the teachers'. `baseline_cosine` is that of the mean of the root's
    embeddings, which reads no input.

    Args:
        model: The model judged; the root where there are no teachers.
        teachers: `parent` and `root`.
        corpus: The data.
        split: The held-out part.
        examples: Most texts of it.
        batch_size: Texts at once.
        device: Where all models are.
        precision: `bf16` or `fp32`.
    """

    def texts() -> Iterator[Batch]:
        return evaluation_batches(corpus, split, examples, batch_size)

    models = {"own": model, **teachers} if teachers else {"own": model, "root": model}
    known: dict[int, Vectors] = {}
    for each in models.values():
        if id(each) not in known:
            known[id(each)] = embed(each, texts(), device, precision)
    vectors = {name: known[id(each)] for name, each in models.items()}
    index = np.concatenate([batch.slices.numpy().repeat(batch.targets[0].numel()) for batch in texts()])
    everything = np.ones(len(index), dtype=bool)
    metrics = _figures(vectors, everything) | {f"{BASELINE}cosine": _mean_embedding(vectors["root"])}
    if corpus.has_pairs:
        ranked: dict[int, float] = {}
        for each in models.values():
            if id(each) not in ranked:
                ranked[id(each)] = spearman(each, corpus, batch_size, device, precision)
        metrics |= {"spearman": ranked[id(model)], "pairs": float(len(corpus.pair_scores))}
        metrics |= {f"{name}_spearman": ranked[id(teacher)] for name, teacher in teachers.items()}
    if corpus.info.picture is not None:
        metrics |= _recall(vectors, text_numbers(texts()), bool(teachers))
    names = corpus.info.slice_names
    slices = {names[i]: {"count": float((index == i).sum()), **_figures(vectors, index == i)} for i in np.unique(index)}
    return Quality(metrics, slices)


def _figures(vectors: Mapping[str, Vectors], mask: NDArray[np.bool_]) -> dict[str, float]:
    own, found = vectors["own"][mask], dict[str, float]()
    for name, end in AGAINST.items():
        if name in vectors:
            found[f"cosine{end}"] = float((own * vectors[name][mask]).sum(1, dtype=np.float64).mean())
            found[f"similarity{end}"] = rank_correlation(text_cosines(own), text_cosines(vectors[name][mask]))
            found[f"mse{end}"] = float(((own - vectors[name][mask]) ** 2).mean(dtype=np.float64))
    return found


def _recall(vectors: Mapping[str, Vectors], texts: NDArray[np.int64], taught: bool) -> dict[str, float]:
    """Recall at 1 of a model, from pictures to texts and back, and of its teachers from pictures to texts."""
    found = dict(zip(("recall", "recall_pictures"), recall(vectors["own"], texts), strict=True))
    others = {name: recall(vectors[name], texts)[0] for name in vectors if name != "own"} if taught else {}
    return found | {f"{name}_recall": value for name, value in others.items()}


def _mean_embedding(root: Vectors) -> float:
    """Mean cosine of embeddings to their mean."""
    mean = root.mean(0)
    return float((root @ mean).mean() / max(float(np.linalg.norm(mean)), 1e-12))


def embedding_validator(
    corpus: Corpus, teacher: nn.Module, examples: int, batch_size: int, device: str, precision: str, kind: str
) -> Callable[[nn.Module], dict[str, float]]:
    """A quick validation against one teacher, whose embeddings are computed once, and by the rank of pairs.

    Its `distance`, which patience watches, is `1 - cosine`, or `1 - similarity` for an objective that leaves the rotation free.
    """
    place = torch.device(device)
    theirs = embed(teacher, evaluation_batches(corpus, "valid", examples, batch_size), place, precision)

    def validate(model: nn.Module) -> dict[str, float]:
        own = embed(model, evaluation_batches(corpus, "valid", examples, batch_size), place, precision)
        figures = _figures({"own": own, "root": theirs}, np.ones(len(own), dtype=bool))
        figures["distance"] = 1 - figures["similarity" if kind in WHOLE_BATCH else "cosine"]
        if corpus.has_pairs:
            figures["spearman"] = spearman(model, corpus, batch_size, place, precision)
        return figures

    return validate
