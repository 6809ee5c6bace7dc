"""Checks that an existing teacher fits the settings, and then the prepared data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from conf.errors import UserError, foreign_errors
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from conf.schema.workloads import answers_in_ids, has_classes, reads_pictures
from models.architectures.checkpoint import check_interface, check_sizes, skeleton
from models.architectures.composite import language_config
from models.architectures.configs import build_from, positions_of
from models.base.files import read_json
from models.data import tokenizers
from models.data.classes import classes_in, match_classes
from models.data.corpus import Corpus
from models.multimodal import processors
from models.multimodal.checks import check_features, check_space
from models.students.initialise import student_config
from models.students.new_head import missing_head

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def check_checkpoint(folder: Path, ladder: Ladder) -> nn.Module:
    """The model of a checkpoint on the meta device, after it was compared with the settings; no data are read.

    Args:
        folder: A checked folder.
        ladder: Its sequence length, tokenizer and workload count.

    Raises:
        UserError: Its tensors have other sizes than its configuration says, it has fewer positions than a sequence, fewer rows than its
            tokenizer has ids, no end id to pad with, or another task.
    """
    model = skeleton(folder, ladder.workload)
    config, training = cast(Any, model).config, getattr(ladder.teacher, "training", None)
    lacks = missing_head(model, folder) if has_classes(ladder.workload) and training is None else None
    if lacks is not None:
        found = f"{folder}, which has no head for classes ({lacks} is missing)"
        remedy = "Train it on your data before it teaches: teacher.training={steps: 500}. It gets a head for their classes."
        raise UserError.about("teacher.path", found, f"a checkpoint trained for {ladder.workload}, or one with teacher.training", remedy)
    if training is None:  # else a head of other classes is replaced
        check_sizes(folder, model)
    if ladder.workload == "image-classification":
        return model
    if reads_pictures(ladder.workload):
        processors.load(folder, writes=answers_in_ids(ladder.workload))
    if ladder.tokenizer.kind == "bytes" and not ladder.aligns:
        made = tokenizers.bytes_tokenizer()
        _compare_vocabulary(folder, made if ladder.workload == "causal-lm" else tokenizers.append_end(made))
    own = ladder.tokenizer.kind == "teacher" and any((folder / name).is_file() for name in TOKENIZER)
    tokenizer = tokenizers.load_teacher(folder) if own else None
    most, length = positions_of(model), ladder.data.sequence_length
    if most is not None and tokenizer is not None and ladder.workload == "causal-lm":
        most -= max(len(tokenizers.frame(tokenizer)[0]) - 1, 0)  # a held-out text has its whole beginning before the first predicted id
    counts = ladder.tokenizer.kind == "teacher" or not ladder.aligns  # else a sequence is not so many ids of the teacher
    if most is not None and counts and length > most:
        allowed = f"sequence_length <= {most}, the positions of the teacher in {folder}"
        raise UserError.about("data.sequence_length", length, allowed, f"Set data.sequence_length={most}; longer texts are cut or split.")
    if training is None and getattr(config, "problem_type", None) in ("regression", "multi_label_classification"):
        allowed = "a teacher that gives each text one class of several"
        raise UserError.about("teacher.path", f"{folder} with problem_type {config.problem_type}", allowed, "Use another teacher.")
    if tokenizer is not None:
        ids = tokenizers.id_count(tokenizer)
        if ids > (rows := language_config(config).vocab_size):
            allowed = f"a tokenizer whose largest id is below the embedding's rows, {rows}"
            remedy = "Save the tokenizer that the model was trained with, or resize the model's embedding to the tokenizer."
            raise UserError.about("teacher.path", f"{folder} with a tokenizer of ids up to {ids - 1}", allowed, remedy)
    return model


def check_corpus(folder: Path, model: nn.Module, teacher: CheckpointTeacher, corpus: Corpus) -> None:
    """Refuse a teacher that does not answer in the ids and classes of the data, in their order.

    Raises:
        UserError: Vocabulary or classes differ.
    """
    _check_vocabulary(folder, corpus)
    if corpus.info.label_names and teacher.training is not None:
        return  # a head that does not fit is replaced
    check_interface(model, corpus.interface, folder)
    if corpus.info.label_names:
        match_classes(corpus.info.label_names, teacher.classes or classes_in(folder), numbered=True)


def check_forward(folder: Path, model: nn.Module, corpus: Corpus) -> None:
    """Refuse a teacher that cannot read a text as long as the data's, or a language model that sees the id that it predicts.

    Raises:
        UserError: With transformers' message, or with the key, value and remedy.
    """
    if corpus.info.picture is not None:
        check_features(model, corpus, "teacher.path", str(folder))
        return
    length, split = corpus.info.sequence_length, corpus.split("train")
    if corpus.info.image_shape is not None or not len(split.values):
        return
    most = int(getattr(cast(Any, model).config, "vocab_size", 0)) or int(split.values.max()) + 1
    ids = torch.from_numpy(np.resize(split.values.astype(np.int64), (1, length))) % most  # a teacher may have other ids
    language = corpus.info.workload == "causal-lm"
    body = cast(Any, model).base_model if language else model  # without the head, whose logits take memory
    allowed, remedy = (
        f"a model that reads {length} ids, as data.sequence_length",
        "Correct its config.json, or shorten data.sequence_length.",
    )
    with foreign_errors("teacher.path", str(folder), allowed, remedy), torch.no_grad():
        answers = body.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
        ids[0, -1] = (ids[0, -1] + 1) % min(int(split.values.max() + 1), most)
        other = body(input_ids=ids, attention_mask=torch.ones_like(ids))[0] if language else answers
    if not torch.allclose(answers[:, :-1], other[:, :-1], rtol=1e-4, atol=1e-5, equal_nan=True):
        remedy = "Its answers depend on ids that come later: it is an encoder, which can teach sequence-classification."
        raise UserError.about("teacher.path", str(folder), "a causal language model", remedy)


def check_students(model: nn.Module, ladder: Ladder, corpus: Corpus) -> None:
    """Refuse students of pictures with texts that make other features of a picture than the teacher, before anything is trained.

    Each is built with random weights, as the features are counted by running it.

    Args:
        model: The teacher.
        ladder: With every student in full.
        corpus: The prepared data.

    Raises:
        UserError: Naming the student's configuration.
    """
    if corpus.info.picture is None:
        return
    above = model
    for index, stage in enumerate(ladder.stages):
        key = f"stages[{index}].student"
        if not isinstance(stage.student.config, dict):
            return  # a checkpoint is run when its turn comes, and so are those below it
        config = student_config(stage.student, above, corpus.interface, key)
        made = build_from(config, ladder.workload, f"{key}.config")
        check_features(made, corpus, f"{key}.config", config.model_type)
        if not corpus.info.picture.count:
            check_space(made, above, corpus, f"{key}.config", config.model_type)
        above = made


def missing_pad(model: nn.Module, corpus: Corpus) -> int | None:
    """The id that a classifier's configuration needs to find the last id of a padded text; None: it has it, or needs none.

    Decoders (their head is called `score`) judge by the last position that holds another id than `pad_token_id`.
    """
    decoder = corpus.info.workload == "sequence-classification" and hasattr(model, "score")
    return corpus.info.pad_id if decoder and cast(Any, model).config.pad_token_id != corpus.info.pad_id else None


def _check_vocabulary(teacher: Path, corpus: Corpus) -> None:
    """Ids must mean the same to teacher and students, whatever their number."""
    folder = corpus.tokenizer_folder
    if folder is not None:
        _compare_vocabulary(teacher, tokenizers.load(folder))


def _compare_vocabulary(teacher: Path, own: PreTrainedTokenizerBase) -> None:
    if any((teacher / name).is_file() for name in TOKENIZER):
        theirs, ours = tokenizers.load(teacher).get_vocab(), own.get_vocab()
        size, same = len(theirs), theirs == ours
    else:  # nothing but the size to compare, so not even padding is allowed
        size = read_json(teacher / "config.json")["vocab_size"]
        same = size == tokenizers.id_count(own)
    if not same:
        raise UserError.about(
            "teacher.path",
            f"{teacher} with a vocabulary of {size} ids",
            f"the students' vocabulary, which has {len(own)} ids here",
            "Teacher and students must share one vocabulary: set tokenizer.kind=teacher. "
            "For causal-lm they may differ with objective.alignment.",
        )
