"""Section of the route that pilots chose: rounds, scores, who was dropped why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.records.choice.route import RouteDecision, RouteRound, Standing
from tasks.records.format import NONE, duration, operations, percent
from tasks.records.run import RunRecord

HEADERS = ["route", "steps", "score", "behind", "noise", "FLOPs", "time", "outcome"]
WORDS = ["route", "steps", "outcome"]


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The choice of the run's route; None where its ladder names one."""
    decision = record.route
    if decision is None:
        return None
    left_out = [[route, reason] for route, reason in decision.left_out.items()]
    tables = [{"title": _title(done), "headers": HEADERS, "rows": rows_of(done, decision), "words": WORDS} for done in decision.rounds]
    if left_out:
        tables.append({"title": "Not tried", "headers": ["route", "reason"], "rows": left_out, "words": ["route", "reason"]})
    return {"heading": "Choice of the route", "sentence": sentence(decision), "tables": tables, "note": note(decision)}


def sentence(decision: RouteDecision) -> str:
    """The winner and the price in words."""
    if decision.winner is None:
        return "The route was not chosen yet when this was written."
    spent = f"Pilots took {_share(decision.spent, decision)} and the final training {_share(decision.final, decision)}"
    price = f"{operations(decision.price)} that the ladder takes as written"
    return f"{decision.winner}: {decision.reason}. {spent} of the {price}.{begins(decision)}"


def begins(decision: RouteDecision) -> str:
    """Number of the final students that go on from the pilot, in words after a sentence; empty where none does."""
    warm, count = sum(map(bool, decision.first_weights)), len(decision.first_weights)
    who = "Its student begins" if count == 1 else "Its students begin" if warm == count else f"{warm} of its {count} students begin"
    return f" {who} with the weights that its last pilot ended with." if warm else ""


def note(decision: RouteDecision) -> str:
    """The meaning of the columns, and the limits of the choice."""
    score = "bits per byte (less is better)" if decision.metric == "bits_per_byte" else "accuracy"
    text = (
        f"Each pilot is a whole short schedule, judged by {score} on the validation split. Routes of a round have the same FLOPs, "
        "with those of answers that an earlier pilot has stored, which are shown there alone. Noise: "
        "standard error of the distance from the best score, by a paired bootstrap over documents. Within it routes are tied, and the one "
        "that takes the fewest FLOPs as its stages are written goes on."
    )
    return " ".join([text, *(f"{each[:1].upper()}{each[1:]}." for each in decision.notes)])


def rows_of(done: RouteRound, decision: RouteDecision) -> list[list[str]]:
    """Rows of a round: the routes, the best first."""
    return [_row(each, done, decision) for each in done.standings]


def _row(each: Standing, done: RouteRound, decision: RouteDecision) -> list[str]:
    pilots = [pilot for pilot in done.pilots if pilot.route == each.route]
    steps = "; ".join(", ".join(f"{count:,}" for count in pilot.steps) for pilot in pilots)
    flops, seconds = sum(pilot.flops for pilot in pilots), sum(pilot.seconds for pilot in pilots)
    kept = "chosen" if each.kept and done is decision.rounds[-1] and decision.winner == each.route else "kept" if each.kept else "dropped"
    return [
        each.route,
        steps,
        _score(each.score, decision.metric),
        _score(each.behind, decision.metric),
        _score(each.noise, decision.metric),
        operations(flops),
        duration(seconds),
        f"{kept}: {each.reason}",
    ]


def _title(done: RouteRound) -> str:
    return f"Round {done.number}: {len(done.standings)} routes, {operations(done.price)} a pilot"


def _share(flops: float, decision: RouteDecision) -> str:
    return percent(flops / decision.price) if decision.price else NONE


def _score(value: float | None, metric: str) -> str:
    if value is None:
        return NONE
    return f"{value:.4f}" if metric == "bits_per_byte" else percent(value, 2)
