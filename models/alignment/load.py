"""Put a teacher with a tokenizer of its own behind that of a corpus."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from torch import nn

from conf.errors import UserError
from models.alignment.byte_tokens import ByteTokens, NoBytes
from models.alignment.teacher import AlignedTeacher
from models.data import tokenizers
from models.data.corpus import Corpus

OWN = "own_tokenizer.json"  # in the folder of a teacher in the store whose tokenizer is not that of its students


def write_own(folder: Path, tokenizer_hash: str) -> None:
    """Note in a teacher's folder that its tokenizer is another one."""
    (folder / OWN).write_text(json.dumps({"tokenizer": tokenizer_hash}), encoding="utf-8")


def joint_hash(weights: str, tokenizer_hash: str) -> str:
    """Hash of a model with a tokenizer of its own, on which its answers in others' ids depend, too."""
    return hashlib.sha256(f"{weights} with the tokenizer {tokenizer_hash}".encode()).hexdigest()


def fit_tokenizer(model: nn.Module, folder: Path, corpus: Corpus) -> nn.Module:
    """A model from the store as it answers in the corpus's ids: as it is, but for a teacher with a tokenizer of its own.

    Raises:
        UserError: One of the tokenizers does not stand for bytes.
    """
    if not (folder / OWN).is_file():
        return model
    own, students = common_bytes(folder, corpus)
    vocabulary = corpus.info.vocabulary
    assert vocabulary is not None
    return AlignedTeacher(model, own, students, vocabulary)


def common_bytes(teacher: Path, corpus: Corpus) -> tuple[ByteTokens, ByteTokens]:
    """The tokenizers of a teacher's folder and of a corpus, by their bytes.

    Raises:
        UserError: One of them does not stand for bytes; naming both.
    """
    assert corpus.tokenizer_folder is not None
    found = []
    for whose, folder in (("the teacher's", teacher), ("the students'", corpus.tokenizer_folder)):
        tokenizer = tokenizers.load(folder)
        try:
            found.append(ByteTokens(tokenizer))
        except NoBytes as error:
            both = f"{named(teacher)} of the teacher and {named(corpus.tokenizer_folder)} of the students, where {whose} {error}"
            raise UserError.about(
                "objective.alignment",
                both,
                "tokenizers whose ids stand for the bytes of UTF-8: byte-level BPE, or with byte fallback",
                "Learn from the teacher's texts instead: data.generate writes them, with objective.alignment text.",
            ) from error
    return found[0], found[1]


def named(folder: Path) -> str:
    """A tokenizer by its kind, its ids and its folder."""
    tokenizer = tokenizers.load(folder)
    return f"{type(tokenizer).__name__} with {tokenizers.id_count(tokenizer):,} ids in {folder}"
