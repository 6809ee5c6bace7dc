"""Choice of a route, by the rule of docs/explanation/planning.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from conf.home import Home
from tasks.planning.proposals.candidates import ASSISTANT, CHAIN, DIRECT_CACHED, DIRECT_LIVE, ROOT_CACHED, ROOT_LIVE
from tasks.records.proof import read_proof
from tasks.runtime.runs.run_registry import list_runs

# Evidence for each route, one line; sources and discussion: docs/explanation/planning.md.
EVIDENCE = {
    DIRECT_LIVE: "Ahead of chains at equal FLOPs on digits and python-stdlib; a 35-fold jump still gains (arXiv:2408.00118)",
    DIRECT_CACHED: "Answers are paid for once (arXiv:2503.16870); text read four times teaches nearly as much as fresh text (2305.16264)",
    CHAIN: "Gains were found at 2.2 to 6.7 times the cost (arXiv:1902.03393, 2407.14679); at equal FLOPs none on digits and python-stdlib",
    ASSISTANT: "+0.2 to +0.5 points, growing with the gap, not at equal cost (arXiv:2002.10957); most where one cut destroys the function",
    ROOT_LIVE: "The root taught a second step better than the student above it (arXiv:2407.14679)",
    ROOT_CACHED: "How Ministral 3 went from 24B to 3B: weights down the chain, the root teaches (arXiv:2601.08584)",
}


MOST_PROOFS = 3  # that are shown


def proofs_of(ladder: str, home: Home) -> tuple[str, ...]:
    """Verdicts of finished proofs of a ladder of that name, each with its run, the newest first."""
    found = []
    for listed in list_runs(home):
        proof = read_proof(listed) if listed.ladder == ladder else None
        if proof is not None and proof.finished:
            found.append(f"{listed.run}: {proof.verdict}")
    return tuple(found[:MOST_PROOFS])


class Pick(NamedTuple):
    """A route and the reason; `pilot`: whether its cost calls for one first."""

    route: str
    reason: str
    pilot: bool = False


def pick(refused: Mapping[str, str], shipped: int, epochs: float, short: bool = False) -> Pick | None:
    """The route by the rule; None where none can be taken.

    Args:
        refused: Routes that cannot be taken, with the reason of each.
        shipped: Students that ship or are distilled again.
        epochs: How often the training data are read.
        short: Whether a budget shortens the direct jump.
    """
    ranking = _ranking(shipped, epochs, short)
    possible = [pick for pick in ranking if pick.route not in refused]
    if not possible:
        return None
    first, (best, *_) = ranking[0], possible
    if best.route == first.route:
        return best
    return best._replace(reason=f"{best.reason}; {first.route} is out: {refused[first.route]}")


def _ranking(shipped: int, epochs: float, short: bool) -> list[Pick]:
    """All routes, the best first."""
    chains = [
        Pick(ASSISTANT, "parents with one student that does not ship; try it first with a pilot", True),
        Pick(CHAIN, "each student teaches the next one; try it first with a pilot", True),
    ]
    if shipped < 2:
        why = "one student ships, and at equal cost chains are rarely ahead of one jump"
        often = f"the data would be read {epochs:.3g} times, so stored answers are cheaper than live ones"
        more = "the budget pays for more steps from stored answers than from live ones"
        stored = Pick(DIRECT_CACHED, f"{why}; {more if short else often}")
        live = Pick(DIRECT_LIVE, f"{why}; the data are read once, so that every example is fresh")
        directs = [stored, live._replace(reason=why)] if epochs > 1 or short else [live, stored._replace(reason=why)]
        return [*directs, Pick(ROOT_CACHED, "the root teaches"), *chains, Pick(ROOT_LIVE, "the root teaches")]
    reason = f"{shipped} students ship and read the same text: one cache of the root's answers serves all"
    return [Pick(ROOT_CACHED, reason), *chains, Pick(ROOT_LIVE, "the root teaches"), Pick(DIRECT_CACHED, ""), Pick(DIRECT_LIVE, "")]
