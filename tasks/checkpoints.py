"""Where a root teacher comes from: a local folder, a hub id, or a model recorded in MLflow."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from conf.errors import TransientError, UserError
from conf.schema import CheckpointTeacher
from models.files import file_sha256, weights_sha256
from tasks.runs import Context
from tasks.tracking_client import first_line
from tasks.transient import passing

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
# What a model folder may consist of. Pickles, code and optimizer states are left behind.
WANTED = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "preprocessor_config.json")
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "spiece.model", "chat_template*")


def resolve_checkpoint(teacher: CheckpointTeacher, context: Context) -> Path:
    """The local folder of a checkpoint, which is a model that we can read.

    Raises:
        UserError: There is no such checkpoint, or it holds no safetensors weights.
        TransientError: The hub or MLflow did not answer.
    """
    folder = _folder(teacher, context)
    from models.checkpoint import check_folder

    check_folder(folder, "teacher.path")
    return folder


def checkpoint_identity(folder: Path, workload: str) -> dict[str, Any]:
    """Identity of an existing model: its weights and its configuration."""
    return {"kind": "checkpoint", "workload": workload, "weights": weights_sha256(folder), "config": file_sha256(folder / "config.json")}


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy weights, configuration and tokenizer, and nothing else."""
    for pattern in (*WANTED, *TOKENIZER):
        for path in source.glob(pattern):
            if path.is_file() and path.suffix not in (".bin", ".pt", ".pkl", ".py"):
                shutil.copy(path, target / path.name)


def _folder(teacher: CheckpointTeacher, context: Context) -> Path:
    if teacher.path.startswith(("models:/", "runs:/")):
        from tasks.compute import tracker_of

        return tracker_of(context.paths).resolve_model(teacher.path)
    local = Path(context.base) / Path(teacher.path).expanduser()
    if local.exists() or teacher.path.startswith((".", "/", "~")) or not HUB_ID.match(teacher.path):
        return local
    return _from_hub(teacher)


def _from_hub(teacher: CheckpointTeacher) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(teacher.path, revision=teacher.revision, allow_patterns=[*WANTED, *TOKENIZER]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        if passing(error):
            raise TransientError(f"teacher.path: the hub did not give {teacher.path} ({first_line(error)}).") from error
        raise UserError.about(
            "teacher.path",
            teacher.path,
            "an existing folder, `models:/...`, or a hub id that is cached or can be fetched",
            f"No such folder, and the hub did not give it ({type(error).__name__}). Ladder stays offline unless HF_HUB_OFFLINE=0 is set.",
        ) from error
