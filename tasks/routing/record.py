"""Records the choice of a route: lines of the log, tags and figures in MLflow."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.records.choice.route import RouteDecision, Standing
from tasks.records.format import NONE, operations, percent
from tasks.records.run import RunRecord
from tasks.routing.halving import HalvingPlan
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import Context
from tasks.tracking.recorder import recorder_of
from tasks.tracking.tracker import Tracker


def log_plan(decision: RouteDecision, plan: HalvingPlan) -> None:
    """Log the routes that have no pilot, and the rounds that are planned."""
    if decision.left_out:
        log.info("route: left out: %s", "; ".join(f"{route} ({reason.rstrip('.')})" for route, reason in decision.left_out.items()))
    rounds = ", then ".join(f"{size} of {operations(price)} each" for size, price in zip(plan.sizes, plan.prices, strict=True))
    if rounds:
        most = operations(decision.share * decision.price)
        log.info("route: pilots take at most %s (%s of the ladder's): %s", most, percent(decision.share), rounds)


def log_round(decision: RouteDecision) -> None:
    """Log the standings after the last round."""
    last = decision.rounds[-1]
    log.info("route: round %d: %s", last.number, "; ".join(map(_words, last.standings)))


def _words(each: Standing) -> str:
    score = NONE if each.score is None else f"{each.score:.4f}"
    return f"{each.route} {score} {'kept' if each.kept else 'dropped'} ({each.reason})"


def record_decision(record: RunRecord, decision: RouteDecision, context: Context) -> None:
    """Log the winner, and keep the choice with the run in MLflow: tags of the winner and its reason, each route's score by round."""
    log.info(
        "route: %s (%s); pilots took %s of %s, the final training has %s%s",
        decision.winner,
        decision.reason,
        operations(decision.spent),
        operations(decision.price),
        operations(decision.final),
        ", and goes on from its last pilot" if any(decision.first_weights) else "",
    )

    def send(tracker: Tracker, run_id: str) -> None:
        stamp = int(datetime.now(UTC).timestamp() * 1000)
        figures = [
            (f"route/{each.route}", each.score, done.number, stamp)
            for done in decision.rounds
            for each in done.standings
            if each.score is not None
        ]
        tracker.log_points(run_id, [*figures, ("cost/pilot_flops", decision.spent, 0, stamp)])
        tracker.set_tags(run_id, {"ladder.route": str(decision.winner), "ladder.route_reason": decision.reason})

    recorder_of(context.paths, record.run).attempt("route", record.mlflow_run_id, send)
