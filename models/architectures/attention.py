"""Attention with a single-precision gradient for bf16 on a processor.

On short rows the backward pass of PyTorch's attention for processors is slower in bf16 than in single precision: at 192 positions and
heads of 32 the same gradient takes half the time in single precision, and is no less exact (`python -m benchmarks.attention`,
docs/performance.md). The forward pass stays in bf16, but for one position that is written after cached ones. Everything else, a mask,
dropout, a GPU, no gradient, a compiled model, goes to transformers' own `sdpa`.

It is installed through transformers' registry of attention functions; a model is switched for the length of a training and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd

NAME = "ladder_single_precision_gradient"
SLICE = 1 << 17  # numbers of a tensor that are converted at once: half a MiB of them stays in the processor's cache
LIMIT = 16384  # head size times positions up to which single precision won everywhere it was measured


class _Attention(torch.autograd.Function):
    """Scaled dot-product attention, (B, heads, L, D) each; forward in the inputs' precision, gradient in single."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float | None) -> Tensor:
        output, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)
        ctx.save_for_backward(query, key, value, output, logsumexp)
        ctx.causal, ctx.scale = causal, scale
        return output

    @staticmethod
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *given, logsumexp = ctx.saved_tensors
        given = [gradients[0], *given]
        gradients_of_inputs = [torch.empty_like(each) for each in given[1:4]]
        # PyTorch shares out rows times heads among its threads, so a slice holds a few of them for each.
        rows = max(SLICE // given[1][0].numel(), math.ceil(4 * torch.get_num_threads() / given[1].shape[1]), 1)
        for first in range(0, len(logsumexp), rows):
            part = slice(first, first + rows)
            single = [each[part].float() for each in given]
            parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                *single, logsumexp[part], 0.0, ctx.causal, scale=ctx.scale
            )
            for whole, each in zip(gradients_of_inputs, parts, strict=True):
                whole[part] = each
        return (*gradients_of_inputs, None, None)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """An attention function as transformers calls it.

    Args:
        module: The calling layer.
        query: (B, heads, L, D).
        key: (B, heads of keys, L, D).
        value: As `key`.
        attention_mask: Positions that each position may attend to; None: all, or all before it.
        dropout: Share of weights dropped.
        scaling: Factor before the softmax; None: 1 / sqrt(D).
        is_causal: Whether a position sees only those before it; None: the layer's own setting.
        more: Further arguments of the layer; one of `_WEIGHTY` leads to `sdpa`.

    Returns:
        (B, L, heads, D), and None in place of attention weights.
    """
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if _is_one(query, key) and attention_mask is None and not any(more.get(name) is not None for name in _WEIGHTY):
        return _of_one(query, key, value, scaling), None
    if not _wins(query, key, value) or attention_mask is not None or dropout or any(more.get(name) is not None for name in _WEIGHTY):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **more
        )
    groups = query.shape[1] // key.shape[1]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    output = cast(Tensor, _Attention.apply(query, repeat_kv(key, groups), repeat_kv(value, groups), causal, scaling))
    return output.transpose(1, 2).contiguous(), None


_WEIGHTY = ("softcap", "position_bias", "cache")


def _wins(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether a gradient is wanted that single precision gives sooner, of tensors as PyTorch's operation takes them."""
    batch, heads, length, size = query.shape
    alike = key.shape == value.shape and (key.shape[0], *key.shape[2:]) == (batch, length, size) and heads % key.shape[1] == 0
    if not alike or any(each.stride(-1) != 1 for each in (query, key, value)):
        return False
    half = query.dtype == torch.bfloat16 or (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16)
    wanted = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    return half and wanted and query.device.type == "cpu" and size * length <= LIMIT and not torch.compiler.is_compiling()


def _is_one(query: Tensor, key: Tensor) -> bool:
    """Whether one position is written after cached ones, which are in single precision."""
    single = key.dtype == torch.float32 and key.device.type == "cpu"
    return query.shape[2] == 1 and single and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _of_one(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Attention of one position, (B, 1, heads, D), in single precision: in bf16 PyTorch's takes four to six times as long."""
    batch, heads, _, size = query.shape
    with torch.autocast("cpu", enabled=False):
        packed = query.float().view(batch, key.shape[1], heads // key.shape[1], size)  # heads that share a key as positions
        output = torch.nn.functional.scaled_dot_product_attention(packed, key, value, scale=scale)
    return output.view(batch, 1, heads, size).to(query.dtype)


@contextmanager
def single_precision_gradient(model: nn.Module) -> Iterator[None]:
    """Give a transformers model on `sdpa` the attention of this module while the block lasts; any other model is left as it is."""
    from transformers import AttentionInterface, PreTrainedModel
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    if not isinstance(model, PreTrainedModel) or model.config.sub_configs or model.config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation("sdpa")
