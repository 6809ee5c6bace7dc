"""A student before its first step: its vocabulary, its first weights, and how good it is then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from conf.schema.ladder import Student
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.students.importance import Importance
from models.students.initialise import make_student
from models.students.vocabulary import VocabularyMap, read_kept, reduced, resize, used_ids
from tasks.runtime.logs import log
from tasks.training.find_or_train import interface_of

IMPORTANCE = "importance.json"  # beside a pruned student's weights
AT_ONCE = 8  # sequences that importance is measured on at a time


def vocabulary_of_student(choice: str, corpus: Corpus) -> VocabularyMap | None:
    """The ids that a student keeps of the corpus's; None: all.

    Raises:
        UserError: `used` is asked for and the corpus's tokenizer is no BPE.
    """
    return VocabularyMap(used_ids(corpus)) if choice == "used" else None


def fit(teacher: nn.Module, folder: Path, vocabulary: VocabularyMap | None, key: str = "student.vocabulary") -> nn.Module:
    """Make a teacher from the store speak a student's vocabulary, in place.

    Raises:
        UserError: It lacks ids of the student's.
    """
    own = read_kept(folder)
    if own == vocabulary:
        return teacher
    if vocabulary is None:
        from conf.errors import UserError

        allowed = "used, as its teacher has only the ids that the data use"
        raise UserError.about(key, "teacher", allowed, "A student's vocabulary cannot be larger than its teacher's.")
    return resize(teacher, vocabulary.within(own, key))


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
    corpus = reduced(corpus, vocabulary_of_student(student.vocabulary, corpus))
    file = aside / IMPORTANCE
    known = Importance.from_json(file.read_text()) if file.is_file() else None

    count = min(student.samples, TrainingBatches(corpus, 1, seed).examples)

    def batches() -> Iterator[Batch]:
        at_once = min(AT_ONCE, count)
        source = TrainingBatches(corpus, at_once, seed)
        for step in range(-(-count // at_once)):
            yield source.at(step)

    if student.initialisation == "prune" and known is None:
        log.info("judging channels, heads and layers of the teacher by %d sequences", count)
    made = make_student(student, teacher, interface_of(corpus), seed, key, batches=batches, known=known)
    if made.importance is not None and known is None:
        part = file.with_suffix(".part")
        part.write_text(made.importance.to_json())
        part.replace(file)
    return made.model
