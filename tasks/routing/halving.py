"""Successive halving over routes: rounds, prices of pilots, noise, ties.

Pure decisions, without torch. A round compares whole short schedules of equal price. The better part of the routes goes on, and the
next round's pilots are longer (Jamieson and Talwalkar 2016, arXiv:1502.07943). A route that is no further behind the best one than the
standard error of that difference counts as tied, and of tied routes the cheaper one goes on: the rule of one standard error (Breiman
et al. 1984, Classification and Regression Trees).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from models.base.quality import direction
from tasks.records.choice.route import Standing
from tasks.records.format import operations, percent

Noise = Callable[[str, str], float | None]  # standard error of the first route's gain over the second; None: not known


class HalvingPlan(NamedTuple):
    """The rounds of a search.

    Attributes:
        routes: That have a pilot, in the order given.
        sizes: Routes in each round.
        prices: Operations of a pilot in each round.
        too_dear: Routes without a pilot, and why.
    """

    routes: tuple[str, ...]
    sizes: tuple[int, ...]
    prices: tuple[float, ...]
    too_dear: dict[str, str]


def sizes_of(routes: int, factor: int) -> tuple[int, ...]:
    """Routes in each round: one in `factor` goes on, rounded up, until one is left."""
    sizes, left = list[int](), routes
    while left > 1:
        sizes.append(left)
        left = math.ceil(left / factor)
    return tuple(sizes)


def plan_rounds(least: Mapping[str, float], budget: float, factor: int, seeds: int = 1) -> HalvingPlan:
    """Divide a budget into rounds of equal price, and each round into pilots of equal price.

    There are as many rounds as leave every pilot of the first one no shorter than its shortest; where not even one round does, the
    route with the dearest shortest pilot has none.

    Args:
        least: Operations of each route's shortest pilot.
        budget: Operations of all pilots.
        factor: One route in so many goes on.
        seeds: Pilots of a route in a round.
    """
    routes, too_dear = dict(least), dict[str, str]()
    while len(routes) > 1:
        dearest = max(routes, key=lambda route: routes[route])
        whole = sizes_of(len(routes), factor)
        for rounds in range(len(whole), 0, -1):
            prices = tuple(budget / rounds / (size * seeds) for size in whole[:rounds])
            if routes[dearest] <= prices[0]:
                return HalvingPlan(tuple(routes), whole[:rounds], prices, too_dear)
        share = budget / (len(routes) * seeds)
        too_dear[dearest] = (
            f"its shortest pilot takes {operations(routes[dearest])}, and each of {len(routes)} may take {operations(share)}"
        )
        del routes[dearest]
    return HalvingPlan(tuple(routes), (), (), too_dear)


def standings_of(
    scores: Mapping[str, Sequence[float | None]], noise: Noise, listed: Mapping[str, float], keep: int, metric: str
) -> tuple[Standing, ...]:
    """The routes after a round, the best first: those tied with the best score by their price, then the others by their score.

    Args:
        scores: Of each route's pilots, by seed; None: it has failed.
        noise: Standard error of the best one's gain over another.
        listed: Price of each route, by which ties are decided.
        keep: Routes that go on.
        metric: `bits_per_byte`, of which less is better, or `accuracy`.
    """
    sign = direction(metric)
    means = {route: mean_of(found) for route, found in scores.items()}
    ran = {route: mean for route, mean in means.items() if mean is not None}
    if not ran:
        return tuple(_failed(route) for route in scores)
    best = max(ran, key=lambda route: (sign * ran[route], -listed[route]))
    behind = {route: sign * (ran[best] - mean) for route, mean in ran.items()}
    errors = {route: None if route == best else noise(best, route) for route in ran}
    tied = {route: route == best or ((error := errors[route]) is not None and behind[route] <= error) for route in ran}
    order = sorted(ran, key=lambda route: (not tied[route], listed[route] if tied[route] else behind[route]))
    found = []
    for place, route in enumerate(order):
        kept = place < keep
        reason = _reason(route, best, kept, tied, behind[route], errors[route], metric)
        found.append(
            Standing(route=route, score=ran[route], behind=behind[route], noise=errors[route], tied=tied[route], kept=kept, reason=reason)
        )
    return (*found, *(_failed(route) for route in scores if route not in ran))


def mean_of(scores: Sequence[float | None]) -> float | None:
    """The mean; None where there is none, or one has failed."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def _failed(route: str) -> Standing:
    return Standing(route=route, score=None, behind=None, noise=None, tied=False, kept=False, reason="a pilot has failed")


def _reason(route: str, best: str, kept: bool, tied: Mapping[str, bool], behind: float, noise: float | None, metric: str) -> str:
    rivals = sum(tied.values()) - 1
    if route == best:
        if kept:
            return f"the best score, tied with {rivals} more" if rivals else "the best score"
        return "the best score, but tied with cheaper routes"
    gap = f"{shown(metric, behind)} behind {best}"
    if noise is None:
        return f"{gap}, whose noise is not known"
    if tied[route]:
        return f"{gap}, within the noise of {shown(metric, noise)}, {'and cheaper' if kept else 'and not cheaper'}"
    return f"{gap}, beyond the noise of {shown(metric, noise)}"


def shown(metric: str, value: float) -> str:
    """A difference of scores in words."""
    return f"{value:.4f} bits/byte" if metric == "bits_per_byte" else percent(value, 2)


def noise_over_seeds(gains: Sequence[float], errors: Sequence[float | None]) -> float | None:
    """Standard error of a mean gain over seeds.

    The larger one of that of the held-out rows, which a seed's pilots share, and that of the spread over seeds. With one seed only the
    rows are counted: the noise is then a lower bound.

    Args:
        gains: Of one route over another, by seed.
        errors: Standard error of each by its held-out rows; None: not known.
    """
    known = [error for error in errors if error is not None]
    if len(known) < len(errors) or not gains:
        return None
    rows = math.sqrt(sum(error**2 for error in known) / len(known))  # the same rows judge every seed, so that it does not shrink with them
    if len(gains) == 1:
        return rows
    mean = sum(gains) / len(gains)
    return max(rows, math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1) / len(gains)))
