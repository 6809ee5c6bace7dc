"""From raw documents to a prepared corpus: split, labelled, tokenised, written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.data import Data, FilesData, PictureData
from conf.schema.ladder import Ladder
from models.data import tokenizers
from models.data.corpus import SPLITS, CorpusInfo, Pixels, Split, SplitName, write_corpus
from tasks.data.duplicates import content_of, count_duplicates
from tasks.data.images import ImageReader, digit_pixels
from tasks.data.labels import LabelTally, as_teacher, class_ids, label_notes, unnamed_note
from tasks.data.readers import Document
from tasks.data.sources import Source, read_source, source_hash
from tasks.data.unlabelled import by_label, hide_labels, label_counts, train_on, without_held_out
from tasks.records.data import COUNTS, DataCounts
from tasks.training.identity import known_settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PREPARATION = 1  # raise by hand when the same raw data begin to give another corpus
IMAGES = 1  # the same for pixels
IMAGE_SETTINGS = ("resize", "channels")  # of the data, which count for images alone

Progress = Callable[[str], None]


def corpus_identity(
    ladder: Ladder,
    base: Path,
    teacher_tokenizer_hash: str | None,
    image_processor: str | None = None,
    teacher_classes: Sequence[str] | None = None,
    prefix: Sequence[int] = (),
) -> dict[str, Any]:
    """Return the parts that decide what `build_corpus` writes, as plain JSON, without preparing anything.

    Args:
        ladder: The ladder; its data, tokenizer and workload count.
        base: Folder that relative paths count from.
        teacher_tokenizer_hash: `models.data.tokenizers.tokenizer_hash` of the teacher's folder, for tokenizer.kind teacher.
        image_processor: `models.data.image_processors.processor_hash` of the teacher's folder, for images.
        teacher_classes: Names of the teacher's classes, whose numbers the data follow; None: the data's own.
        prefix: Ids that the teacher's tokenizer begins a text with, for causal-lm.

    Raises:
        UserError: As `tasks.data.sources.source_hash`.
    """
    # The hash of the content stands for where the content lies.
    left = ("paths", "name", "subset", "revision", *IMAGE_SETTINGS)
    settings = {name: value for name, value in known_settings(ladder.data).items() if name not in left}
    if isinstance(ladder.data, FilesData) and ladder.data.splits and ladder.data.splits.column is None:
        settings.pop("splits", None)  # which file is which split counts in the hash of the source
    pictures = _image_identity(ladder, image_processor)
    tokenizer: dict[str, Any] | None = None
    if ladder.workload != "image-classification":
        tokenizer = {"kind": ladder.tokenizer.kind}
        if ladder.tokenizer.kind == "bpe":
            tokenizer["vocabulary"] = ladder.tokenizer.vocabulary
        if ladder.tokenizer.kind == "teacher":
            tokenizer["teacher"] = teacher_tokenizer_hash
    return {
        "workload": ladder.workload,
        "data": settings,
        "tokenizer": tokenizer,
        "source": source_hash(ladder.data, base, ladder.workload),
        "preparation": PREPARATION,
        **pictures,
        **({"classes": list(teacher_classes)} if teacher_classes else {}),
        **({"prefix": list(prefix)} if prefix else {}),
    }


def _image_identity(ladder: Ladder, image_processor: str | None) -> dict[str, Any]:
    """What decides the pixels of images; nothing for text, and for digits that no processor changes, whose fingerprints stay."""
    if ladder.workload != "image-classification" or (ladder.data.source == "digits" and image_processor is None):
        return {}
    settings = ladder.data.model_dump(mode="json")
    return {"images": {"reading": IMAGES, "processor": image_processor, **{key: settings.get(key) for key in IMAGE_SETTINGS}}}


def build_corpus(
    ladder: Ladder, base: Path, teacher_folder: Path | None, folder: Path, progress: Progress, teacher_classes: Sequence[str] | None = None
) -> CorpusInfo:
    """Prepare the documents of a ladder and write them as a corpus.

    Args:
        ladder: The ladder; its data, tokenizer and workload count.
        base: Folder that relative paths count from.
        teacher_folder: The teacher's checkpoint, for tokenizer.kind teacher, and for images.
        folder: An existing empty folder; nothing else is written to.
        progress: Receives a line for each step of the work.
        teacher_classes: Names of the teacher's classes, whose numbers the data follow; None: the data's own.

    Raises:
        UserError: Whatever is wrong with the data; see `tasks.data.sources` and the functions below.
    """
    data, workload = ladder.data, ladder.workload
    progress(f"reading {data.source}")
    images = None
    if workload == "image-classification" and isinstance(data, PictureData):
        images = ImageReader(data, teacher_folder)
    source = read_source(data, workload, base, images)
    notes = [f"{count:,} rows without {role} left out" for role, count in source.dropped.items()]
    dropped = dict(source.dropped)
    if workload == "causal-lm":
        # An empty text teaches nothing, and alone in a split it would leave nothing to judge by.
        texts = [document for document in source.documents if document.text]
        if empty := len(source.documents) - len(texts):
            notes.append(f"{empty:,} empty documents left out")
        source = Source(texts)
    labelled, unlabelled = (source.documents, []) if workload == "causal-lm" else by_label(source.documents)
    unlabelled, remarks = without_held_out(labelled, unlabelled)
    notes += remarks
    splits = split_documents(labelled, data) if labelled else dict[SplitName, list[Document]]()
    slice_names = tuple(sorted({document.slice for document in source.documents}))
    label_names: tuple[str, ...] = ()
    labels: dict[int | str, int] = {}
    if workload != "causal-lm":
        tally = LabelTally()
        for document in source.documents:
            tally.add(document.label, document.origin)
        label_names, labels = class_ids(tally, source.class_names, data)
        if teacher_classes:
            label_names, labels = as_teacher(label_names, labels, teacher_classes, numbered=bool(source.class_names))
            notes += unnamed_note(label_names, teacher_classes)
        notes += [*label_notes(tally), *train_on(unlabelled, splits)]
    counts = _counts(splits, labels, dropped, notes)
    for note in counts.notes:
        progress(note)
    progress(f"{len(source.documents):,} documents: {', '.join(f'{len(splits[name]):,} {name}' for name in SPLITS)}")

    tokenizer = None
    if workload != "image-classification":
        tokenizer = _tokenizer(ladder, splits["train"], teacher_folder, progress)
        tokenizers.save(tokenizer, folder / "tokenizer")
        progress(f"tokenising with {tokenizers.id_count(tokenizer):,} ids")
    written: dict[SplitName, Split] = {name: _split(splits[name], tokenizer, ladder, slice_names, labels) for name in SPLITS}
    if workload == "causal-lm":
        _check_length(written["train"], data)
    else:
        written["train"] = hide_labels(written["train"], data)
    pixels = None
    if images is not None:
        pixels = images.pixels
        images.processor.save_pretrained(str(folder / "image_processor"))
    elif workload == "image-classification":
        pixels = digit_pixels(teacher_folder)
    info = _info(ladder, tokenizer, label_names, slice_names, written, pixels)
    write_corpus(folder, info, written)
    if label_names:
        counts = counts.model_copy(update=label_counts(written["train"]))
    if counts.labels_in_words:
        progress(counts.labels_in_words)
    (folder / COUNTS).write_text(counts.model_dump_json(indent=1))
    progress(", ".join(f"{info.tokens[name]:,} {'images' if tokenizer is None else 'tokens'} {name}" for name in SPLITS))
    return info


def split_documents(documents: Sequence[Document], data: Data) -> dict[SplitName, list[Document]]:
    """Divide documents by the hash of their key, so that adding documents moves none of the others.

    Where that leaves a split empty, because there are few documents, those of the nearest hash are moved into it: each split has at
    least one, and documents of one key stay together. Given splits stay as they are; what is missing of them is drawn from train.

    Raises:
        UserError: Fewer different documents than splits to fill.
    """
    given = {document.split for document in documents}
    drawn: list[tuple[SplitName, float]] = [("valid", data.valid_fraction), ("test", data.test_fraction)]
    drawn = [(name, fraction) for name, fraction in drawn if name not in given]
    free = [document for document in documents if document.split is None or document.split == "train"]
    place = {document.key: int.from_bytes(hashlib.sha256(document.key.encode()).digest()[:8]) / 2**64 for document in free}
    keys = sorted(place, key=lambda key: (place[key], key))
    if len(keys) <= len(drawn):
        allowed = "at least 3: one each to train on, to validate and to test"
        if len(drawn) < 2:
            allowed = "at least 2: one to train on, and one for what is drawn from train" if drawn else "at least one to train on"
        raise UserError.about("data", f"{len(keys)} different documents", allowed, "Add documents.")
    hashes = [place[key] for key in keys]
    split_of: dict[str, SplitName] = dict.fromkeys(keys, "train")
    start, bound = 0, 0.0
    for index, (name, fraction) in enumerate(drawn):
        bound += fraction
        end = int(np.clip(np.searchsorted(hashes, bound), start + 1, len(keys) - len(drawn) + index))
        split_of.update(dict.fromkeys(keys[start:end], name))
        start = end
    splits: dict[SplitName, list[Document]] = {name: [] for name in SPLITS}
    for document in documents:
        splits[document.split if document.split in ("valid", "test") else split_of[document.key]].append(document)
    return splits


def _counts(splits: dict[SplitName, list[Document]], labels: dict[int | str, int], dropped: dict[str, int], notes: list[str]) -> DataCounts:
    """Counts and remarks of the divided documents."""
    each = [(number, document) for number, name in enumerate(SPLITS) for document in splits[name]]
    contents = np.array([content_of(document) for _, document in each], dtype=np.uint64)
    classes = np.array([-1 if document.label is None else labels.get(document.label, -1) for _, document in each], dtype=np.int64)
    given = any(document.split is not None for _, document in each)
    return count_duplicates(contents, classes, np.array([number for number, _ in each], dtype=np.uint8), given, dropped, notes)


def _tokenizer(ladder: Ladder, train: list[Document], teacher_folder: Path | None, progress: Progress) -> PreTrainedTokenizerBase:
    if ladder.tokenizer.kind == "teacher":
        assert teacher_folder is not None, "the teacher's folder is known before the data are prepared"
        return tokenizers.load_teacher(teacher_folder)
    if ladder.tokenizer.kind == "bpe":
        assert ladder.tokenizer.vocabulary is not None, "the schema asks for it"
        progress(f"training a BPE of {ladder.tokenizer.vocabulary:,} ids on {len(train):,} documents")
        made = tokenizers.train_bpe((document.text or "" for document in train), ladder.tokenizer.vocabulary)
    else:
        made = tokenizers.bytes_tokenizer()
    return made if ladder.workload == "causal-lm" else tokenizers.append_end(made)


def _split(
    documents: list[Document],
    tokenizer: PreTrainedTokenizerBase | None,
    ladder: Ladder,
    slice_names: tuple[str, ...],
    labels: dict[int | str, int],
) -> Split:
    index = {name: number for number, name in enumerate(slice_names)}
    slices = np.array([index[document.slice] for document in documents], dtype=np.int32)
    classes = np.array([-1 if document.label is None else labels.get(document.label, -1) for document in documents], dtype=np.int64)
    if tokenizer is None:
        images = np.stack([document.image for document in documents if document.image is not None])
        return Split(images, np.arange(len(documents) + 1), classes, slices, np.zeros(len(documents), dtype=np.int64))
    texts = [document.text or "" for document in documents]
    sizes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
    values, offsets = _ids(texts, tokenizer, ladder)
    return Split(values, offsets, classes, slices, sizes)


def _ids(texts: list[str], tokenizer: PreTrainedTokenizerBase, ladder: Ladder) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids of all texts one after another, and where each begins."""
    encoded = tokenizers.encode(tokenizer, texts)
    before, after = tokenizers.frame(tokenizer)
    if ladder.workload == "sequence-classification":
        before, after = tokenizers.surroundings(tokenizer)
        length = ladder.data.sequence_length
        room = length - len(before) - len(after)
        if room < 1:
            remedy = "No room is left for text beside the special tokens: lengthen it."
            raise UserError.about("data.sequence_length", length, f"at least {len(before) + len(after) + 1}", remedy)
        encoded = [ids[:room] for ids in encoded]
        if not before and not after:  # a model cannot be given nothing
            end = tokenizers.special_ids(tokenizer)[0]
            encoded = [ids if len(ids) else np.array([end], dtype=ids.dtype) for ids in encoded]
    counts = np.array([len(ids) + len(before) + len(after) for ids in encoded], dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    values = np.empty(int(offsets[-1]), dtype=tokenizers.id_dtype(tokenizers.id_count(tokenizer)))
    for ids, start, end in zip(encoded, offsets[:-1], offsets[1:], strict=True):
        values[start : start + len(before)] = before
        values[start + len(before) : end - len(after)] = ids
        values[end - len(after) : end] = after
    return values, offsets


def _check_length(train: Split, data: Data) -> None:
    tokens = len(train.values)
    if tokens < data.sequence_length + 1:
        remedy = f"The training documents, {len(train)}, hold {tokens} tokens: shorten the sequences or add documents."
        raise UserError.about("data.sequence_length", data.sequence_length, f"at most {tokens - 1}", remedy)


def _info(
    ladder: Ladder,
    tokenizer: PreTrainedTokenizerBase | None,
    label_names: tuple[str, ...],
    slice_names: tuple[str, ...],
    splits: dict[SplitName, Split],
    pixels: Pixels | None,
) -> CorpusInfo:
    end_id, pad_id = (None, None) if tokenizer is None else tokenizers.special_ids(tokenizer)
    shape = splits["train"].values.shape[1:]
    return CorpusInfo(
        workload=ladder.workload,
        sequence_length=ladder.data.sequence_length,
        vocabulary=None if tokenizer is None else tokenizers.id_count(tokenizer),
        end_id=end_id,
        pad_id=pad_id,
        prefix=tuple(tokenizers.frame(tokenizer)[0]) if tokenizer is not None and ladder.workload == "causal-lm" else (),
        label_names=label_names,
        slice_names=slice_names,
        image_shape=(shape[0], shape[1], shape[2]) if tokenizer is None else None,
        documents={name: len(splits[name]) for name in SPLITS},
        tokens={name: len(splits[name].values) for name in SPLITS},
        cross_document_attention=ladder.data.cross_document_attention,
        pixels=pixels,
    )
