"""Early checkpoints of a root that is trained here: kept, stored, found again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.errors import UserError
from models.base.files import weights_sha256
from tasks.records.run import StageRecord

if TYPE_CHECKING:
    from torch import nn

    from models.training.checkpoints import Checkpoints

KEPT = "kept"  # folder of a finished model


def kept_name(step: int) -> str:
    """Name of the weights after a step, beside the checkpoints of the training and in the folder of the finished model."""
    return f"kept-{step:08d}"


def write_kept(model: nn.Module, steps: Iterable[int], checkpoints: Checkpoints, folder: Path) -> None:
    """Write the kept weights into the folder of the finished model, each as a folder that loads as it does.

    Args:
        model: The finished one; it has its own weights again after the call.
        steps: Whose weights lie beside the checkpoints.
        checkpoints: Of its training.
        folder: Of the finished model.
    """
    from models.architectures.checkpoint import save_model

    finished = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in sorted(set(steps)):
        checkpoints.load_weights(model, kept_name(step))
        target = folder / KEPT / kept_name(step)
        target.mkdir(parents=True)
        save_model(model, target, None)
    model.load_state_dict(finished)


def kept_record(root: StageRecord, step: int) -> StageRecord:
    """The record of a root's early checkpoint, as a teacher.

    Raises:
        UserError: The root has no weights of that step.
    """
    folder = Path(root.folder) / KEPT / kept_name(step)
    if not folder.is_dir():
        raise UserError.about(
            "stage.teachers",
            "checkpoints",
            f"another choice, as no weights of {root.name} after step {step} were kept",
            "Name a root that was trained with teacher.keep.",
        )
    early: dict[str, Any] = {"name": f"{root.name}@{step}", "folder": str(folder), "weights_sha256": weights_sha256(folder), "steps": step}
    return root.model_copy(update=early | {"metrics": {}, "mlflow_run_id": None})
