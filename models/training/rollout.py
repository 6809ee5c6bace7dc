"""Text that a causal LM writes, batched, with a cache of keys and values.

Prompts of different lengths need no padding: all rows begin at their first id, one position is read at a time once the shortest prompt
ends, and a row is written from where its own prompt ends. So every row's positions are those that training gives them, whatever the
architecture, and the result is padded on the right, as batches are.

Shape legend: R rows, T positions of the longest one, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from models.engines.sampling import draw

SHRINK = 2  # rows that are finished leave the batch once so many times fewer are left
LARGE = 500_000  # elements of a matrix whose reading costs more than its product with a few rows
SEVERAL = range(3, 64)  # rows that a packed matrix answers faster than the ordinary product
FEW = 4_000_000  # parameters below which a processor writes faster in fp32: rounding costs more than reading half the bytes saves


class Written(NamedTuple):
    """Prompts and their continuations."""

    ids: Tensor  # (R, T) int64; beyond a row's length they do not matter
    starts: Tensor  # (R,) ids of its prompt
    lengths: Tensor  # (R,) ids of prompt and continuation, the end id included


class _Reserved(DynamicLayer):
    """Keys and values of a layer in memory that is reserved at once, where transformers copies all of them for every position."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve; in fp32 on a processor, whose attention of one position is slow in bf16."""
        self.device = key_states.device
        self.dtype = torch.float32 if self.device.type == "cpu" else key_states.dtype
        self._keys, self._values = (
            each.new_empty(*each.shape[:2], self._most, each.shape[3], dtype=self.dtype) for each in (key_states, value_states)
        )
        self.keys, self.values = self._keys[:, :, :0], self._values[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add positions; all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        first = self.get_seq_length()
        last = first + key_states.shape[2]
        self._keys[:, :, first:last], self._values[:, :, first:last] = key_states, value_states
        self.keys, self.values = self._keys[:, :, :last], self._values[:, :, :last]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        length = self.get_seq_length()
        self._keys, self._values = self._keys[indices], self._values[indices]
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]


class _Reader:
    """Reads ids in turn and gives the logits after the last one; without a cache it reads everything again."""

    def __init__(self, model: nn.Module, most: int) -> None:
        forward = cast(Any, type(model)).forward  # without a wrapper that would set another precision
        names = inspect.signature(forward).parameters
        self._forward = partial(forward, model)
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self._cache = DynamicCache(config=cast(Any, model).config) if "past_key_values" in names else None
        if self._cache is not None:
            self._cache.layers = [_Reserved(most) if type(layer) is DynamicLayer else layer for layer in self._cache.layers]
        self._read: Tensor | None = None

    def __call__(self, ids: Tensor) -> Tensor:
        """(R, V) logits after (R, n) further ids."""
        if self._cache is not None:
            return self._forward(input_ids=ids, past_key_values=self._cache, use_cache=True, **self._last).logits[:, -1]
        self._read = ids if self._read is None else torch.cat([self._read, ids], 1)
        return self._forward(input_ids=self._read, **self._last).logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows."""
        if self._cache is not None:
            self._cache.batch_select_indices(rows)
        elif self._read is not None:
            self._read = self._read[rows]


@contextmanager
def _packed(model: nn.Module, rows: int) -> Generator[None]:
    """Let large fp32 matrices be read once for all rows, on a processor: torch's own product of a few rows reads them at half the speed."""
    large = [each for each in model.modules() if type(each) is nn.Linear and each.weight.numel() >= LARGE and "forward" not in vars(each)]
    plain = all(each.weight.device.type == "cpu" and each.weight.dtype == torch.float32 for each in large)
    sharded = any(type(each.weight.data) is not Tensor for each in large)
    if not plain or sharded or rows not in SEVERAL or not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
        large = []
    try:
        for each in large:
            each.forward = partial(_several_rows, each, torch.ops.mkldnn._reorder_linear_weight(each.weight.detach(), rows))
        yield
    finally:
        for each in large:
            vars(each).pop("forward", None)


def _several_rows(layer: nn.Linear, packed: Tensor, input: Tensor) -> Tensor:
    if input.numel() // layer.in_features not in SEVERAL:
        return nn.Linear.forward(layer, input)
    return torch.ops.mkldnn._linear_pointwise(input, packed, layer.bias, "none", [], "")


@torch.no_grad()
def write(
    model: nn.Module,
    prompts: Sequence[Tensor],
    most: Sequence[int],
    *,
    end_id: int | None,
    vocabulary: int | None,
    temperature: float,
    seed: int,
    precision: str = "fp32",
) -> Written:
    """Continue prompts until the end id or a length; a function of weights, prompts and seed. Dropout is off.

    Args:
        model: A causal LM, in any mode, to which it returns.
        prompts: (n,) ids of each row, one or more.
        most: Most ids of each row, prompt and continuation; a row whose prompt has as many is left as it is.
        end_id: Ends a row; None: none does.
        vocabulary: Ids of the tokenizer; surplus ones of a padded head are never written. None: all.
        temperature: Divisor of the logits; 0: the most probable id.
        seed: Of the draws.
        precision: `bf16` for autocast, with weights that are rounded once for the whole text; not for small models on a processor.
    """
    device, random = next(model.parameters()).device, torch.Generator().manual_seed(seed)
    starts = torch.tensor([len(prompt) for prompt in prompts])
    limits = torch.maximum(torch.tensor(list(most)), starts)
    ids = torch.zeros(len(prompts), int(limits.max()), dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths, rows, training = limits.clone(), torch.arange(len(prompts)), model.training
    model.eval()
    reader, first = _Reader(model, ids.shape[1]), 0
    half = precision == "bf16" and (device.type != "cpu" or sum(each.numel() for each in model.parameters()) >= FEW)
    with torch.autocast(device.type, torch.bfloat16, enabled=half), _packed(model, len(prompts)):
        for column in range(int(starts.min()), ids.shape[1]):
            scores = reader(ids[rows, first:column].to(device))[:, :vocabulary].float()
            chance = torch.rand(len(prompts), generator=random)  # a row's own, whoever is left beside it
            chosen, first = draw(scores, temperature, chance[rows].to(device)).cpu(), column
            writing = (starts[rows] <= column) & (column < lengths[rows])
            ids[rows[writing], column] = chosen[writing]
            if end_id is not None:
                lengths[rows[writing & (chosen == end_id)]] = column + 1
            going = lengths[rows] > column + 1
            if not going.any():
                break
            if going.sum() * SHRINK <= len(rows):
                reader.keep(going.nonzero()[:, 0].to(device))
                rows = rows[going]
    model.train(training)
    return Written(ids, starts, lengths)
