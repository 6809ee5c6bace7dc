"""Look at a teacher: architecture, parameters, tokenizer, classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from conf.errors import UserError
from conf.schema.ladder import Workload
from conf.schema.teacher import CheckpointTeacher
from conf.schema.workloads import has_classes
from models.architectures.configs import positions_of
from models.base.files import read_json
from models.data.classes import classes_in
from models.embeddings.sentence_folder import is_sentence_folder
from tasks.records.format import human
from tasks.runtime.runs.run_registry import Context
from tasks.teachers.fit import TOKENIZER
from tasks.teachers.teacher_source import NotConverted, gguf_file, resolve_checkpoint

HEADS: dict[str, Workload] = {
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForSequenceClassification": "sequence-classification",
    "ForImageClassification": "image-classification",
}


@dataclass(frozen=True)
class TeacherLook:
    """A teacher as `ladder init` sees it, without its weights.

    Attributes:
        path: As it was given.
        folder: Its folder; None for a GGUF file that no run has converted.
        config: Its configuration.
        architecture: Class that its configuration names; empty where it names none.
        workload: Workload of that class; None for a body without a head of ours, such as a masked language model.
        parameters: Counted without memory, with a head for the workload.
        vocabulary: Ids of its tokenizer, or rows of its embedding; None for images.
        positions: Longest sequence that it takes; None: any.
        classes: Names of its classes in their order; empty: they are only numbered, or there are none.
    """

    path: str
    folder: Path | None
    config: Any
    architecture: str
    workload: Workload | None
    parameters: int
    vocabulary: int | None
    positions: int | None
    classes: tuple[str, ...]

    @property
    def is_vision(self) -> bool:
        """Whether it reads images."""
        from models.architectures.operations import is_vision

        return is_vision(self.config)

    @property
    def kind(self) -> str:
        """Its class, or its type where no class is named."""
        return self.architecture or self.config.model_type

    def words(self) -> str:
        """One line about it."""
        parts = [self.kind, f"{human(self.parameters)} parameters"]
        if self.vocabulary:
            parts.append(f"{self.vocabulary:,} ids")
        if self.positions:
            parts.append(f"{self.positions:,} positions")
        if self.workload is not None and has_classes(self.workload):
            parts.append(f"{self.config.num_labels} classes" + (f": {shown(self.classes)}" if self.classes else ""))
        if self.folder is None:
            parts.append("a GGUF file, which the first run converts")
        return ", ".join(parts)


def shown(names: tuple[str, ...] | list[str], most: int = 6) -> str:
    """Names in a line, the first few."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def look_at_teacher(path: str, context: Context) -> TeacherLook:
    """Read a teacher's configuration and tokenizer; no weight is loaded.

    Raises:
        UserError: There is no such checkpoint, or transformers does not know it.
    """
    from models.architectures.checkpoint import read_config, skeleton
    from models.architectures.composite import has_vision

    try:
        teacher = CheckpointTeacher(path=path)
    except ValidationError as error:
        allowed = "a folder, hub id, GGUF file or package:NAME"
        raise UserError.about("--teacher", path[:80], allowed, f"{error.errors()[0]['msg']}.") from None
    try:
        folder = resolve_checkpoint(teacher, context)
    except NotConverted:
        return _gguf(teacher, context)
    config = read_config(folder)
    if has_vision(config):
        allowed = "a language model or a classifier, for which a ladder can be drafted"
        remedy = "Of a model that reads pictures and texts write the ladder by hand: docs/how-to/images.md shows one."
        raise UserError.about("--teacher", f"{path}, {config.model_type}", allowed, remedy)
    sentences = is_sentence_folder(folder)
    architecture = next(iter(read_json(folder / "config.json").get("architectures") or ()), "")
    workload: Workload | None = next((made for ending, made in HEADS.items() if architecture.endswith(ending)), None)
    if sentences:
        workload = "embedding"
    from models.architectures.operations import is_vision

    vision = is_vision(config)
    built = skeleton(folder, workload or ("image-classification" if vision else "sequence-classification"))
    labels = classes_in(folder) if workload is not None and has_classes(workload) else ()
    numbered = all(name == f"LABEL_{index}" for index, name in enumerate(labels))
    return TeacherLook(
        path=path,
        folder=folder,
        config=config,
        architecture=architecture,
        workload=workload,
        parameters=sum(parameter.numel() for parameter in built.parameters()),
        vocabulary=None if vision else _vocabulary(folder, config),
        positions=None if vision else positions_of(built),
        classes=() if numbered else labels,
    )


def _gguf(teacher: CheckpointTeacher, context: Context) -> TeacherLook:
    import torch

    from models.architectures.gguf import read_config
    from models.architectures.shapes import build

    config = read_config(gguf_file(teacher, context))
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build(config, "causal-lm").parameters())
    positions = getattr(config, "max_position_embeddings", None)
    return TeacherLook(teacher.path, None, config, "", "causal-lm", parameters, config.vocab_size, positions, ())


def _vocabulary(folder: Path, config: Any) -> int:
    from models.data import tokenizers

    return tokenizers.id_count(tokenizers.load(folder)) if has_tokenizer(folder) else int(config.vocab_size)


def has_tokenizer(folder: Path) -> bool:
    """Whether a checkpoint brings a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER)
