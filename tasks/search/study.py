"""A study of Optuna in a database: asks for trials and keeps their rungs.

Every draw is a function of the study's seed, the trial's number and the finished trials, so a search that was killed goes on as it would
have. A rung's training is a whole schedule (docs/adr/0042): Optuna gets no score from the middle of a longer one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from conf.errors import UserError
from conf.home import Home, sqlite_address
from conf.loading.yaml_output import in_one_line
from tasks.records.routes.search import RungScore, SearchedTrial
from tasks.search.plan import SearchPlan
from tasks.search.space import Dimension, Value
from tasks.store.fingerprint import changes

optuna.logging.set_verbosity(optuna.logging.ERROR)
Direction = Literal["maximize", "minimize"]
STARTUP = 6  # trials at random before TPE draws by the others
IDENTITY, OWNER, RUNGS, REASON, SECOND, SIZE = "identity", "owner", "rungs", "reason", "second", "parameters"
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "refused", TrialState.RUNNING: "running"}


@contextmanager
def claimed(home: Home, plan: SearchPlan) -> Iterator[None]:
    """Hold a study, of which one search of a home works at a time.

    Raises:
        UserError: Another search holds it.
    """
    home.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home.locks / f"search-{plan.study}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        remedy = "Wait for it, stop it with `ladder cancel`, or begin another study with search.study=NAME."
        raise UserError.about("search.study", plan.study, "a study in which no other search is at work", remedy) from None
    try:
        yield
    finally:
        lock.release()


def open_study(plan: SearchPlan, home: Home) -> Study:
    """The study of a plan, made or continued.

    Raises:
        UserError: The database cannot be reached, or a study of this name holds trials of other settings.
    """
    storage = _storage(plan, home)
    known = plan.study in optuna.get_all_study_names(storage)
    if known:
        found = optuna.load_study(study_name=plan.study, storage=storage, pruner=_pruner(plan))
    else:
        first: Direction = "maximize" if plan.more_is_better else "minimize"
        directions: list[Direction] = [first, "minimize"] if plan.by_objectives else [first]
        found = optuna.create_study(study_name=plan.study, storage=storage, directions=directions, pruner=_pruner(plan))
    if not known or IDENTITY not in found.user_attrs:
        found.set_user_attr(IDENTITY, plan.identity)
    if differences := changes(found.user_attrs[IDENTITY], plan.identity):
        words = "; ".join([*differences[:4], *(["..."] if len(differences) > 4 else [])])
        allowed = f"a new name, or the settings that its trials were made with ({words})"
        raise UserError.about("search.study", plan.study, allowed, "Begin another study with search.study=NAME.")
    return Study(plan, found, home)


def _storage(plan: SearchPlan, home: Home) -> optuna.storages.RDBStorage:
    from sqlalchemy.exc import SQLAlchemyError

    address = plan.settings.storage
    home.root.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if address is None else {}
    try:
        return optuna.storages.RDBStorage(address or sqlite_address(home.root / "studies.db"), engine_kwargs=options)
    except ImportError:
        raise UserError.about(
            "search.storage", address, "a database whose driver is installed", "pip install 'ladder-distillation[postgres]'."
        ) from None
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        remedy = f"{reason.rstrip('.')}. Start it, or leave search.storage out."
        raise UserError.about("search.storage", address or "studies.db", "a database that answers", remedy) from None


def _pruner(plan: SearchPlan) -> optuna.pruners.BasePruner:
    factor, rungs = plan.settings.factor, len(plan.shares)
    if rungs == 1:
        return optuna.pruners.NopPruner()
    if plan.settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=factor ** (rungs - 1), reduction_factor=factor)
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)


class Study:
    """The study of one search, held by this process."""

    def __init__(self, plan: SearchPlan, study: optuna.Study, home: Home) -> None:
        self.plan, self.study, self.owner = plan, study, str(home.root.resolve())
        self.space = {dimension.name: dimension for dimension in plan.space}
        self.distributions = {name: _distribution(dimension) for name, dimension in self.space.items()}

    def abandoned(self) -> list[Trial]:
        """Trials that a search of this home left unfinished when it was killed; one without all its values is dropped."""
        found = []
        for frozen in self.study.get_trials(states=(TrialState.RUNNING,)):
            if frozen.user_attrs.get(OWNER, self.owner) != self.owner:
                continue  # of another home that shares the database
            if set(frozen.params) == set(self.space):
                found.append(Trial(self.study, frozen._trial_id))
            else:
                self.study.tell(frozen.number, state=TrialState.FAIL)
        return found

    def ask(self) -> Trial:
        """A new trial: the first has the ladder's own values, where the space holds them."""
        number = len(self.study.trials)
        self.study.sampler = self._sampler(self.plan.ladder.seed + number)
        if number == 0 and (own := self._own()) is not None:
            self.study.enqueue_trial(own)
        trial = self.study.ask(self.distributions)
        trial.set_user_attr(OWNER, self.owner)
        return trial

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        kind = self.plan.settings.sampler
        if kind == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if kind == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=10)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)

    def _own(self) -> dict[str, Any] | None:
        """The parameters that leave the ladder as it is; None where the space does not hold them."""
        from tasks.search.space import own_value

        found: dict[str, Any] = {}
        for name, dimension in self.space.items():
            value = own_value(self.plan.ladder, dimension)
            if value is None:
                return None
            found[name] = in_one_line(value) if dimension.choices else value
        return found

    def values(self, trial: Trial | FrozenTrial) -> dict[str, Value]:
        """The values of a trial, by the dimensions' names."""
        return {name: self.space[name].value(drawn) for name, drawn in trial.params.items()}

    def rungs(self, trial: Trial | FrozenTrial) -> list[RungScore]:
        """The rungs that a trial has finished."""
        return [RungScore.model_validate(each) for each in trial.user_attrs.get(RUNGS, ())]

    def report(self, trial: Trial, score: RungScore, parameters: int) -> bool:
        """Keep a trial's score on its next rung; returns whether the trial goes on to a longer schedule."""
        done = [*self.rungs(trial), score]
        if not self.plan.by_objectives:
            with warnings.catch_warnings():  # a search that was killed here reports once more
                warnings.simplefilter("ignore", UserWarning)
                trial.report(score.score, self.plan.settings.factor ** (len(done) - 1))
        trial.set_user_attr(SIZE, parameters)
        trial.set_user_attr(RUNGS, [each.model_dump(mode="json") for each in done])
        return self.goes_on(trial)

    def goes_on(self, trial: Trial) -> bool:
        """Whether a trial goes on after the rungs that it has finished; else it is ended as pruned, unless it is on the last one."""
        done = len(self.rungs(trial))
        if done in (0, len(self.plan.shares)):
            return done == 0
        if trial.should_prune():
            self.study.tell(trial, state=TrialState.PRUNED)
            return False
        return True

    def finish(self, trial: Trial, second: float | None = None) -> None:
        """End a trial that was trained in full."""
        score = self.rungs(trial)[-1].score
        if second is not None:
            trial.set_user_attr(SECOND, second)
        self.study.tell(trial, score if second is None else [score, second])

    def refuse(self, trial: Trial, reason: str) -> None:
        """End a trial whose values cannot be trained; samplers avoid such where there is one objective."""
        trial.set_user_attr(REASON, reason)
        self.study.tell(trial, state=TrialState.FAIL)

    @property
    def records(self) -> tuple[SearchedTrial, ...]:
        """All trials, in their order."""
        front = {trial.number for trial in self.study.best_trials} if self.plan.by_objectives and self._finished else set()
        return tuple(self._record(trial, trial.number in front) for trial in self.study.trials if trial.state in STATES)

    @property
    def _finished(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def _record(self, trial: FrozenTrial, front: bool) -> SearchedTrial:
        attributes = trial.user_attrs
        return SearchedTrial(
            number=trial.number,
            state=STATES[trial.state],  # pyright: ignore[reportArgumentType]
            values=self.values(trial),
            rungs=tuple(self.rungs(trial)),
            parameters=attributes.get(SIZE),
            second=attributes.get(SECOND),
            front=front,
            why=attributes.get(REASON),
        )

    @property
    def spent(self) -> float:
        """Seconds that the study's trials have taken so far."""
        return sum(rung.seconds for trial in self.study.trials for rung in self.rungs(trial))

    def importance(self) -> dict[str, float]:
        """Share of the variance of the scores that each dimension explains (fANOVA, Hutter et al. 2014), the largest first.

        On the lowest rung, which all trials have seen: those that went on are the good ones alone. Empty below 8 trials.
        """
        scored = [(trial, self.rungs(trial)[0].score) for trial in self.study.trials if self.rungs(trial)]
        if len(scored) < 8 or len({score for _, score in scored}) == 1 or len(self.space) < 2:
            return {}
        flat = optuna.create_study(direction="maximize" if self.plan.more_is_better else "minimize")
        flat.add_trials(
            [optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=score) for trial, score in scored]
        )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(flat, evaluator=evaluator))


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution([in_one_line(choice) for choice in dimension.choices])
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
