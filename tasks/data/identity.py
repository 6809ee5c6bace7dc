"""Identity of a corpus: settings, content of the source, tokenizer, classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.schema.data import DatasetData, FilesData, WeightedSource
from conf.schema.ladder import Ladder
from conf.schema.workloads import reads_pictures
from tasks.data.pairs import pairs_hash
from tasks.data.reading.conversations import columns_of
from tasks.data.reading.files import file_suffixes
from tasks.data.reading.sources import source_hash
from tasks.training.identity import known_settings

DRAWN = ("max_documents", "max_train_documents", "max_labels")  # settings that `seed` counts for
IMAGE_SETTINGS = ("resize", "channels")  # of the data, which count for images alone
PREPARATION = 2  # raise by hand when the same raw data begin to give another corpus
CONVERSATIONS = 3  # that of conversations, and of prompts with completions
IMAGES = 1  # the same for pixels
TABLES_BEFORE = {".jsonl", ".ndjson", ".csv", ".parquet"}  # files of rows in preparation 1


def corpus_identity(
    ladder: Ladder,
    base: Path,
    teacher_tokenizer_hash: str | None,
    image_processor: str | None = None,
    teacher_classes: Sequence[str] | None = None,
    prefix: Sequence[int] = (),
    chat_template: str | None = None,
) -> dict[str, Any]:
    """Return all that the files of `build_corpus` depend on, as plain JSON, without preparing anything.

    Args:
        ladder: The ladder; its data, tokenizer and workload count.
        base: Folder that relative paths count from.
        teacher_tokenizer_hash: `models.data.tokenizers.tokenizer_hash` of the teacher's folder, for tokenizer.kind teacher.
        image_processor: `models.data.image_processors.processor_hash` of the teacher's folder, for images; beside texts that of the
            whole processor.
        teacher_classes: Names of the teacher's classes, whose numbers the data follow; None: the data's own.
        prefix: Ids that the teacher's tokenizer begins a text with, for causal-lm.
        chat_template: Text of the chat template of conversations; None: they have none, or the tokenizer's configuration holds it.

    Raises:
        UserError: As `tasks.data.reading.sources.source_hash`.
    """
    # The hash of the content stands for where the content lies.
    left = ("paths", "name", "subset", "revision", "generate", *IMAGE_SETTINGS)  # generated rows are tables of `transfer` by now
    settings = {name: value for name, value in known_settings(ladder.data).items() if name not in left}
    if isinstance(ladder.data, FilesData) and ladder.data.splits and ladder.data.splits.column is None:
        settings.pop("splits", None)  # which file is which split counts in the hash of the source
    if isinstance(ladder.data, FilesData) and ladder.data.sources:
        settings["sources"] = [_source_identity(source) for source in ladder.data.sources]
    if ladder.data.transfer:  # their content is in the hash of the source
        settings["transfer"] = [known_settings(rows.model_copy(update={"paths": ()})) for rows in ladder.data.transfer]
    if all(settings.get(name) is None for name in (*DRAWN, "sources", "transfer")):
        settings.pop("seed", None)
    pairs = {} if ladder.data.pairs is None else {"pairs": pairs_hash(ladder.data, base)}
    settings.pop("pairs", None)
    pictures = _image_identity(ladder, image_processor)
    tokenizer: dict[str, Any] | None = None
    if ladder.workload != "image-classification":
        tokenizer = {"kind": "teacher" if ladder.tokenizer.is_given else ladder.tokenizer.kind}  # the same, wherever it lies
        if ladder.tokenizer.kind == "bpe":
            tokenizer["vocabulary"] = ladder.tokenizer.vocabulary
        if ladder.tokenizer.is_given:
            tokenizer["teacher"] = teacher_tokenizer_hash
        if chat_template is not None:
            tokenizer["chat_template"] = hashlib.sha256(chat_template.encode()).hexdigest()
    return {
        "workload": ladder.workload,
        "data": settings,
        "tokenizer": tokenizer,
        "source": source_hash(ladder.data, base, ladder.workload),
        "preparation": _preparation(ladder, base),
        **pictures,
        **pairs,
        **({"classes": list(teacher_classes)} if teacher_classes else {}),
        **({"prefix": list(prefix)} if prefix else {}),
    }


def _source_identity(source: WeightedSource) -> dict[str, Any]:
    named = {"name": source.name, "weight": source.weight}
    return named if source.columns is None else {**named, "columns": known_settings(source.columns)}


def _image_identity(ladder: Ladder, image_processor: str | None) -> dict[str, Any]:
    """The identity of the pixels of images; empty for text, and for images that are numbers and that no processor changes."""
    if not reads_pictures(ladder.workload) or (ladder.data.image_shape is not None and image_processor is None):
        return {}
    settings = ladder.data.model_dump(mode="json")
    return {"images": {"reading": IMAGES, "processor": image_processor, **{key: settings.get(key) for key in IMAGE_SETTINGS}}}


def _preparation(ladder: Ladder, base: Path) -> int:
    """The first preparation that gave the same corpus: a corpus of an earlier version is reused where none of the later ones differs.

    2: files of text and the standard library are split by content, limits are drawn, labels are read by their value, and slices have
    the names that a dataset declares.
    3: a prompt begins as its tokenizer begins a text, without an end id before it (prompts with completions, without a template).
    """
    data = ladder.data
    match data:
        case FilesData() if ladder.workload == "causal-lm":
            same = file_suffixes(data, base) <= TABLES_BEFORE and data.columns.slice != data.columns.label
        case DatasetData() if ladder.workload == "causal-lm":
            same = data.columns.slice is None
        case _:
            same = ladder.workload == "image-classification"
    if data.max_documents is not None:
        same = False
    if ladder.workload == "causal-lm" and columns_of(data).conversations:
        return CONVERSATIONS
    return 1 if same else PREPARATION
