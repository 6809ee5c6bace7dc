"""Prepares the arms of a proof on its data: ladders, seeds, FLOPs of models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import Loaded
from conf.schema.ladder import Ladder
from conf.schema.measures.proof import BY_DEFAULT, ROUTE_ARMS, Arm
from models.base.files import read_json
from models.base.numerics import NUMERICS
from tasks.planning.matching import direct
from tasks.proof.arms import (
    MATCHED_TO_STEPS,
    ForwardFlops,
    auto_arm,
    impossible,
    refuse,
    replicate,
    rewritten,
    scratch,
    shared_settings,
    starts_from_root,
    watched,
)
from tasks.records.run import DataRecord
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.training.costs.cost_model import Forward
from tasks.training.costs.examples import training_examples
from tasks.training.identity import numeric_settings, untaught

KIND = "prices"  # part of the store
AUTO_SEEDS = 500_000  # added to the seeds of auto in a budget, whose trainings are no other arm's
WITHOUT_TEACHER: tuple[Arm, ...] = ("scratch", "label-smoothing")


class Arms(NamedTuple):
    """The arms of a proof, the most wanted first.

    Attributes:
        ladders: As rewritten, with the ladder's own seeds.
        base: The ladder with the settings that all arms share.
        forwards: Operations of their models.
        notes: Why other arms were left out.
    """

    ladders: dict[Arm, Ladder]
    base: Ladder
    forwards: ForwardFlops
    notes: tuple[str, ...]

    def replicate(self, arm: Arm, number: int, taken: Sequence[int] | None = None) -> Ladder:
        """The ladder of an arm's `number`-th seed.

        Args:
            arm: Which.
            number: From 0.
            taken: Steps that the trainings of `staged` took with this seed, which matched arms follow; None: not trained.
        """
        if arm in MATCHED_TO_STEPS:
            return rewritten(arm, replicate(self.base, number), self.forwards, taken)
        return replicate(self.ladders[arm], number)


def arms_of(ladder: Ladder, data: DataRecord, context: Context) -> Arms:
    """Rewrite the ladder into its arms, each with the FLOPs that it is to have.

    Raises:
        UserError: An arm that is named cannot be, or less than two arms can.
    """
    base, wanted = shared_settings(ladder, data.corpus().info), ladder.proof.arms or BY_DEFAULT
    if not ladder.proof.arms and ladder.route == "auto":
        wanted = (*wanted, "auto")  # what `ladder run` makes
    forwards, unfit = _forwards(base, wanted, data, context)
    made, notes = dict[Arm, Ladder](), list[str]()
    for arm in wanted:
        try:
            refuse(arm, base)
            if unfit and starts_from_root(arm, base):
                raise _unfit(arm, unfit)
            made[arm] = auto_arm(base, ladder) if arm == "auto" else rewritten(arm, base, forwards)
        except UserError as error:
            if ladder.proof.arms:
                raise
            notes.append(str(error).removeprefix("proof.arms: "))
    if len(made) < 2:
        raise UserError.about("proof.arms", ", ".join(made) or "none", "two arms or more", " ".join(notes))
    return Arms(made, base, forwards, (*label_note(data, made), *(f"left out: {note}" for note in notes)))


def label_note(data: DataRecord, arms: Iterable[Arm]) -> list[str]:
    """Labelled and unlabelled examples that the arms learned from, where not every training example has a label."""
    if data.counts is None or data.counts.labels_in_words is None:
        return []
    alone = " and ".join(arm for arm in arms if arm in WITHOUT_TEACHER)
    repeated = f" {alone}: the labelled examples alone, repeated until the FLOPs are the ladder's." if alone else ""
    return [data.counts.labels_in_words + repeated]


def all_trainings(loaded: Loaded, home: Home) -> list[Ladder]:
    """Every ladder that a proof trains: all arms with all seeds, and the controls of the first one's audits."""
    from tasks.data.prepare import prepare_data

    whole = loaded.ladder.model_copy(update={"proof": loaded.ladder.proof.model_copy(update={"pilot": False})})
    context = Context(run="calibration", ladder=whole.name, home=str(home.root), base=str(loaded.base))
    arms = arms_of(whole, prepare_data(whole, context), context)
    staged = arms.ladders.get("staged")
    controls = [staged.model_copy(update={"stages": tuple(map(untaught, staged.stages))})] if staged else []
    # Pilots and winner of auto take what the ladder takes, in trainings of their own: as if it were the ladder with other seeds.
    ladders = [
        replicate(arms.base, AUTO_SEEDS + number) if arm == "auto" else arms.replicate(arm, number)
        for number in range(whole.proof.seeds)
        for arm in arms.ladders
    ]
    return ladders + (controls if watched(whole, looked_at=True).audit.control else [])


