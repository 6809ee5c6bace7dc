"""Training checkpoints: written atomically, durable, the newest two kept."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from conf.atomic import write_atomic
from models.base.files import checkpoint_steps, fsync_tree


class Checkpoints:
    """The checkpoints of one training, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """Steps at which a whole checkpoint exists, oldest first."""
        return checkpoint_steps(self.folder)

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Write the checkpoint of `step` finished steps; on return it survives a crash, and older ones but one are gone."""
        temporary = self.folder / f"writing-{step}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(_unshared(model.state_dict()), temporary / "model.safetensors")
        moments = optimizer.state_dict()["state"]
        save_file(
            {f"{i}.{k}": torch.as_tensor(v) for i, values in moments.items() for k, v in values.items()},
            temporary / "optimizer.safetensors",
        )
        (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
        fsync_tree(temporary)
        final = self.folder / f"step-{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)  # a whole folder, which `write_atomic` does not replace
        fsync_tree(self.folder)
        for old in self.steps()[:-2]:
            shutil.rmtree(self.folder / f"step-{old:08d}")

    def load(self, model: nn.Module, optimizer: Optimizer) -> tuple[int, dict[str, Any]] | None:
        """Put the newest readable checkpoint into `model` and `optimizer`; return its step and state, or None if there is none.

        Without the weights of the best validation so far, training could not end: it begins anew.
        """
        for step in reversed(self.steps()):
            folder = self.folder / f"step-{step:08d}"
            try:
                weights = load_file(folder / "model.safetensors")
                moments = load_file(folder / "optimizer.safetensors")
                state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            except (SafetensorError, OSError, ValueError):
                shutil.rmtree(folder)  # a damaged disk; the one before it is as good a start
                continue
            if math.isfinite(state.get("best", math.inf)) and not self._has_best():
                shutil.rmtree(folder)
                continue
            model.load_state_dict(weights, strict=False)
            restored: dict[int, dict[str, torch.Tensor]] = {}
            for key, tensor in moments.items():
                index, name = key.split(".", 1)
                restored.setdefault(int(index), {})[name] = tensor
            optimizer.load_state_dict({"state": restored, "param_groups": optimizer.state_dict()["param_groups"]})
            return step, state
        return None

    def save_best(self, model: nn.Module) -> None:
        """Keep the weights of the best validation so far (early stopping returns to them)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "best.safetensors", lambda path: save_file(_unshared(model.state_dict()), path))

    def _has_best(self) -> bool:
        try:
            load_file(self.folder / "best.safetensors")
        except (SafetensorError, OSError):
            return False
        return True

    def load_best(self, model: nn.Module) -> None:
        """Return to the weights of the best validation."""
        model.load_state_dict(load_file(self.folder / "best.safetensors"), strict=False)


def _unshared(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each storage once: safetensors refuses tied weights, and loading one of the names restores both."""
    seen: set[int] = set()
    kept: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            kept[name] = tensor.contiguous()
    return kept
