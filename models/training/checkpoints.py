"""Training checkpoints: written atomically, durable, hashed, the newest two kept."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer

from conf.atomic import fsync, write_atomic
from models.base.files import checkpoint_steps, fsync_tree, read_json
from models.base.processes import process_count, process_rank
from models.base.sharding import is_sharded, own_parts, spread_like, spread_state, whole_state

HASH = "sha256"  # key of the hash in a file; checkpoints of older versions have none
PARTS = "parts"  # how many processes wrote model and optimizer, each its part of a model that was spread
BESIDE = "beside.safetensors"
DAMAGED = (SafetensorError, OSError, ValueError, KeyError)


class Checkpoints:
    """The checkpoints of one training, in a folder of their own."""

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda text: None) -> None:
        """`say` is told of checkpoints that cannot be used."""
        self.folder = folder
        self.say = say
        self.beside: dict[str, torch.Tensor] = {}  # tensors beside model and optimizer, of the checkpoint that was loaded

    def steps(self) -> list[int]:
        """Steps at which a whole checkpoint exists, oldest first."""
        return checkpoint_steps(self.folder)

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizer: Optimizer,
        state: dict[str, Any],
        beside: dict[str, torch.Tensor] | None = None,
        writes: bool = True,
    ) -> None:
        """Write the checkpoint of `step` finished steps; on return it survives a crash, and older ones but one are gone.

        Args:
            step: Finished steps.
            model: Of this process; of one that is spread over processes each writes its part.
            optimizer: Its optimizer.
            state: Of the training, beside the tensors.
            beside: Tensors of neither, such as a buffer of texts.
            writes: Whether this process writes; of several one does.
        """
        moments = {f"{i}.{k}": torch.as_tensor(v) for i, values in optimizer.state_dict()["state"].items() for k, v in values.items()}
        temporary, parts = self.folder / f"writing-{step}", process_count() if is_sharded(model) else 1
        if writes:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        if parts > 1:  # every process writes what it holds
            torch.distributed.barrier()
            for name, tensors in (("model", spread_state(model)), ("optimizer", moments)):
                path = temporary / _part(name, process_rank())
                _save_tensors(own_parts(tensors, writes), path)
                fsync(path)
            torch.distributed.barrier()
        elif writes:
            _save_tensors(_unshared(model.state_dict()), temporary / "model.safetensors")
            _save_tensors(moments, temporary / "optimizer.safetensors")
        if not writes:
            return
        if beside:
            _save_tensors(beside, temporary / BESIDE)
        text = json.dumps({HASH: _hash_of_state(state), "state": state, PARTS: parts})
        (temporary / "state.json").write_text(text, encoding="utf-8")
        fsync_tree(temporary)
        final = self.folder / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)  # a whole folder, which `write_atomic` does not replace
        fsync_tree(self.folder)
        for old in self.steps()[:-2]:
            shutil.rmtree(self.folder / f"step-{old:08d}")

    def load(self, model: nn.Module, optimizer: Optimizer) -> tuple[int, dict[str, Any]] | None:
        """Put the newest undamaged checkpoint into `model` and `optimizer`; return its step and state, or None if there is none.

        Without the weights of the best validation so far, training could not end: it begins anew.
        """
        for step in reversed(self.steps()):
            folder = self.folder / f"step-{step:08d}"
            try:
                state, parts = _load_state(folder / "state.json")
                weights, moments = (_Tensors(_files(folder, name, parts)) for name in ("model", "optimizer"))
                beside = _load_tensors(folder / BESIDE) if (folder / BESIDE).exists() else {}
                if math.isfinite(state.get("best", math.inf)):
                    _load_tensors(self.folder / "best.safetensors")
            except DAMAGED as error:  # a damaged disk; the one before it is as good a start
                self.say(f"damaged checkpoint {folder}: {error}; training goes on from the one before, or begins anew")
                shutil.rmtree(folder, ignore_errors=True)  # of several processes each finds it damaged
                continue
            _put(weights, model)
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            restored: dict[int, dict[str, torch.Tensor]] = {}
            for key in moments.names:
                index, name = key.split(".", 1)
                like, tensor = parameters[int(index)], moments.whole(key)
                restored.setdefault(int(index), {})[name] = spread_like(tensor, like) if tensor.shape == like.shape else tensor
            optimizer.load_state_dict({"state": restored, "param_groups": optimizer.state_dict()["param_groups"]})
            self.beside = beside
            return step, state
        return None

    def save_best(self, model: nn.Module, writes: bool = True) -> None:
        """Keep the weights of the best validation so far (early stopping returns to them)."""
        self.save_weights(model, "best", writes)

    def load_best(self, model: nn.Module) -> None:
        """Return to the weights of the best validation; raises as `load_weights`."""
        self.load_weights(model, "best")

    def save_weights(self, model: nn.Module, name: str, writes: bool = True) -> None:
        """Keep the weights as they are now under a name, until the folder is removed; for `writes` see `save`."""
        weights = _weights(model, writes)
        if writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / f"{name}.safetensors", lambda path: _save_tensors(weights, path))

    def load_weights(self, model: nn.Module, name: str) -> None:
        """Return to weights that were kept.

        Raises:
            ValueError: They are not those that were written.
        """
        _put(_Tensors([self.folder / f"{name}.safetensors"]), model)


class _Tensors:
    """The tensors of one file, or of those that several processes wrote, which hold rows of a tensor each; read one after another.

    Raises:
        OSError, SafetensorError: A file is missing, or no whole safetensors file.
        ValueError: Names, types, shapes or contents are not those that were written.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._places: dict[str, list[Path]] = {}
        for path in paths:
            with safe_open(path, framework="pt") as file:
                names, written = sorted(file.keys()), (file.metadata() or {}).get(HASH)
                _check(path, written, lambda file=file, names=names: _hash_of_tensors((name, file.get_tensor(name)) for name in names))
            for name in names:
                self._places.setdefault(name, []).append(path)

    @property
    def names(self) -> list[str]:
        return list(self._places)

    def whole(self, name: str) -> torch.Tensor:
        rows = []
        for path in self._places[name]:
            with safe_open(path, framework="pt") as file:
                rows.append(file.get_tensor(name))
        return rows[0] if len(rows) == 1 else torch.cat(rows)


