"""Compare a search's winner with the defaults, on fresh seeds and the test split."""

from __future__ import annotations

from collections.abc import Sequence

from models.base.statistics import interval, outcome
from tasks.records.proof import Estimate
from tasks.records.routes.search import Confirmation
from tasks.search.plan import SearchPlan
from tasks.search.trial import TrialOutcome

LIKELIHOODS = ("nll", "perplexity", "ece")  # figures without a smallest difference of interest of their own
SMALLEST = 0.01


def fresh_seeds(plan: SearchPlan) -> tuple[int, ...]:
    """The seeds of the confirmation, of the last stage: as many as `search.seeds` after the one that is searched on."""
    last = next(stage for stage in plan.ladder.stages if stage.name == plan.stages[-1])
    return tuple((plan.ladder.stage_seed(last) + number) % 2**31 for number in range(1, plan.settings.seeds + 1))


def confirmation_of(
    plan: SearchPlan, winner: Sequence[TrialOutcome], defaults: Sequence[TrialOutcome], examples: int
) -> Confirmation | None:
    """Compare what was trained so far; None before two seeds.

    Args:
        plan: The search.
        winner: Students of the winner by seed, judged on the test split.
        defaults: Students of the ladder's own settings.
        examples: Held-out rows of a score.
    """
    if min(len(winner), len(defaults)) < 2:
        return None
    scores = [[each.students[-1].metrics[plan.metric] for each in trained] for trained in (winner, defaults)]
    sign = 1.0 if plan.more_is_better else -1.0
    gains = tuple(sign * (a - b) for a, b in zip(*scores, strict=True))
    settings, ladder = plan.ladder.proof, plan.ladder
    resolution = 1 / examples if plan.metric == "accuracy" and examples else 0.0
    gain, delta = interval(gains, settings.confidence, resolution), smallest(plan)
    return Confirmation(
        seeds=fresh_seeds(plan)[: len(gains)],
        winner=tuple(scores[0]),
        defaults=tuple(scores[1]),
        gains=gains,
        gain=Estimate.of(gain),
        confidence=ladder.proof.confidence,
        delta=delta,
        outcome=outcome(gain, delta),
        fingerprints=tuple(student.fingerprint for trained in (winner, defaults) for each in trained for student in each.students),
    )


def smallest(plan: SearchPlan) -> float:
    """The smallest difference of interest: `proof.delta`, or its default for the metric."""
    own = plan.ladder.proof.delta
    return SMALLEST if own is None and plan.metric in LIKELIHOODS else plan.ladder.proof.least(plan.ladder.workload)
