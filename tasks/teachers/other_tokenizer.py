"""A root teacher whose tokenizer is not that of its students."""

from __future__ import annotations

from pathlib import Path

from conf.errors import UserError
from conf.schema.checks.answers import is_by_root
from conf.schema.ladder import Ladder
from models.alignment.load import common_bytes, named
from models.data import tokenizers
from models.data.corpus import Corpus
from tasks.teachers.fit import TOKENIZER


def other_tokenizer(teacher: Path, ladder: Ladder, corpus: Corpus) -> str | None:
    """Hash of a teacher's tokenizer where it is another than the corpus's and the stages are set to learn from it; else None.

    Raises:
        UserError: Some of the stages are not, or would take weights of the teacher, or one of the tokenizers does not stand for bytes.
    """
    students = corpus.tokenizer_folder
    if not ladder.aligns or students is None or not any((teacher / name).is_file() for name in TOKENIZER):
        return None
    if tokenizers.load(teacher).get_vocab() == tokenizers.load(students).get_vocab():
        return None
    both = f"{named(teacher)} of the teacher and {named(students)} of the students"
    for index, stage in enumerate(ladder.stages):
        key, by_root = f"stages[{index}]", is_by_root(stage, index == 0)
        if by_root and stage.objective.alignment == "none":
            raise UserError.about(f"{key}.objective.alignment", "none", f"bytes, uld or text, for {both}", "Choose one, or other teachers.")
        if index == 0 and stage.student.initialisation != "random":
            allowed = f"random, for {both}: embedding and head would be of other ids"
            raise UserError.about(f"{key}.student.initialisation", stage.student.initialisation, allowed, "Choose random.")
        if stage.student.vocabulary == "used":
            raise UserError.about(f"{key}.student.vocabulary", "used", f"teacher, for {both}", "Leave it out.")
    common_bytes(teacher, corpus)
    return tokenizers.tokenizer_hash(teacher)
