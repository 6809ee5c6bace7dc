"""Spread a model's weights, gradients and moments over processes (FSDP2).

Torch's `fully_shard`: every process holds a part of each tensor; a layer's whole weights exist while it computes. Zhao et al. 2023,
arXiv:2304.11277. What torch needs for it is imported where several processes train.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn


def shard(model: nn.Module, device: torch.device, frozen: bool = False) -> nn.Module:
    """Spread a model over all processes, layer by layer, in place.

    What lies outside the layers of a student, embeddings and head among it, stays whole from the forward pass to the backward pass: the
    loss multiplies hidden states with the head outside the model.

    Args:
        model: Equal in all processes; it may be elsewhere than on `device`, which then gets this process's part alone.
        device: Of this process.
        frozen: A teacher, which has no backward pass.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    layers = set(getattr(model, "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if module is not model and type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=frozen)
    return model


def _is_spread(tensor: Tensor) -> bool:
    if not torch.distributed.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def is_sharded(model: nn.Module) -> bool:
    """Whether a model's weights are spread over processes, be they whole for a while or not."""
    if not torch.distributed.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that is spread; all processes must ask for it together."""
    return cast(Any, tensor).full_tensor() if _is_spread(tensor) else tensor


def gathered_tensors(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole copies of tensors that are spread, on the processor, one after another; all processes must ask for them together.

    Args:
        tensors: By name.
        keep: Whether this process wants them; else it helps and gets nothing, and its device holds one of them at a time.
    """
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if keep:
            kept[name] = full.cpu()
    return kept


def spread_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers of a spread model as they are, each tied weight once."""
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    once = {name for name, _ in model.named_parameters()}
    return {name: each for name, each in model.state_dict().items() if name in once or name not in every}


def whole_state(model: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """Weights and buffers of a spread model, each tied weight once; see `gathered_tensors`."""
    return gathered_tensors(spread_state(model), keep)


def own_parts(tensors: Mapping[str, Tensor], first: bool) -> dict[str, Tensor]:
    """This process's parts of tensors: its rows of those that are spread, and the others where it is the first process."""
    held = {name: tensor for name, tensor in tensors.items() if first or _is_spread(tensor)}
    return {name: cast(Any, tensor).to_local() if _is_spread(tensor) else tensor for name, tensor in held.items()}


def gathered(model: nn.Module, spare: nn.Module) -> nn.Module:
    """The spread model as an ordinary one: `spare`, an equal model of this process, with its weights; all processes must ask together."""
    spare.load_state_dict(whole_state(model), strict=False)
    return spare.eval()


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor spread as another one is; unchanged where that is whole."""
    if not _is_spread(like):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
