"""Records of a search: `runs/<run>/search.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from models.base.statistics import Outcome
from tasks.records.base import Record
from tasks.records.proof import Estimate
from tasks.records.run import RunRecord

SEARCH = "search.json"
WINNER = "winner.overrides"
TrialState = Literal["complete", "pruned", "refused", "running"]


class RungScore(Record):
    """A trial on one rung: a whole training with its own schedule.

    Attributes:
        steps: Of the last stage's training.
        score: On the validation split.
        seconds: That the search waited for it; next to none where it was found in the store.
        training: Seconds that its trainings took, where they were computed.
        fingerprints: Of its students, in the store.
        reused: Whether all of them were found there.
    """

    steps: int
    score: float
    seconds: float
    training: float
    fingerprints: tuple[str, ...]
    reused: bool


class SearchedTrial(Record):
    """A trial.

    Attributes:
        values: Value of each dimension, by its name.
        rungs: As far as it got.
        parameters: Of its last student.
        second: The second objective: parameters, or seconds of the median request; None: there is none.
        front: Whether no other trial is better in one objective and not worse in the other.
        why: Why it was refused.
    """

    number: int
    state: TrialState
    values: dict[str, Any]
    rungs: tuple[RungScore, ...] = ()
    parameters: int | None = None
    second: float | None = None
    front: bool = False
    why: str | None = None

    @property
    def score(self) -> float | None:
        """Its score where it was trained in full."""
        return self.rungs[-1].score if self.state == "complete" and self.rungs else None


class Confirmation(Record):
    """Winner and defaults on fresh seeds, on the test split, which the search never read.

    Attributes:
        seeds: None of them searched on.
        winner: Scores of the winner by seed.
        defaults: Scores of the ladder's own settings by seed.
        gains: Positive where the winner is better, in the metric's unit.
        gain: Their mean with its interval, which needs no correction for the selection, as no score of the search is in it.
        delta: Smallest difference of interest.
        fingerprints: Of all students.
    """

    seeds: tuple[int, ...]
    winner: tuple[float, ...]
    defaults: tuple[float, ...]
    gains: tuple[float, ...]
    gain: Estimate
    confidence: float
    delta: float
    outcome: Outcome
    fingerprints: tuple[str, ...]


class SearchRecord(Record):
    """A whole search.

    Attributes:
        study: Name of the study.
        stages: That are searched; the last is judged.
        metric: Figure by which trials are judged, on the validation split.
        space: Each dimension's values in words.
        steps: Steps of the last stage on each rung.
        wanted: Trials of the study in all; None: as many as the budget allows.
        defaults: The ladder's own settings, trained in full; None: not yet.
        winner: Number of the trial whose settings are the result; None: no trial is better than the defaults, or none is finished.
        overrides: That make the ladder the winner's.
        importance: Share of the scores' variance on the lowest rung that each dimension explains (fANOVA); empty: too few trials.
        verdict: One sentence.
    """

    run: str
    ladder: str
    study: str
    stages: tuple[str, ...]
    metric: str
    more_is_better: bool
    against: str
    space: dict[str, str]
    steps: tuple[int, ...]
    wanted: int | None
    budget: str | None = None
    defaults: SearchedTrial | None = None
    trials: tuple[SearchedTrial, ...] = ()
    winner: int | None = None
    overrides: tuple[str, ...] = ()
    file: str | None = None
    confirmation: Confirmation | None = None
    importance: dict[str, float] = Field(default={})
    verdict: str = ""
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> SearchedTrial | None:
        """The winner's trial."""
        return next((trial for trial in self.trials if trial.number == self.winner), None)

    def better(self, a: float, b: float) -> bool:
        """Whether score `a` is better than score `b`."""
        return a > b if self.more_is_better else a < b


def read_search(record: RunRecord) -> SearchRecord | None:
    """The search of a run, as far as it got; None where it was none, or nothing of it is finished."""
    path = Path(record.folder) / SEARCH
    try:
        return SearchRecord.model_validate_json(path.read_text(encoding="utf-8")) if record.search and path.is_file() else None
    except ValidationError:
        return None  # of another version
