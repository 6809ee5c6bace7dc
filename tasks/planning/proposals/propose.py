"""Propose routes from a root down to given sizes, priced, and pick one."""

from __future__ import annotations

from typing import NamedTuple

from conf.errors import UserError
from conf.home import free_bytes
from conf.schema.ladder import Ladder
from models.base.device import memory_bytes
from models.data.corpus import Corpus
from tasks.planning.costs.throughput import Throughput, expected_throughput
from tasks.planning.matching import LEAST_STEPS
from tasks.planning.proposals.candidates import DIRECT_CACHED, DIRECT_LIVE, MEANING, Candidate, Impossible, candidates
from tasks.planning.proposals.costs import RouteCosts, Speeds, StageProposal, costs_of, shortened_to
from tasks.planning.proposals.rule import EVIDENCE, Pick, pick, proofs_of
from tasks.planning.proposals.rungs import settle_rungs
from tasks.planning.proposals.wanted import Allowance, Wanted
from tasks.planning.students import teacher_and_interface
from tasks.records.base import Record
from tasks.records.format import byte_size, estimate, human, money
from tasks.runtime.runs.run_registry import Context
from tasks.training.costs.examples import TrainingExamples, training_examples

DISK_SHARE = 0.9  # of the free bytes, that a cache may take


class RouteProposal(Record):
    """A route with its price.

    Attributes:
        meaning: In words.
        refused: Why it cannot be taken; None: it can.
        evidence: Known measurements of it.
        share: Of the steps, to which the budget shortened it.
    """

    route: str
    meaning: str
    evidence: str
    refused: str | None
    share: float = 1.0
    stages: tuple[StageProposal, ...] = ()
    flops: float = 0.0
    seconds: float = 0.0
    price: float = 0.0
    memory_bytes: float = 0.0
    disk_bytes: float = 0.0


class Proposal(Record):
    """All routes, and the one that is taken.

    Attributes:
        root: Parameters of the root.
        shipped: Parameters of the students that ship, as asked for, the largest first.
        epochs: How often the longest training reads the data, `direct-cached` apart; 1 where their number is not known.
        basis: Where the speeds come from.
        proofs: Verdicts of this home's proofs of a ladder of that name, the newest first.
        pilot: Whether the taken route should be tried first.
    """

    ladder: str
    root: int
    shipped: tuple[int, ...]
    epochs: float
    routes: tuple[RouteProposal, ...]
    taken: str
    reason: str
    pilot: bool
    basis: str
    currency: str
    price_per_hour: float
    free_bytes: float
    proofs: tuple[str, ...]
    notes: tuple[str, ...]


class Proposed(NamedTuple):
    """A proposal, and its taken route as a ladder."""

    proposal: Proposal
    ladder: Ladder


class Ground(NamedTuple):
    """The data as far as they are known.

    Attributes:
        corpus: Prepared; None: not yet.
        rows: Training examples, estimated where they are not prepared; None: unknown.
        tokens: Positions that each student reads where nothing says it: None: those of its stage, 0: 20 a parameter.
    """

    corpus: Corpus | None
    rows: int | None = None
    tokens: int | None = None


def propose(ladder: Ladder, wanted: Wanted, ground: Ground, context: Context, throughput: Throughput | None = None) -> Proposed:
    """Propose routes.

    Args:
        ladder: Its root, its data, and stages that lend their settings.
        wanted: Sizes, tokens, budget.
        ground: The data.
        context: Home and base.
        throughput: Speeds of this machine; None: those of earlier runs, or measured now.

    Raises:
        UserError: No route can be taken, or the sizes do not fit the root; see `settle_rungs`.
    """
    tokens = wanted.tokens if wanted.tokens is not None else ground.tokens
    students = settle_rungs(ladder, wanted, context, ground.corpus, tokens)
    examples = training_examples(ground.corpus, True) if ground.corpus else TrainingExamples(ground.rows, rationales=ground.rows or 0)
    interface = ground.corpus.interface if ground.corpus else teacher_and_interface(ladder, context)[1]
    speeds = Speeds(throughput or expected_throughput(context.paths, ladder), interface, examples)
    free = free_bytes(context.paths)
    routes, made = list[RouteProposal](), dict[str, Candidate]()
    for found in candidates(ladder, students, wanted, ground.corpus.info if ground.corpus else None):
        if isinstance(found, Impossible):
            routes.append(_described(found.route, MEANING[found.route], found.reason))
            continue
        fitted, share, costs = _within(found, wanted, speeds)
        reason = _refusal(costs, free, wanted.budget, ladder, min(stage.steps for stage in costs.stages) if share < 1 else None)
        made[found.route] = fitted
        routes.append(_described(found.route, found.meaning, reason, share, costs))
    epochs = _epochs(made, examples)
    refused = {route.route: route.refused for route in routes if route.refused is not None}
    chosen = _taken(wanted, refused, epochs, any(route.route == DIRECT_LIVE and route.share < 1 for route in routes))
    route = next(route for route in routes if route.route == chosen.route)
    proposal = Proposal(
        ladder=ladder.name,
        root=students.root.parameters,
        shipped=wanted.ship,
        epochs=epochs,
        routes=tuple(routes),
        taken=chosen.route,
        reason=chosen.reason,
        pilot=chosen.pilot,
        basis=speeds.throughput.basis,
        currency=ladder.economics.currency,
        price_per_hour=ladder.economics.price_per_hour,
        free_bytes=free,
        proofs=proofs_of(ladder.name, context.paths),
        notes=tuple(_notes(route, ground)),
    )
    return Proposed(proposal, made[chosen.route].ladder)


