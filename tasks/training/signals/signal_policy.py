"""Choose live or cached signals for a stage, and estimate a cache's size.

Part of the choice belongs to the stage's identity. Decided before anything runs, from the settings and the prepared data alone. No torch.
"""

from __future__ import annotations

from typing import NamedTuple

from conf.errors import UserError
from conf.schema.ladder import Ladder
from conf.schema.stage.compatibility import check_members, check_objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.stage import Stage
from conf.schema.workloads import answers_in_ids
from models.base.interface import Interface
from models.data.corpus import CorpusInfo
from tasks.training.teaching import planned_teaching

MOST_FULL = 4096  # ids or classes up to which every log-probability may be stored: 8 KB a token
# Bytes of a row as `python -m benchmarks.signals` measures them on language; a plan's estimate, a run's record has the real figure.
SAMPLED_BYTES = 0.386  # for each draw: 19.3 bytes for 50
TOP_K_BYTES = 1.5  # for each id


class Choice(NamedTuple):
    """Live or cached, and why."""

    cached: bool
    reason: str


def examples_of(info: CorpusInfo) -> int:
    """Training examples of one epoch: windows of packed documents for causal-lm, documents else."""
    packed = info.workload == "causal-lm" and not info.completions
    return (info.tokens["train"] - 1) // info.sequence_length if packed else info.documents["train"]


def choose(stage: Stage, ladder: Ladder, info: CorpusInfo | None, trainings: int = 1) -> Choice:
    """Live or cached.

    `auto` caches where `students x epochs > 1`: the teacher's answer to an example is then used more than once, and nothing here
    augments examples or lets the student write them, so that it would be the same each time.

    Args:
        stage: Its settings.
        ladder: The ladder, whose other stages may have the same teacher.
        info: Of the prepared data; None: not prepared yet.
        trainings: Of each student with the same teacher and examples, such as a pilot and the final one.
    """
    signals, alpha = stage.signals, stage.objective.alpha
    if not (alpha.start or alpha.end):
        return Choice(False, "alpha is 0, so no teacher is asked")
    if stage.teachers == ("none",):
        return Choice(False, "no teacher is asked")
    if signals.on_policy:
        return Choice(False, "the student writes the text")
    if ladder.is_aligned(stage):
        return Choice(False, f"alignment {stage.objective.alignment}: the teacher's ids are others, so it answers live")
    if ladder.has_token_answers(stage) and signals.source != "cached":
        return Choice(False, "the root's answers are a file")
    if signals.source != "auto":
        return Choice(signals.source == "cached", "as set")
    try:
        several = 1 if stage.teachers in (("parent",), ("root",), ("best",)) else 2
        check_objective(stage.objective, ladder.workload, signals.kind, key="objective", teachers=several)
        if stage in ladder.stages and planned_teaching(ladder, ladder.stages.index(stage)).has_members:
            check_members(stage.objective, signals.kind, key=stage.name)
    except UserError as error:
        return Choice(False, f"auto: {error}")
    students = trainings * _students(stage, ladder)
    if info is None and students * stage.training.passes == 1:
        return Choice(False, "auto; decided anew once the data are prepared")
    epochs = max(stage.training.steps * stage.training.batch_size / examples_of(info), 1.0) if info else 1.0
    epochs = max(epochs, stage.training.passes)
    often = students * epochs > 1
    return Choice(often, f"auto: {students} student{'s' if students > 1 else ''} x {epochs:.3g} epochs {'>' if often else '='} 1")


def chosen_signals(stage: Stage, ladder: Ladder, info: CorpusInfo) -> Signals | None:
    """The signals in a stage's cache; None where its teacher answers live."""
    return stage.signals if choose(stage, ladder, info).cached else None


def settled_signals(stage: Stage, ladder: Ladder, info: CorpusInfo | None, trainings: int = 1) -> Signals:
    """A stage's signals with the choice of `auto` made, see `choose`; a student that writes its text goes on to."""
    if stage.signals.on_policy:
        return stage.signals
    return stage.signals.model_copy(update={"source": "cached" if choose(stage, ladder, info, trainings).cached else "live"})


def size_of_signals(signals: Signals, outputs: int) -> int:
    """Ids or draws of a row; every output for `full`."""
    return {"sampled": signals.draws, "top-k": signals.k}.get(signals.kind, outputs)


def describe(signals: Signals) -> str:
    """In words: `sampled, 50 draws`."""
    return {"sampled": f"sampled, {signals.draws} draws", "top-k": f"top-k, {signals.k} ids"}.get(signals.kind, signals.kind)


def check_signals(ladder: Ladder, interface: Interface) -> None:
    """Refuse signals that do not fit the vocabulary or the classes.

    Raises:
        UserError: More ids are to be kept than there are, or all of a large vocabulary.
    """
    outputs = outputs_of(interface)
    for index, stage in enumerate(ladder.stages):
        signals, key = stage.signals, f"stages[{index}].signals"
        if signals.source in ("live", "on-policy"):
            continue
        if signals.kind == "top-k" and signals.k > outputs:
            what = f"at most the {outputs} ids or classes of the data"
            raise UserError.about(f"{key}.k", signals.k, what, "Lower it, or set signals.kind to full.")
        if signals.kind == "full" and outputs > MOST_FULL:
            what = f"full for at most {MOST_FULL} ids or classes; the data have {outputs}"
            raise UserError.about(f"{key}.kind", signals.kind, what, "Set it to sampled or top-k.")


def outputs_of(interface: Interface) -> int:
    """Ids or classes that a model's answer has."""
    return (interface.vocabulary if answers_in_ids(interface.workload) else None) or interface.classes


def estimated_bytes(signals: Signals, outputs: int) -> float:
    """Bytes of a row: exact for `full`, measured on language else; small vocabularies take less."""
    if signals.kind == "full":
        return 2.0 * outputs
    return SAMPLED_BYTES * signals.draws if signals.kind == "sampled" else TOP_K_BYTES * signals.k


def _students(stage: Stage, ladder: Ladder) -> int:
    """Most stages that train with one of this stage's teachers on the same signals."""
    if stage not in ladder.stages:
        return 1  # an assistant that a gate had inserted

    def teachers(index: int) -> set[int]:
        """Numbers of a stage's teachers, 0 for the root."""
        named = {"root": {0}, "parent": {index}, "ancestors": set(range(index + 1)), "none": set()}
        named |= {"rising": named["ancestors"], "checkpoints": {0}, "best": named["ancestors"]}
        return set[int]().union(*(named[who] for who in ladder.stages[index].teachers))

    own = teachers(ladder.stages.index(stage))
    alike = [i for i, other in enumerate(ladder.stages) if other.signals == stage.signals]
    return max(sum(ladder.stages[i].members for i in alike if teacher in teachers(i)) for teacher in own)
