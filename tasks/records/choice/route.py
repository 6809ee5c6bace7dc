"""Records of the choice of a route: pilots, rounds, and the route that won."""

from __future__ import annotations

from pydantic import Field

from tasks.records.base import Record


class PilotRecord(Record):
    """A whole short schedule of a route's ladder, and its last student on the validation split.

    Attributes:
        route: The route.
        number: Of the round, from 1; 0: outside a search.
        seed: Of the last student.
        steps: Of each training.
        score: Of the last student: bits per byte, or accuracy; None: its training diverged.
        parameters: Of the last student.
        flops: That it adds to the pilots before it: answers of a teacher that these have stored are not counted again.
        seconds: Of its trainings and of the answers that they stored, as measured where each was computed.
        fingerprints: Of its students.
        reused: How many of them were found in the store.
        failed: Why it has no score.
    """

    route: str
    number: int = 0
    seed: int
    steps: tuple[int, ...]
    score: float | None = None
    parameters: int = 0
    flops: float
    seconds: float = 0.0
    fingerprints: tuple[str, ...] = ()
    reused: int = 0
    failed: str | None = None


def is_found(pilot: PilotRecord) -> bool:
    """Whether all students of a pilot were found in the store."""
    return bool(pilot.fingerprints) and pilot.reused >= len(pilot.fingerprints)


class Standing(Record):
    """A route after a round.

    Attributes:
        route: The route.
        score: Mean over its pilots; None: one has failed.
        behind: Of the best route, in the score's unit; 0 for the best.
        noise: Standard error of `behind`; None: not known.
        tied: Whether it is no further behind than that, so that its price decides.
        kept: Whether it goes on to the next round, or has won.
        reason: Why it is kept or dropped, in words.
    """

    route: str
    score: float | None
    behind: float | None
    noise: float | None
    tied: bool
    kept: bool
    reason: str


class RouteRound(Record):
    """A round of pilots of equal price.

    Attributes:
        number: From 1.
        price: Operations that each pilot may take.
        pilots: In the order in which they ran.
        standings: The routes, the best first.
    """

    number: int
    price: float
    pilots: tuple[PilotRecord, ...]
    standings: tuple[Standing, ...]


class RouteDecision(Record):
    """The choice of a route: `route` in the record of a run. It grows round by round, and a run that is continued goes on from it.

    Attributes:
        metric: Metric of the scores, on the validation split.
        price: Operations of the ladder as written, which search and final training have together.
        share: Of the price that the pilots may take at most.
        listed: Operations of each candidate with the steps of the ladder's file, the cheapest first: a tie goes to the cheaper one.
        left_out: Routes that are no candidate, and why.
        rounds: That are finished.
        winner: The route; None: still searched.
        reason: Why it won, in words.
        spent: Operations of all pilots.
        steps: Of the final trainings.
        final: Operations of the final trainings.
        shared_answers: Whether the root's answers to pilots are stored for the final trainings, where `signals.source: auto` allows it, and
            routes that end like another have no pilot; false in records of earlier versions.
        first_weights: Fingerprints of the pilot's students whose weights the final trainings begin with, by stage; "" where one begins as
            written. Empty: all do.
        notes: What limits the choice, in words.
    """

    metric: str
    price: float
    share: float
    listed: dict[str, float]
    left_out: dict[str, str] = Field(default={})
    rounds: tuple[RouteRound, ...] = ()
    winner: str | None = None
    reason: str = ""
    spent: float = 0.0
    steps: tuple[int, ...] = ()
    final: float = 0.0
    shared_answers: bool = False
    first_weights: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def pilots(self) -> list[PilotRecord]:
        """Of all rounds."""
        return [pilot for each in self.rounds for pilot in each.pilots]

    @property
    def computed_flops(self) -> float:
        """Operations of the pilots that were not all found in the store."""
        return sum(pilot.flops for pilot in self.pilots if not is_found(pilot))

    @property
    def seconds(self) -> float:
        """Of all pilots."""
        return sum(pilot.seconds for pilot in self.pilots)

    @property
    def fingerprints(self) -> set[str]:
        """Of the students of all pilots."""
        return {one for pilot in self.pilots for one in pilot.fingerprints}
