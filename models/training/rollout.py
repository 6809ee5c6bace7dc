"""Text that a causal LM writes, batched, with a cache of keys and values.

Prompts of different lengths need no padding: all rows begin at their first id, one position is read at a time once the shortest prompt
ends, and a row is written from where its own prompt ends. So every row's positions are those that training gives them, whatever the
architecture, and the result is padded on the right, as batches are.

Shape legend: R rows, T positions of the longest one, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.engines.sampling import draw
from models.training.reading import Reader, Recording

SHRINK = 2  # rows that are finished leave the batch once so many times fewer are left
LARGE = 500_000  # elements of a matrix whose reading costs more than its product with a few rows
SEVERAL = range(3, 64)  # rows that a packed matrix answers faster than the ordinary product
FEW = 4_000_000  # parameters below which a processor writes faster in fp32: rounding costs more than reading half the bytes saves


class Written(NamedTuple):
    """Prompts and their continuations."""

    ids: Tensor  # (R, T) int64; beyond a row's length they do not matter
    starts: Tensor  # (R,) ids of its prompt
    lengths: Tensor  # (R,) ids of prompt and continuation, the end id included


@contextmanager
def _packed(model: nn.Module, rows: int) -> Generator[bool]:
    """Let large fp32 matrices be read once for all rows, on a processor: torch's own product of a few rows reads them at half the speed.

    Yields whether there are such.
    """
    large = [each for each in model.modules() if type(each) is nn.Linear and each.weight.numel() >= LARGE and "forward" not in vars(each)]
    plain = all(each.weight.device.type == "cpu" and each.weight.dtype == torch.float32 for each in large)
    sharded = any(type(each.weight.data) is not Tensor for each in large)
    if not plain or sharded or rows not in SEVERAL or not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
        large = []
    try:
        for each in large:
            each.forward = partial(_several_rows, each, torch.ops.mkldnn._reorder_linear_weight(each.weight.detach(), rows))
        yield bool(large)
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
    recording: Recording | None = None,
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
        recording: Of the model's step of one id, which is used where fp32 weights are read as they are.
    """
    device, random = next(model.parameters()).device, torch.Generator().manual_seed(seed)
    starts = torch.tensor([len(prompt) for prompt in prompts])
    limits = torch.maximum(torch.tensor(list(most)), starts)
    ids = torch.zeros(len(prompts), int(limits.max()), dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: len(prompt)] = prompt
    lengths, rows, training = limits.clone(), torch.arange(len(prompts)), model.training
    model.eval()
    half = precision == "bf16" and (device.type != "cpu" or sum(each.numel() for each in model.parameters()) >= FEW)
    with torch.autocast(device.type, torch.bfloat16, enabled=half), _packed(model, len(prompts)) as packed:
        reader, first = Reader(model, ids.shape[1], None if half or packed else recording), 0
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
