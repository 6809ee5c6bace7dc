"""Verdicts that are taken again after more seeds: interval over all looks, advice.

A verdict that is undecided asks for more seeds, and whoever adds them looks twice: intervals made for one look then err in 9 of 100 proofs
where 5 are said. Here every look adds its own seeds, whose evidence is independent of all that was seen before, so that their number may
follow from it. The p-values of the looks are combined with weights fixed beforehand (inverse normal; Lehmacher and Wassmer 1999,
doi:10.1111/j.0006-341X.1999.01286.x), and each look spends its share of the permitted error (Bonferroni): the intervals of all looks hold
the true mean together with the confidence said, however many seeds were added, why, and how often.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from conf.schema.measures.proof import FIRST_LOOK
from models.base.statistics import Interval, Method, SeedEvidence, evidence_of

GROWTH = 4  # seeds in all, from look to look, for which the weights are best
LEAST = 3  # seeds of a first look: how far seeds scatter cannot be told from two
POWER = 0.8  # probability with which the advised number of seeds decides
MOST = 1000  # no larger number of seeds is advised


def error_of(look: int, confidence: float = 0.95) -> float:
    """The error that a look may make, each later one half of the rest: 4 %, 0.5 %, 0.25 %, ...; in all `1 - confidence`."""
    return (1 - confidence) * (FIRST_LOOK if look == 1 else (1 - FIRST_LOOK) / 2 ** (look - 1))


def weight_of(look: int) -> float:
    """The weight of a look's evidence: the root of its new seeds, had all seeds grown fourfold at each look."""
    return 1.0 if look == 1 else math.sqrt((GROWTH - 1) * GROWTH ** (look - 2))


def interval_at(
    looks: Sequence[Sequence[float]],
    confidence: float = 0.95,
    resolution: float = 0.0,
    method: Method = "t",
    number: int | None = None,
) -> Interval:
    """The mean of paired differences and its interval at the last of several looks.

    Args:
        looks: Differences that each look added, two at least of each; the last one is this look.
        confidence: Probability with which the intervals of all looks hold the true mean, all of them.
        resolution: Step of the score, as for `models.base.statistics.interval`.
        method: How each look's seeds are judged.
        number: Of this look; None: as many as `looks`.

    Raises:
        ValueError: A look added fewer than two values, or one that is not finite.
    """
    samples = [evidence_of(each, resolution, method) for each in looks]
    tail = error_of(number or len(samples), confidence) / 2
    values = np.concatenate([np.asarray(each, dtype=np.float64) for each in looks])
    mean, sd = float(values.mean()), max(float(values.std(ddof=1)), resolution / math.sqrt(6))
    if len(samples) == 1:
        low, high = samples[0].limits(tail)
    else:
        low, high = _end(samples, mean, tail, -1), _end(samples, mean, tail, 1)
    used: Method = method if method == "sign-flip" else max(samples, key=lambda sample: sample.size).method
    return Interval(mean, low, high, sd, len(values), used)


def _combined(samples: Sequence[SeedEvidence], mean: float, sign: int) -> float:
    """Evidence of all looks that the true mean is above (1) or below (-1) a number, a standard normal value where it is that number."""
    weights = [weight_of(look) for look in range(1, len(samples) + 1)]
    each = [sample.above(mean) if sign > 0 else sample.below(mean) for sample in samples]
    return sum(w * z for w, z in zip(weights, each, strict=True)) / math.hypot(*weights)


def _end(samples: Sequence[SeedEvidence], mean: float, tail: float, sign: int) -> float:
    """The end of the interval below (-1) or above (1) the mean, where the evidence just rejects; at least the mean itself."""
    from scipy.special import ndtri

    bound = -float(ndtri(tail))

    def rejected(distance: float) -> bool:
        return _combined(samples, mean + sign * distance, -sign) >= bound

    if rejected(0.0):
        return mean
    far = max(sample.error for sample in samples) or abs(mean) or 1.0
    for _ in range(60):
        if rejected(far):
            return mean + sign * _boundary(rejected, far)
        far *= 2
    return sign * math.inf


def _boundary(rejected: Callable[[float], bool], far: float) -> float:
    near = 0.0
    for _ in range(48):
        middle = (near + far) / 2
        near, far = (near, middle) if rejected(middle) else (middle, far)
    return far


def seeds_to_decide(
    looks: Sequence[Sequence[float]],
    delta: float,
    confidence: float = 0.95,
    resolution: float = 0.0,
    method: Method = "t",
    number: int | None = None,
) -> int | None:
    """Seeds in all with which the next look would decide with probability 0.8, if mean and spread stay as they are.

    Normal differences are assumed. The new seeds have to bring the combined evidence over the next look's bound: they have to show the
    mean's distance from zero where it is delta at least, and else its distance from delta.

    Args:
        looks: Differences that each look added, as for `interval_at`.
        delta: Smallest difference of interest.
        confidence: Of the intervals.
        resolution: Step of the score.
        method: How each look's seeds are judged.
        number: Of looks taken; None: as many as `looks`.

    Returns:
        Seeds in all, not more; None: more than 1,000.
    """
    from scipy.special import ndtr, ndtri, stdtrit

    now, place = interval_at(looks, confidence, resolution, method), len(looks) + 1  # of the next look
    size, side = abs(now.mean), 1 if now.mean >= 0 else -1
    bound, away = (0.0, side) if size >= delta else (side * delta, -side)
    samples = [evidence_of(each, resolution, method) for each in looks]
    past = sum(weight_of(i) * (each.above(bound) if away > 0 else each.below(bound)) for i, each in enumerate(samples, 1))
    whole = math.hypot(*(weight_of(i) for i in range(1, place + 1)))
    missing = (-float(ndtri(error_of((number or len(looks)) + 1, confidence) / 2)) * whole - past) / weight_of(place)
    new = np.arange(2, MOST + 1)
    needed = (-stdtrit(new - 1, ndtr(-missing)) + stdtrit(new - 1, POWER)) * now.sd / np.sqrt(new)
    enough = new[(needed <= abs(now.mean - bound)) & (0.5**new <= ndtr(-missing) if method == "sign-flip" else new > 1)]
    return int(enough[0]) + now.pairs if len(enough) and enough[0] + now.pairs <= MOST else None