def _forwards(ladder: Ladder, wanted: Sequence[Arm], data: DataRecord, context: Context) -> tuple[ForwardFlops, str]:
    """Operations of the arms' models, counted once; and why the last student cannot start from the root, if so."""
    students = [numeric_settings(stage.student) for stage in ladder.stages]
    teacher = ladder.teacher.model_dump(mode="json", exclude={"training"})
    cached = any(stage.signals.source == "cached" for stage in ladder.stages) or any(arm in (*ROUTE_ARMS, "auto") for arm in wanted)
    identity = {"kind": KIND, "numerics": NUMERICS, "law": 2, "students": students, "teacher": teacher, "data": data.content_hash}
    identity["cached"] = cached

    def count() -> Write:
        counted = json.dumps(_counted(ladder, data, context, cached))
        return lambda folder: folder.joinpath("prices.json").write_text(counted, encoding="utf-8")

    found = find_or_compute(store_of(context), Entry(KIND, ladder.name, identity, _prices), context.made, count)
    return _prices(found.folder)


def _prices(folder: Path) -> tuple[ForwardFlops, str]:
    stored = read_json(folder / "prices.json")
    return ForwardFlops.model_validate(stored["forwards"]), str(stored["unfit"])


def refuse_unfit(ladder: Ladder, context: Context) -> None:
    """Refuse a named arm whose student cannot start from the root, as far as that is known before the data are prepared.

    Raises:
        UserError: With the difference of their shapes.
    """
    named: list[Arm] = [arm for arm in ladder.proof.arms if starts_from_root(arm, ladder)]
    if named and ladder.stages[-1].student.initialisation != "random":
        from tasks.planning.preflight import check_ladder

        try:
            check_ladder(direct(ladder), context)
        except UserError as error:
            raise _unfit(named[0], str(error)) from None


def _unfit(arm: Arm, error: str) -> UserError:
    reason = error.partition("Here ")[2].partition(". ")[0] or error.rstrip(".")
    return impossible(arm, f"an arm whose last student does not start from the root, since {reason}", "Leave it out.")


def _counted(ladder: Ladder, data: DataRecord, context: Context, cached: bool) -> dict[str, Any]:
    from tasks.planning.preflight import check_ladder  # torch is imported where something is computed

    corpus = data.corpus()
    root, sizes = check_ladder(ladder, context, corpus)
    assert root is not None or ladder.teacher.source == "answers"  # which cost nothing; a teacher is prepared before the arms
    unfit, single = "", sizes[-1]
    try:
        _, (single,) = check_ladder(direct(ladder), context, corpus)
    except UserError as error:
        unfit = str(error)
    _, (alone,) = check_ladder(scratch(ladder), context, corpus)
    forwards = ForwardFlops(
        root=Forward.of(root),
        students=tuple(map(Forward.of, sizes)),
        direct=Forward.of(single),
        scratch=Forward.of(alone),
        examples=training_examples(corpus, cached),
    )
    return {"forwards": forwards.model_dump(mode="json"), "unfit": unfit}
