"""Sizes, tokens and budget that a proposal of routes is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from conf.errors import UserError
from conf.schema.measures.economics import Economics
from conf.schema.stage.student import parameters_of
from tasks.planning.budget import parse_budget
from tasks.planning.costs.economics import training_cost
from tasks.records.format import human

MONEY = re.compile(r"\$ ?([0-9]{1,9}(?:\.[0-9]{1,2})?)|([0-9]{1,9}(?:\.[0-9]{1,2})?) ?([A-Za-z$€£]{1,8})")
SIZES = "numbers of parameters such as 300m,30m"
MOST_TOKENS = 10**15


class Allowance(NamedTuple):
    """The most that a route may take: seconds, or an amount of the ladder's currency; one of them."""

    text: str
    seconds: float | None
    money: float | None

    def allowed_seconds(self, settings: Economics) -> float:
        """Seconds of training on this machine, at the ladder's prices; infinite where they cost nothing."""
        if self.seconds is not None:
            return self.seconds
        assert self.money is not None
        hourly = training_cost(3600.0, settings)
        left = self.money - settings.data_cost - settings.evaluation_cost
        return 3600.0 * left / hourly if hourly else float("inf")


class Wanted(NamedTuple):
    """The request.

    Attributes:
        to: Parameters of the last student.
        ship: Parameters of all students that ship or are distilled again, the largest first, `to` last.
        tokens: Positions that each student reads; None: as the ladder says, or 20 for each of its parameters.
        budget: None: no limit.
        take: The route to take; None: the one that the rule picks.
    """

    to: int
    ship: tuple[int, ...]
    tokens: int | None = None
    budget: Allowance | None = None
    take: str | None = None


def wanted(to: str, ship: str = "", tokens: str = "", budget: str = "", take: str = "") -> Wanted:
    """Read the options of `ladder plan`.

    Raises:
        UserError: A text is no size, number or budget, or the sizes do not fall.
    """
    last = _size("--to", to)
    sizes = [_size("--ship", text) for text in ship.split(",") if text.strip()]
    if any(below >= above for above, below in pairwise(sizes)):
        raise UserError.about("--ship", ship, f"{SIZES}, each smaller than the one before", "Sort them from the largest down.")
    if sizes and sizes[-1] < last:
        raise UserError.about("--ship", ship, f"sizes of at least --to, {human(last)}", "Leave out the smaller ones, or lower --to.")
    if not sizes or sizes[-1] != last:
        sizes.append(last)
    number = _tokens(tokens) if tokens else None
    return Wanted(last, tuple(sizes), number, parse_allowance(budget) if budget else None, take or None)


def check_below(wanted: Wanted, teacher: int | None) -> None:
    """Refuse students that are not smaller than their teacher.

    Raises:
        UserError: Naming the option.
    """
    largest = wanted.ship[0]
    if teacher is not None and largest >= teacher:
        option = "--to" if len(wanted.ship) == 1 else "--ship"
        raise UserError.about(
            option, human(largest), f"fewer than the {human(teacher)} parameters of the teacher", "Name smaller students."
        )


def parse_allowance(text: str) -> Allowance:
    """A budget: a time such as `8h`, or money such as `$50` or `50 USD`, in the ladder's currency.

    Raises:
        UserError: It is neither, or nothing.
    """
    given = text.strip()
    money = MONEY.fullmatch(given)
    if money is not None and not re.fullmatch(r"[0-9]+[smhd]", given) and float(money[1] or money[2]) > 0:
        return Allowance(given, None, float(money[1] or money[2]))
    try:
        return Allowance(given, parse_budget(given), None)
    except UserError:
        allowed = "a time such as 8h (s, m, h, d), or money such as $50, above 0"
        raise UserError.about("--budget", text, allowed, "Name one.") from None


def _size(option: str, text: str) -> int:
    found = parameters_of(text)
    if not found:
        raise UserError.about(option, text, SIZES, "Write each as a number and k, m or b.")
    return found


def _tokens(text: str) -> int:
    found = parameters_of(text)
    if found is None:
        try:
            found = int(float(text))
        except (ValueError, OverflowError):
            found = 0
    if not 1 <= found <= MOST_TOKENS:
        raise UserError.about("--tokens", text, "a number of tokens such as 2b or 6e9", "Write a number, or a number and k, m or b.")
    return found


def rungs_between(teacher: float, sizes: Sequence[int], widest: float) -> list[int]:
    """The sizes with as many between them, and below the teacher, as make no step wider than `widest`; the largest first.

    Steps of a gap are equal; sizes are rounded to one digit where no step grows too wide by it, else to as many as it takes.
    """
    found: list[int] = []
    above = teacher
    for size in sizes:
        steps = 1
        while above / size > widest**steps:
            steps += 1
        between = [above * (size / above) ** (step / steps) for step in range(1, steps)]
        for digits in (1, 2, 3, 17):
            rounded = [float(f"{value:.{digits - 1}e}") for value in between]
            if all(a / b <= widest for a, b in pairwise([above, *rounded, size])):
                break
        found += [int(value) for value in rounded] if steps > 1 else []
        found.append(size)
        above = size
    return found