def _within(candidate: Candidate, wanted: Wanted, speeds: Speeds) -> tuple[Candidate, float, RouteCosts]:
    """The candidate with the steps that a budget allows, where the tokens are not given; their share; the costs."""
    costs = costs_of(candidate, wanted.ship, speeds)
    if wanted.budget is None or wanted.tokens is not None:
        return candidate, 1.0, costs
    share = max(wanted.budget.allowed_seconds(candidate.ladder.economics), 0.0) / costs.seconds
    if share >= 1:
        return candidate, 1.0, costs
    fitted = shortened_to(candidate, share)
    return fitted, share, costs_of(fitted, wanted.ship, speeds)


def _refusal(costs: RouteCosts, free: int, budget: Allowance | None, ladder: Ladder, least: int | None) -> str | None:
    """Why a route cannot be taken; `least`: fewest steps of a stage that the budget shortened."""
    if least is not None and least < LEAST_STEPS:
        return f"{budget.text if budget else ''} pays for fewer than {LEAST_STEPS} steps of a student"
    if budget is not None and costs.seconds > 1.001 * budget.allowed_seconds(ladder.economics):
        return f"{estimate(costs.seconds)}, {money(costs.price, ladder.economics.currency)}: more than {budget.text}"
    if costs.disk_bytes > DISK_SHARE * free:
        return f"its cache takes {byte_size(costs.disk_bytes)}, and {byte_size(free)} are free"
    return None


def _described(route: str, meaning: str, refused: str | None, share: float = 1.0, costs: RouteCosts | None = None) -> RouteProposal:
    fields = {} if costs is None else costs._asdict()
    return RouteProposal(route=route, meaning=meaning, evidence=EVIDENCE[route], refused=refused, share=share, **fields)


def _taken(wanted: Wanted, refused: dict[str, str], epochs: float, short: bool) -> Pick:
    """The route that was asked for, or the rule's.

    Raises:
        UserError: It cannot be taken, or none can.
    """
    if wanted.take is not None:
        if wanted.take not in MEANING:
            raise UserError.about("--take", wanted.take, f"one of {', '.join(MEANING)}", "Choose one.")
        if wanted.take in refused:
            possible = ", ".join(name for name in MEANING if name not in refused) or "none"
            raise UserError.about("--take", wanted.take, f"a route that can be taken: {possible}", sentence(refused[wanted.take]))
        return Pick(wanted.take, "asked for")
    chosen = pick(refused, len(wanted.ship), epochs, short)
    if chosen is None:
        reasons = "; ".join(f"{route}: {reason}" for route, reason in refused.items())
        if wanted.budget is not None:
            raise UserError.about("--budget", wanted.budget.text, "enough for one route", f"Raise it, or lower --tokens. {reasons}.")
        raise UserError(f"no route can be taken. {reasons}. Free disk, or name other sizes.")
    return chosen


def _epochs(made: dict[str, Candidate], examples: TrainingExamples) -> float:
    stages = [stage for candidate in made.values() if candidate.route != DIRECT_CACHED for stage in candidate.ladder.stages]
    read = [stage.training.steps * stage.training.batch_size for stage in stages]
    return max(max(read, default=0) / examples.number, 1.0) if examples.number else 1.0


def _notes(route: RouteProposal, ground: Ground) -> list[str]:
    notes = []
    if ground.corpus is None:
        rows = f"about {human(ground.rows)} examples" if ground.rows else "their number is unknown, and each is read once"
        notes.append(f"the data are not prepared: {rows}; FLOPs of a cache are exact once they are")
    if route.memory_bytes > (room := memory_bytes()):
        notes.append(f"{route.route} needs about {byte_size(route.memory_bytes)} of memory; this machine has {byte_size(room)}")
    if route.share < 1:
        notes.append(f"the budget pays for {route.share:.1%} of the steps")
    return notes


def sentence(reason: str) -> str:
    """A reason as a sentence."""
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
