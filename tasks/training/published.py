"""Write a finished model so that plain transformers uses it as trained.

It carries the names of its classes, a tokenizer that knows how long the texts of its training were, or the image processor by which its
pixels were made: `transformers.pipeline` needs no other settings.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, cast

from torch import nn

from models.architectures.checkpoint import save_model
from models.architectures.composite import language_config
from models.base.files import read_json
from models.data.corpus import Corpus
from models.data.image_processors import FILE as PROCESSOR
from models.data.image_processors import plain
from models.embeddings.sentence_folder import limit_length
from models.students.reduced_tokenizer import reduced_tokenizer
from models.students.vocabulary import KEPT, VocabularyMap, write_kept

TOKENIZER_SETTINGS = "tokenizer_config.json"
SAMPLING = ("do_sample", "temperature", "top_k", "top_p")  # of a generation_config.json


def write_published(model: nn.Module, folder: Path, corpus: Corpus, vocabulary: VocabularyMap | None, parent: Path | None = None) -> None:
    """Write model, tokenizer or image processor into an existing empty folder.

    Args:
        model: The trained model, on the processor.
        folder: Where to.
        corpus: Its training data.
        vocabulary: The ids that it has; None: all.
        parent: Folder of its teacher, whose habits of generation it takes; None: it has none.
    """
    if parent is not None:
        _generate_as(parent, model, vocabulary)
    info, tokenizer = corpus.info, corpus.tokenizer_folder
    if info.label_names:
        config = cast(Any, model).config
        config.id2label = dict(enumerate(info.label_names))
        config.label2id = {name: index for index, name in enumerate(info.label_names)}
    save_model(model, folder, tokenizer if vocabulary is None else None)
    if vocabulary is not None and tokenizer is not None:
        reduced_tokenizer(tokenizer, vocabulary.kept, folder)
        write_kept(vocabulary, folder)
    if tokenizer is not None:
        _limit(folder, info.sequence_length)
        limit_length(folder, info.sequence_length)
    if info.image_shape is not None:
        _write_processor(folder, corpus.processor_folder, info.image_shape)


def _generate_as(parent: Path, model: nn.Module, vocabulary: VocabularyMap | None) -> None:
    """Take over how a language model's teacher samples unless told otherwise, and the ids that end its answers."""
    student = cast(Any, model)
    if not student.can_generate() or not (parent / "generation_config.json").is_file():
        return
    from transformers import GenerationConfig

    given, own = GenerationConfig.from_pretrained(str(parent), local_files_only=True), student.generation_config
    ends = given.eos_token_id if isinstance(given.eos_token_id, list) else [given.eos_token_id]
    if vocabulary is not None and not (parent / KEPT).is_file():
        ends = [int(vocabulary.table[end]) for end in ends if end is not None and end < len(vocabulary.table)]
    if own.eos_token_id in ends and len(ends) > 1:
        own.eos_token_id = [end for end in ends if end is not None and 0 <= end < language_config(student.config).vocab_size]
    for key in SAMPLING:
        setattr(own, key, getattr(given, key))


def write_missing(folder: Path, corpus: Corpus, target: Path) -> None:
    """Write the tokenizer or the image processor that a model folder lacks, such as an imported checkpoint's, into an empty folder."""
    info, tokenizer = corpus.info, corpus.tokenizer_folder
    if tokenizer is not None and not (folder / TOKENIZER_SETTINGS).is_file():
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(str(tokenizer), local_files_only=True, trust_remote_code=False).save_pretrained(str(target))
    if info.image_shape is not None and not (folder / PROCESSOR).is_file():
        _write_processor(target, corpus.processor_folder, info.image_shape)


def _limit(folder: Path, length: int) -> None:
    """Make a tokenizer cut texts as they were cut in training, wherever it is asked to: behind `length` ids, specials included."""
    path = folder / TOKENIZER_SETTINGS
    settings = read_json(path) if path.is_file() else {}
    path.write_text(
        json.dumps({**settings, "model_max_length": length, "truncation_side": "right"}, indent=2, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )


def _write_processor(folder: Path, processor: Path | None, image: tuple[int, int, int]) -> None:
    if processor is None:  # arrays in [0, 1], which were never pictures
        channels, height, width = image
        plain((height, width), channels).save_pretrained(str(folder))
        return
    for path in processor.iterdir():
        shutil.copy(path, folder / path.name)
