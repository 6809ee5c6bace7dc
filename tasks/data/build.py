"""From raw documents to a prepared corpus: split, labelled, tokenised, written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.data import Data, DatasetData, FilesData, PictureData, has_rationales
from conf.schema.ladder import Ladder
from conf.schema.workloads import has_classes
from models.base.interface import Picture
from models.data import tokenizers
from models.data.corpus import RATIONALES, SPLITS, CorpusInfo, Pixels, Split, SplitName, write_info
from models.data.encoder import Encoder
from models.data.images import ImageReader
from models.data.lines import shared_lines
from tasks.data.duplicates import count_duplicates
from tasks.data.encode import Finished, Numbering, encode_spool, lines_of
from tasks.data.pairs import write_pairs
from tasks.data.picture_texts import PictureTexts
from tasks.data.reading.conversations import chat_encoder, columns_of, cut_notes, no_rationales, rationale_notes
from tasks.data.reading.images import digit_pixels
from tasks.data.reading.labels import as_teacher, class_ids, label_notes, unlearned_note, unnamed_note
from tasks.data.reading.readers import SPLIT_WORDS
from tasks.data.reading.sources import no_documents, open_source
from tasks.data.splits import EQUAL_TO_HELD_OUT, TRAIN, Parts, readings, split_documents
from tasks.data.spool import NONE, TRANSFER, Spool, open_spool, write_spool
from tasks.data.tokenizing import corpus_tokenizer, text_encoder
from tasks.data.unlabelled import hide_labels, label_counts, unlabelled_notes
from tasks.records.data import COUNTS, DataCounts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Progress = Callable[[str], None]


def build_corpus(
    ladder: Ladder,
    base: Path,
    teacher_folder: Path | None,
    folder: Path,
    progress: Progress,
    teacher_classes: Sequence[str] | None = None,
    work: Path | None = None,
) -> CorpusInfo:
    """Prepare the documents of a ladder and write them as a corpus, in memory that does not grow with them.

    Args:
        ladder: The ladder; its data, tokenizer and workload count.
        base: Folder that relative paths count from.
        teacher_folder: The teacher's checkpoint, for tokenizer.kind teacher, and for images.
        folder: An existing empty folder; nothing else is written to.
        progress: Receives a line for each step of the work.
        teacher_classes: Names of the teacher's classes, whose numbers the data follow; None: the data's own.
        work: Folder on the same disk for unfinished files: where an interrupted process left it, this one goes on. The caller removes
            it when `folder` is safe. None: a temporary one.

    Raises:
        UserError: Whatever is wrong with the data; see `tasks.data.reading.sources` and the functions below.
        LadderError: A process that encodes failed.
    """
    if work is None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            return build_corpus(ladder, base, teacher_folder, folder, progress, teacher_classes, Path(temporary))
    data, workload = ladder.data, ladder.workload
    images = ImageReader(data, teacher_folder) if workload == "image-classification" and isinstance(data, PictureData) else None
    pairs = None
    if workload in ("image-text", "image-text-embedding"):
        assert teacher_folder is not None, "the schema asks for a checkpoint"
        pairs = PictureTexts(ladder, base, teacher_folder, work)
    reader = pairs.reader if pairs else images
    spool = None if reader else open_spool(work / "spool")  # the spool lacks the sizes that a reader of images finds
    if spool is None:
        progress(f"reading {data.source}")
        # An empty text teaches no language, and alone in a part it would leave nothing to judge by.
        source = open_source(data, workload, base, reader)
        spool = write_spool(
            pairs.put_aside(source) if pairs else source, work / "spool", keep_empty=workload not in ("causal-lm", "embedding")
        )
    if not spool.documents:
        raise no_documents(data)
    notes = [f"{count:,} rows without {role} left out" for role, count in spool.dropped.items()]
    if spool.empty:
        notes.append(f"{spool.empty:,} empty documents left out")
    label_names, labels = (), {}
    if has_classes(workload):
        label_names, labels = class_ids(spool.labels, spool.class_names, data, len(teacher_classes or ()))
        if teacher_classes:
            label_names, labels = as_teacher(label_names, labels, teacher_classes, numbered=bool(spool.class_names))
            notes += unnamed_note(label_names, teacher_classes)
        notes += label_notes(spool.labels, labels)
    slice_names = tuple(sorted(spool.slices))
    numbering = Numbering(
        labels=np.array([*(labels.get(label, -1) for label in spool.labels.counts), -1], dtype=np.int64),
        slices=np.array([slice_names.index(name) for name in spool.slices], dtype=np.int32),
    )
    parts, counts = _divide(spool, ladder, numbering, label_names, notes)
    for note in counts.notes:
        progress(note)
    documents = {name: int((parts == index).sum()) for index, name in enumerate(SPLITS)}
    progress(f"{sum(documents.values()):,} documents: {', '.join(f'{count:,} {name}' for name, count in documents.items())}")

    tokenizer = chat = pixels = None
    if pairs is not None:
        tokenizer, chat = pairs.tokenizer, pairs.encoder if pairs.writes else None
        pairs.processor.save_pretrained(str(folder / "tokenizer"))  # with its tokenizer
    elif workload != "image-classification":
        tokenizer = corpus_tokenizer(ladder, spool, parts, teacher_folder, work / "tokenizer", progress)
        chat = chat_encoder(tokenizer, ladder, base, teacher_folder)
        tokenizers.save(tokenizer, folder / "tokenizer")
    if tokenizer is not None:
        progress(f"tokenising with {tokenizers.id_count(tokenizer):,} ids")
    encoder = chat or (None if tokenizer is None else text_encoder(tokenizer, ladder))
    times = _times(spool, parts, data, progress) if data.transfer or (isinstance(data, FilesData) and data.sources) else None
    explained = has_rationales(data)
    finished = encode_spool(spool, parts, encoder, numbering, work / "splits", processes_of(ladder), times, explained)
    shown = None
    if pairs is not None:
        shown, pixels = pairs.picture, pairs.pixels
        pairs.write(work / "splits", parts, times)
    written: dict[SplitName, Split] = {name: Split.load(work / "splits" / name) for name in SPLITS}
    reasons = Split.load(work / "splits" / RATIONALES) if explained else None
    if reasons is not None and not len(reasons.values):
        if data.generate is None:
            raise no_rationales(data)
        reasons = None  # those that will be generated are not here yet
    if chat is not None:
        remarks = cut_notes(finished.cut, finished.cut_ids, written)
        remarks += [] if reasons is None else rationale_notes(reasons, finished.cut[RATIONALES])
        counts = counts.model_copy(update={"notes": (*counts.notes, *remarks)})
        for remark in remarks:
            progress(remark)
    elif workload == "causal-lm":
        _check_length(written["train"], data)
    else:
        written["train"] = hide_labels(written["train"], data)
    if data.pairs is not None:
        assert isinstance(encoder, Encoder)
        note = write_pairs(data, base, encoder, folder, spool.column("place")[parts == TRAIN])
        counts = counts.model_copy(update={"notes": (*counts.notes, note)})
        progress(note)
    for name in (*SPLITS, *([] if reasons is None else [RATIONALES])):
        _link(work / "splits" / name, folder / name)
    if data.max_labels is not None:
        (folder / "train" / "labels.npy").unlink()
        np.save(folder / "train" / "labels.npy", written["train"].labels, allow_pickle=False)
    if images is not None:
        pixels = images.pixels
        images.processor.save_pretrained(str(folder / "image_processor"))
    elif workload == "image-classification":
        pixels = digit_pixels(teacher_folder)
    info = _info(ladder, tokenizer, label_names, slice_names, written, pixels, shown)
    if reasons is not None:
        info = replace(info, rationales=int((np.diff(reasons.offsets) > 0).sum()))
    write_info(folder, info)
    if label_names:
        counts = counts.model_copy(update=label_counts(written["train"]))
    if pairs is None:  # questions about pictures are few and come again
        counts = _with_texts(counts, None if chat else finished, info, work / "splits")
    for words in (counts.labels_in_words, counts.cut_in_words, counts.shared_in_words):
        if words:
            progress(words)
    (folder / COUNTS).write_text(counts.model_dump_json(indent=1), encoding="utf-8")
    progress(", ".join(f"{info.tokens[name]:,} {'images' if tokenizer is None else 'tokens'} {name}" for name in SPLITS))
    return info


def _divide(spool: Spool, ladder: Ladder, numbering: Numbering, label_names: Sequence[str], notes: list[str]) -> tuple[Parts, DataCounts]:
    """The part of each document, and counts and remarks of the divided documents."""
    places, given, classes = spool.column("place"), spool.column("split"), numbering.labels[spool.column("label")]
    transfer = given == TRANSFER
    given = np.where(transfer, np.uint8(NONE), given)
    _check_given(given, ladder.data)
    if not has_classes(ladder.workload) or not spool.labels.unlabelled:
        parts = split_documents(places, given, ladder.data, transfer=transfer)
    else:
        parts = split_documents(places, given, ladder.data, classes < 0, transfer)
        notes = [*notes, *unlabelled_notes(parts, given, (classes < 0) & ~transfer, spool.unlabelled)]
    joined, equal = int((transfer & (parts == TRAIN)).sum()), int((transfer & (parts == EQUAL_TO_HELD_OUT)).sum())
    if equal:
        notes = [*notes, f"{equal:,} rows of data.transfer left out, which held-out rows equal"]
    notes = [*notes, *unlearned_note(label_names, classes, parts)]
    counts = count_duplicates(places, classes, parts, bool((given != NONE).any()), spool.dropped, notes)
    return parts, counts.model_copy(update={"transfer": joined})


def _check_given(given: Parts, data: Data) -> None:
    """Refuse a given split without a document: to draw it from train instead would contradict the settings.

    Raises:
        UserError: There is one.
    """
    splits = data.splits if isinstance(data, FilesData | DatasetData) else None
    for name, sources in splits.named().items() if splits else ():
        if not (given == SPLITS.index(SPLIT_WORDS[name])).any():
            remedy = "It holds none: add some, or leave the split out to have it drawn from train."
            raise UserError.about(f"data.splits.{name}", ", ".join(sources), "a split with documents", remedy)


def _times(spool: Spool, parts: Parts, data: Data, progress: Progress) -> NDArray[np.uint8]:
    """Number of times each document is read in an epoch, by the weights of the sources."""
    weights = spool.column("weight")
    times = readings(spool.column("place"), weights, parts, data.seed)
    several = isinstance(data, FilesData) and data.sources
    named = [(source.name, source.weight) for source in several] if several else [(data.source, 1.0)]
    named += [(f"data.transfer[{place}]", rows.weight) for place, rows in enumerate(data.transfer)]
    for weight in sorted({weight for _, weight in named}):
        own = (parts == TRAIN) & (weights == np.float32(weight))
        names = ", ".join(name for name, each in named if each == weight)
        progress(f"weight {weight:g}, {names}: {int(own.sum()):,} training documents are read {int(times[own].sum()):,} times in an epoch")
    return times


def _with_texts(counts: DataCounts, finished: Finished | None, info: CorpusInfo, folder: Path) -> DataCounts:
    """The counts with those of texts: cut ones, and lines that held-out texts share with the training texts."""
    train = lines_of(folder, "train")
    lines = {name: shared_lines(lines_of(folder, name), train) for name in SPLITS if name != "train"}
    update: dict[str, Any] = {"shared_lines": {name: share for name, share in lines.items() if share is not None}}
    if finished is not None and any(finished.cut.values()):
        update["cut"] = finished.cut
        update["cut_share"] = {name: cut / (cut + info.tokens[name]) for name, cut in finished.cut_ids.items() if finished.cut[name]}
    made = counts.model_copy(update=update)
    return made.model_copy(update={"notes": (*made.notes, *filter(None, (made.cut_in_words, made.shared_in_words)))})


def processes_of(ladder: Ladder) -> int:
    """Processes that may encode: `compute.threads`, by default one for each core that this process may use."""
    return ladder.compute.threads or len(os.sched_getaffinity(0))


def _link(source: Path, target: Path) -> None:
    """Give the files of a folder a second place without another copy, where the disk can."""
    target.mkdir()
    for path in source.iterdir():
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)


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
    picture: Picture | None,
) -> CorpusInfo:
    end_id, pad_id = (None, None) if tokenizer is None else tokenizers.special_ids(tokenizer)
    texts = ladder.workload == "causal-lm" and not columns_of(ladder.data).conversations  # a template begins conversations itself
    shape = splits["train"].values.shape[1:]
    return CorpusInfo(
        workload=ladder.workload,
        sequence_length=ladder.data.sequence_length,
        vocabulary=None if tokenizer is None else tokenizers.id_count(tokenizer),
        end_id=end_id,
        pad_id=pad_id,
        prefix=tuple(tokenizers.frame(tokenizer)[0]) if tokenizer is not None and texts else (),
        label_names=label_names,
        slice_names=slice_names,
        image_shape=(shape[0], shape[1], shape[2]) if tokenizer is None else None,
        documents={name: len(splits[name]) for name in SPLITS},
        tokens={name: len(splits[name].values) for name in SPLITS},
        cross_document_attention=ladder.data.cross_document_attention,
        completions=columns_of(ladder.data).conversations,
        pixels=pixels,
        picture=picture,
    )
