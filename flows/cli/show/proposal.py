"""Text of the routes that `ladder plan --to` proposes."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.planning.proposals.costs import StageProposal
from tasks.planning.proposals.propose import Proposal, RouteProposal
from tasks.records.format import byte_size, estimate, human, money, operations
from tasks.report.terminal import WIDE, table_of, text_of

ROUTES = ("route", "students", "FLOPs", "time", "price", "memory", "cache", "")
STAGES = ("stage", "params", "begins", "teachers", "answers", "steps", "tokens", "FLOPs", "time")


def proposal_text(proposal: Proposal, written: str | None, noted: Sequence[str] = ()) -> str:
    """Routes with their prices, what is known of each, the stages of the taken one, and the reason.

    Args:
        proposal: The routes.
        written: File that the taken route was written to; None: none.
        noted: Points of the draft that a person should look at.
    """
    taken = next(route for route in proposal.routes if route.route == proposal.taken)
    sizes = ", ".join(human(size) for size in proposal.shipped)
    title = (
        f"{proposal.ladder}: routes from {human(proposal.root)} to {sizes}, at {money(proposal.price_per_hour, proposal.currency)} an hour"
    )
    possible = [route for route in proposal.routes if route.stages]
    table = table_of(ROUTES, [_route_row(route, proposal) for route in possible], left=("students", ""))
    known = [f"{route.route}: {route.meaning}. {route.evidence}." for route in possible]
    out = [f"{route.route} is out: {route.refused}" for route in proposal.routes if route.refused is not None]
    out += [f"Proven here, {proof}" for proof in proposal.proofs]
    stages = table_of(STAGES, [_stage_row(stage) for stage in taken.stages], left=("begins", "teachers", "answers"))
    tail = [f"Speed: {proposal.basis}.", *(f"note: {note}" for note in (*proposal.notes, *noted))]
    if proposal.pilot:
        tail.append("Try it first: `ladder prove FILE --pilot`, with the file that `--out FILE` writes.")
    tail.append(
        f"Written to {written}: `ladder run {written}`." if written else "`--out FILE` writes it, `--take ROUTE` takes another one."
    )
    heading = f"Taken: {proposal.taken}, {proposal.reason}."
    return text_of(title, table, "", *known, *out, "", heading, "", stages, "", *tail, width=WIDE, soft_wrap=True)


def _route_row(route: RouteProposal, proposal: Proposal) -> Sequence[str]:
    return (
        route.route,
        " ".join(stage.name if stage.ships else f"({stage.name})" for stage in route.stages),
        operations(route.flops),
        estimate(route.seconds),
        money(route.price, proposal.currency),
        byte_size(route.memory_bytes),
        byte_size(route.disk_bytes) if route.disk_bytes else "",
        "<- taken" if route.route == proposal.taken else "out" if route.refused else "",
    )


def _stage_row(stage: StageProposal) -> Sequence[str]:
    return (
        stage.name,
        human(stage.parameters),
        stage.initialisation,
        ", ".join(stage.teachers),
        stage.signals,
        f"{stage.steps:,}",
        human(stage.tokens),
        operations(stage.flops),
        estimate(stage.seconds),
    )
