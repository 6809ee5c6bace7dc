"""Initialise a student: its vocabulary, its first weights, their quality."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from conf.atomic import write_atomic
from conf.schema.stage.student import Student
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.multimodal.checks import check_features, check_space
from models.students.importance import Importance
from models.students.initialise import make_student
from models.students.vocabulary import reduce_corpus, student_vocabulary
from tasks.runtime.logs import log

IMPORTANCE = "importance.json"  # beside a pruned student's weights
AT_ONCE = 8  # sequences that importance is measured on at a time


def initialise(student: Student, teacher: nn.Module, corpus: Corpus, seed: int, key: str, aside: Path) -> nn.Module:
    """A student with its first weights.

    Args:
        student: Its settings.
        teacher: It speaks the student's vocabulary already.
        corpus: In the full vocabulary.
        seed: Of random weights, and of the sequences by which importance is judged.
        key: Dotted key of the student in the settings.
        aside: Folder that keeps the importance that was measured, and has it when an interrupted training is resumed.

    Raises:
        UserError: The teacher does not allow this initialisation.
    """
    corpus = reduce_corpus(corpus, student_vocabulary(student.vocabulary, corpus))
    file = aside / IMPORTANCE
    known = Importance.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None

    count = min(student.samples, TrainingBatches(corpus, 1, seed).examples)

    def batches() -> Iterator[Batch]:
        at_once = min(AT_ONCE, count)
        source = TrainingBatches(corpus, at_once, seed)
        for step in range(-(-count // at_once)):
            yield source.at(step)

    if student.initialisation == "prune" and known is None:
        log.info("judging channels, heads and layers of the teacher by %d sequences", count)
    made = make_student(student, teacher, corpus.interface, seed, key, batches=batches, measured=known)
    if corpus.info.picture is not None:
        named = f"{key}.{'path' if student.source == 'checkpoint' else 'config'}"
        check_features(made.model, corpus, named, type(made.model).__name__)
        if not corpus.info.picture.count:
            check_space(made.model, teacher, corpus, named, type(made.model).__name__)
    if made.importance is not None and known is None:
        write_atomic(file, made.importance.to_json())
    return made.model
