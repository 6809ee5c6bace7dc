"""Find or prepare the corpus of a ladder in the store."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from conf.errors import UserError
from conf.schema.data import Data, PictureData, Tokenizer
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import ClassWeights
from conf.schema.stage.student import Shape
from conf.schema.teacher import AnswersTeacher
from models.data import tokenizers
from models.data.corpus import Corpus, CorpusInfo
from models.data.image_processors import normalises, processor_hash
from models.losses.class_weights import weights_of
from models.multimodal.processors import processor_files_hash
from tasks.data.build import build_corpus
from tasks.data.identity import corpus_identity
from tasks.data.reading.conversations import columns_of, template_of
from tasks.data.reading.known_hashes import PLANNED_BYTES, known_hashes
from tasks.records.data import COUNTS, DataCounts
from tasks.records.run import DataRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import PLAN, Context, store_of
from tasks.store.cached import Entry, StoredResult, Write, find_or_compute
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Found
from tasks.teachers.teacher_source import resolve_checkpoint, teacher_classes

ALSO_FRACTION = 0.49  # of further held-out data that are judged


def data_identity(ladder: Ladder, context: Context) -> dict[str, Any]:
    """Identity of a corpus: settings, the source's content, the tokenizer.

    Raises:
        UserError: The source is missing or unreadable.
        NotRead: A plan would have to read more than `PLANNED_BYTES` of it.
    """
    folder, classes = teacher_folder(ladder, context), teacher_classes(ladder, context)
    with known_hashes(context.paths.root, PLANNED_BYTES if context.run == PLAN else None):
        return _identity(ladder, Path(context.base), folder, classes)


def _identity(ladder: Ladder, base: Path, folder: Path | None, classes: tuple[str, ...] | None) -> dict[str, Any]:
    """Identity of a corpus with the tokenizer, or image processor, of a folder, and with the classes of a teacher."""
    if ladder.workload == "image-classification":
        counts = folder is not None and (ladder.data.image_shape is None or normalises(folder))
        return corpus_identity(ladder, base, None, processor_hash(folder) if folder and counts else None, classes)
    if ladder.workload in ("image-text", "image-text-embedding"):
        assert folder is not None, "the schema asks for a checkpoint"
        template = template_of(ladder, base, folder) if ladder.workload == "image-text" else None
        return corpus_identity(ladder, base, tokenizers.tokenizer_hash(folder), processor_files_hash(folder), None, (), template)
    texts = ladder.workload == "causal-lm" and not columns_of(ladder.data).conversations
    prefix = tokenizers.frame(tokenizers.load_teacher(folder))[0] if folder and texts else []
    template = template_of(ladder, base, folder) if columns_of(ladder.data).conversations else None
    return corpus_identity(ladder, base, tokenizers.tokenizer_hash(folder) if folder else None, None, classes, prefix, template)


def teacher_folder(ladder: Ladder, context: Context) -> Path | None:
    """Folder of the tokenizer that is asked for, of a checkpoint as a rule, or of one that takes images; None where another serves.

    Raises:
        UserError: There is no tokenizer in `tokenizer.path`.
    """
    if ladder.tokenizer.path is not None:
        folder = Path(context.base) / os.path.expanduser(ladder.tokenizer.path)
        if not (folder / "tokenizer.json").is_file():
            remedy = f"There is no {folder / 'tokenizer.json'}."
            raise UserError.about("tokenizer.path", ladder.tokenizer.path, "a folder with tokenizer.json", remedy)
        return folder
    if isinstance(ladder.teacher, AnswersTeacher):
        own = ladder.teacher.tokenizer if ladder.tokenizer.kind == "teacher" else None
        return None if own is None else Path(context.base) / os.path.expanduser(own)
    asked = ladder.tokenizer.kind == "teacher" or ladder.workload == "image-classification"
    if not asked or ladder.teacher.source != "checkpoint":
        return None
    return resolve_checkpoint(ladder.teacher, context)


def prepare_data(ladder: Ladder, context: Context) -> DataRecord:
    """Find or make the corpus, and those of `evaluation.also`."""
    began = time.monotonic()
    found = _prepared(
        ladder, context, data_identity(ladder, context), lambda: (teacher_folder(ladder, context), teacher_classes(ladder, context))
    )
    if ladder.workload == "image-classification":
        check_patches(ladder, Corpus(found.folder, "").info.image_shape)
    check_class_weights(ladder, Corpus(found.folder, "").info.label_names)
    record = _record(found, seconds=0.0 if found.reused else time.monotonic() - began)
    also = {name: _prepare_also(name, source, ladder, record.corpus(), context) for name, source in ladder.evaluation.also.items()}
    return record.model_copy(update={"also": also})


def _prepared(
    ladder: Ladder, context: Context, identity: dict[str, Any], known: Callable[[], tuple[Path | None, tuple[str, ...] | None]]
) -> StoredResult:
    """Find or make a corpus; `known` gives the folder of the tokenizer or image processor, and the classes."""
    entry, store = Entry("data", ladder.data.source, identity, read_corpus), store_of(context)
    work = store.checkpoints(entry.fingerprint)

    def compute() -> Write:
        log.info("data: preparing %s%s", ladder.data.source, ", from where it was interrupted on" if work.is_dir() else "")
        folder, classes = known()
        return lambda made: _build(ladder, Path(context.base), folder, made, classes, work)

    found = find_or_compute(store, entry, context.made, compute, finish=lambda: shutil.rmtree(work, ignore_errors=True))
    if found.reused:
        log.info("data: found in the store (%s), reused", entry.fingerprint[:12])
    return found


def _prepare_also(name: str, source: Data, ladder: Ladder, corpus: Corpus, context: Context) -> DataRecord:
    """Find or make further held-out data.

    Half of its documents are judged (`valid`), unless the settings ask for another share: no training sees any.

    Raises:
        UserError: As of a corpus, or a class that the ladder's data do not have.
    """
    log.info("data: evaluation.also.%s", name)
    if "valid_fraction" not in source.model_fields_set:
        source = source.model_copy(update={"valid_fraction": ALSO_FRACTION})
    return prepare_like(corpus, f"evaluation.also.{name}", source, ladder, context)


def prepare_like(corpus: Corpus, key: str, source: Data, ladder: Ladder, context: Context) -> DataRecord:
    """Find or make the corpus of other data in the ids of this one: its tokenizer, image processor, length and classes.

    Args:
        corpus: The ladder's own.
        key: Setting or option that named the data.
        source: The other data.
        ladder: The ladder of the models that read both.
        context: The run.

    Raises:
        UserError: As of a corpus, or a class that the ladder's data do not have.
    """
    began = time.monotonic()
    form: dict[str, Any] = {"sequence_length": corpus.info.sequence_length}
    if corpus.info.image_shape and corpus.info.image_shape[0] == 1 and isinstance(source, PictureData):
        form["channels"] = 1  # pictures in files are read in colour, where nothing else is said
    other = ladder.model_copy(update={"data": source.model_copy(update=form), "tokenizer": Tokenizer(kind="teacher")})
    folder, classes = corpus.tokenizer_folder, corpus.info.label_names or None
    if ladder.workload == "image-classification":
        own = corpus.folder / "image_processor"
        folder = own if own.is_dir() else teacher_folder(ladder, context)
    with known_hashes(context.paths.root):
        identity = _identity(other, Path(context.base), folder, classes)
    found = _prepared(other, context, identity, lambda: (folder, classes))
    names = Corpus(found.folder, "").info.label_names
    if classes and names != classes:
        remedy = f"Leave out rows of other classes. The ladder's: {', '.join(classes[:20])}."
        raise UserError.about(key, ", ".join(names[:20]), "the classes of the ladder's data", remedy)
    return _record(found, seconds=0.0 if found.reused else time.monotonic() - began)


def shapes_of(ladder: Ladder) -> list[tuple[str, Shape]]:
    """Dotted key and shape of each model that a ladder describes."""
    teacher = [] if ladder.teacher.shape is None else [("teacher.shape", ladder.teacher.shape)]
    students = ((f"stages[{i}].student.shape", stage.student.shape) for i, stage in enumerate(ladder.stages))
    return [*teacher, *((key, shape) for key, shape in students if shape is not None)]


def patches_of(ladder: Ladder) -> list[tuple[str, int]]:
    """Dotted key and patch size of each vision transformer that a ladder describes."""
    students = ((f"stages[{i}].student.config", stage.student.config) for i, stage in enumerate(ladder.stages))
    described = [(key, config) for key, config in students if isinstance(config, dict)]
    configs: list[tuple[str, int | None]] = []
    if described:
        from models.architectures.configs import patch_of  # imports torch, which a reused run needs not

        configs = [(key, patch_of(config)) for key, config in described]
    shapes = ((key, shape.patch_size) for key, shape in shapes_of(ladder) if shape.family == "vit")
    return [(f"{key}.patch_size", patch) for key, patch in (*shapes, *configs) if patch is not None]


def check_patches(ladder: Ladder, image: tuple[int, int, int] | None) -> None:
    """Refuse patches that do not divide the images, (C, H, W), before anything is trained.

    Raises:
        UserError: With the size of the images.
    """
    if image is None:
        return
    _, height, width = image
    for key, patch in patches_of(ladder):
        if height != width or height % patch:
            fitting = ", ".join(str(n) for n in range(1, min(height, width) + 1) if not height % n and not width % n)
            squares = "" if height == width else ", of square images: set data.resize"
            allowed = f"a divisor of the images' sides, which are {height} x {width}: {fitting}{squares}"
            raise UserError.about(key, patch, allowed, "Choose another patch_size, or set data.resize.")


def check_class_weights(ladder: Ladder, names: tuple[str, ...]) -> None:
    """Refuse weights of classes that the data do not have, before anything is trained.

    Raises:
        UserError: With the classes of the data.
    """
    settings: list[tuple[str, ClassWeights]] = [(f"stages[{i}].objective", s.objective.class_weights) for i, s in enumerate(ladder.stages)]
    if ladder.teacher.source != "answers":
        settings.append(("teacher", ladder.teacher.class_weights))
    for key, weights in settings:
        if names:
            weights_of(weights, names, [0] * len(names), key)


def _build(ladder: Ladder, base: Path, teacher: Path | None, folder: Path, classes: tuple[str, ...] | None, work: Path) -> None:
    build_corpus(ladder, base, teacher, folder, log.info, classes, work)  # which says how many documents each part has


def content_hash(found: Found) -> str:
    """Hash of a corpus's files: two sources with the same documents are the same data."""
    return fingerprint({name: known["sha256"] for name, known in found.manifest["files"].items() if name != COUNTS})


def _record(found: StoredResult, seconds: float) -> DataRecord:
    return DataRecord(
        fingerprint=found.manifest["fingerprint"],
        folder=str(found.folder),
        content_hash=content_hash(found),
        reused=found.reused,
        seconds=seconds,
        counts=counts_of(found.folder),
    )


def read_corpus(folder: Path) -> object:
    """Read the descriptions in the folder of a corpus; raises where they are damaged, or of another version."""
    info = TypeAdapter(CorpusInfo).validate_python(dataclasses.asdict(Corpus(folder, "").info))
    return info, counts_of(folder)


def counts_of(folder: Path) -> DataCounts | None:
    """The counts of a corpus in its folder; None for one of an earlier version."""
    path = folder / COUNTS
    return DataCounts.model_validate_json(path.read_bytes()) if path.is_file() else None
