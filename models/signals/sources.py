"""Signal sources: live teachers, and causal LMs split from their heads.

Live signals are dense: the teacher runs beside the student. Top-k answers from a file are sparse.

Shape legend: B examples, L positions, N rows that a loss is taken over (B * L for causal-lm, B else), H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from models.alignment.teacher import AlignedTeacher
from models.architectures.token_answers import TokenAnswers
from models.base.sharding import is_sharded
from models.data.batches import Batch
from models.losses.chunked import Head, head_of
from models.losses.loss import HiddenSignal, Signal, SparseSignal, TeacherSignal

SignalSource = Callable[[Batch], Signal]
ROWS = 1536  # that a live teacher sees at once on a processor: their activations mostly stay in its cache

# Results of `split_head`: a model that is later wrapped for half precision could not be checked as exactly.
_ALIKE: WeakKeyDictionary[nn.Module, tuple[type, bool]] = WeakKeyDictionary()


def rows(model: nn.Module, batch: Batch, vocabulary: int | None) -> Tensor:
    """Logits of a model, one row for each target.

    Args:
        model: A causal LM or a classifier.
        batch: Its inputs.
        vocabulary: For causal-lm, ids of the tokenizer; surplus logits of a padded vocabulary are cut. None for classifiers.

    Returns:
        (N, V) logits: N = B * L for causal-lm, B for classifiers, 2 B for embeddings of pictures and texts.
    """
    logits = cast(Any, model)(**batch.arguments).logits
    return logits.flatten(0, -2) if vocabulary is None else logits[..., :vocabulary].flatten(0, 1)


def hidden_rows(model: nn.Module, batch: Batch, plain: nn.Module | None = None) -> Tensor:
    """The input of a causal LM's head, (N, H), without the product with the head.

    Args:
        model: A model for which `split_head` gave a head, perhaps wrapped for data-parallel training.
        batch: Its inputs.
        plain: The model within the wrapper; None: there is none.
    """
    with _headless(plain or model):
        return cast(Any, model)(**batch.arguments).logits.flatten(0, 1)


@contextmanager
def _headless(model: nn.Module) -> Iterator[None]:
    """Make the head the identity for a while: the model's own forward is used, with its wrappers and hooks."""
    head = cast(Any, model).get_output_embeddings()
    head.forward = lambda states: states
    try:
        yield
    finally:
        del head.forward


def split_head(model: nn.Module) -> Head | None:
    """The head of a causal LM whose logits are `head(hidden)` and nothing else; None for any other model, and one spread over processes.

    The model itself is run, on two tokens, rather than a list of names consulted. Scaled logits (Granite, Cohere) pass: without the
    head the hidden states are scaled instead. Soft-capped ones (Gemma 2) do not, and small logits would not show it.
    """
    head = head_of(model) if hasattr(model, "get_output_embeddings") and not is_sharded(model) else None
    if head is None or getattr(cast(Any, model).config, "final_logit_softcapping", None) is not None:
        return None
    kind, alike = _ALIKE.get(model, (None, False))
    if kind is type(model):
        return head if alike else None
    ids = torch.zeros((1, 2), dtype=torch.int64, device=head.weight.device)
    training = model.training
    model.eval()
    with torch.no_grad():
        whole = rows(model, Batch({"input_ids": ids}, ids, ids[0]), head.weight.shape[0])
        hidden = hidden_rows(model, Batch({"input_ids": ids}, ids, ids[0]))
        product = HiddenSignal(hidden, head.weight, head.bias).logits
    model.train(training)
    alike = product.shape == whole.shape and torch.allclose(product.float(), whole.float(), rtol=1e-3, atol=1e-3)
    _ALIKE[model] = type(model), alike
    return head if alike else None


def live(teacher: nn.Module, vocabulary: int | None, precision: str = "fp32", alignment: str = "bytes") -> SignalSource:
    """The teacher itself as source of signals; its weights are frozen and never change.

    Args:
        teacher: On its device.
        vocabulary: Of a causal LM, which hands over hidden states where its head can be split off; None for classifiers.
        precision: `bf16` where it will run under bf16 autocast: its matrices are then rounded once, as autocast would at every batch.
        alignment: Of a teacher with another tokenizer: `bytes` or `uld`.
    """
    if isinstance(teacher, TokenAnswers):
        return stored(teacher)
    if isinstance(teacher, AlignedTeacher):
        return _aligned(teacher, alignment)
    teacher.eval().requires_grad_(False)
    head = split_head(teacher) if vocabulary is not None else None
    if precision == "bf16" and not is_sharded(teacher):
        _round_matrices(teacher)
        head = head_of(teacher) if head else None
    weight = None if head is None else head.weight[:vocabulary].detach()
    bias = None if head is None or head.bias is None else head.bias[:vocabulary].detach()

    def source(batch: Batch) -> Signal:
        with torch.no_grad():
            if weight is None:
                return TeacherSignal(rows(teacher, batch, vocabulary))
            parts = _parts(teacher, batch)
            return HiddenSignal(torch.cat([hidden_rows(teacher, batch.part(index, parts)) for index in range(parts)]), weight, bias)

    return source


def _aligned(teacher: AlignedTeacher, alignment: str) -> SignalSource:
    teacher.eval().requires_grad_(False)
    if alignment == "uld":
        return teacher.largest
    return lambda batch: TeacherSignal(teacher.answers(batch).log_p)


def stored(answers: TokenAnswers, most: int | None = None) -> SignalSource:
    """Answers from a file as source of signals, with `most` ids of a row; None: all that are listed."""
    return lambda batch: SparseSignal(*answers.answers(batch.places, batch.targets, most))


def _parts(teacher: nn.Module, batch: Batch) -> int:
    """Parts in which a teacher sees a batch: on a processor of `ROWS` rows; one where feature losses watch it, which want all at once."""
    if batch.targets.device.type != "cpu" or any(part._forward_hooks for part in teacher.modules()):
        return 1
    return min(max(1, batch.targets.numel() // ROWS), len(batch.targets))


def uniform(outputs: int) -> SignalSource:
    """A null teacher with equal probabilities for all ids or classes.

    With weight alpha, forward KL to it is label smoothing by alpha, but for a constant. Szegedy et al. 2016, arXiv:1512.00567.

    Args:
        outputs: V, ids or classes.
    """

    def source(batch: Batch) -> Signal:
        return TeacherSignal(torch.zeros(1, 1, device=batch.targets.device).expand(batch.targets.numel(), outputs))

    return source


def _round_matrices(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) is nn.Linear:
            # New parameters: an input embedding tied to the head stays as it is.
            module.weight = nn.Parameter(module.weight.bfloat16(), requires_grad=False)
            if module.bias is not None:
                module.bias = nn.Parameter(module.bias.bfloat16(), requires_grad=False)