def _part(name: str, rank: int) -> str:
    return f"{name}-{rank:05d}.safetensors"


def _files(folder: Path, name: str, parts: int) -> list[Path]:
    return [folder / f"{name}.safetensors"] if parts == 1 else [folder / _part(name, rank) for rank in range(parts)]


def _weights(model: nn.Module, writes: bool) -> dict[str, torch.Tensor]:
    """Weights and buffers of a model, whole, each once; of one that is spread nothing where this process does not write."""
    return whole_state(model, writes) if is_sharded(model) else _unshared(model.state_dict())


def _put(weights: _Tensors, model: nn.Module) -> None:
    """Give a model these weights, spread over processes as its own are."""
    own = model.state_dict()
    model.load_state_dict({name: spread_like(weights.whole(name), own[name]) for name in weights.names}, strict=False)


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write tensors with their hash, which is taken from memory: the disk is not read again."""
    here = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(here, path, metadata={HASH: _hash_of_tensors(sorted(here.items()))})


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file; raises as `_Tensors`."""
    tensors = _Tensors([path])
    return {name: tensors.whole(name) for name in tensors.names}


def _load_state(path: Path) -> tuple[dict[str, Any], int]:
    """Read the state beside the tensors, and how many processes wrote these; raises as `_Tensors`."""
    read = read_json(path)
    state = read.get("state", read)
    _check(path, read.get(HASH), lambda: _hash_of_state(state))
    return state, int(read.get(PARTS, 1))


def _check(path: Path, written: str | None, hashed: Callable[[], str]) -> None:
    if written is not None and written != hashed():
        raise ValueError(f"{path.name} has changed since it was written")


def _hash_of_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(cast(Any, tensor.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _hash_of_state(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _unshared(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each storage once: safetensors refuses tied weights, and loading one of the names restores both."""
    seen: set[int] = set()
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            kept[name] = tensor.contiguous()
    return kept
