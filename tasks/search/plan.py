"""Plan of a search: stages, space, objective, rungs and name of its study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conf.errors import UserError
from conf.loading.introspect import suggest
from conf.schema.choice.search import METRICS, MORE_IS_BETTER, SearchSettings
from conf.schema.ladder import Ladder
from tasks.planning.matching import shortened
from tasks.search.space import Dimension, Value, applied, dimensions
from tasks.training.identity import known_settings, numeric_settings

LEAST_STEPS = 50  # of a stage on the lowest rung, or all that it has


@dataclass(frozen=True)
class SearchPlan:
    """A search, checked.

    Attributes:
        ladder: As its file has it, settled.
        stages: Names of the stages whose settings are searched, and which a trial trains.
        above: Names of the stages that are trained once, with the ladder's own settings.
        space: What is searched.
        metric: Figure of the last stage on the validation split.
        study: Name of the study.
        shares: Share of the steps on each rung, the last 1.
    """

    ladder: Ladder
    stages: tuple[str, ...]
    above: tuple[str, ...]
    space: tuple[Dimension, ...]
    metric: str
    study: str
    shares: tuple[float, ...]

    @property
    def settings(self) -> SearchSettings:
        """The ladder's `search`."""
        return self.ladder.search

    @property
    def more_is_better(self) -> bool:
        """Whether a larger figure is the better one."""
        return self.metric in MORE_IS_BETTER

    @property
    def by_objectives(self) -> bool:
        """Whether there is a second objective."""
        return self.settings.against != "none"

    def trial(self, values: dict[str, Value], share: float = 1.0) -> Ladder:
        """The ladder that a trial runs, its schedules shortened to a rung.

        Raises:
            UserError: The values do not fit together.
        """
        return shortened(applied(self.ladder, self.space, values), share, self.stages, LEAST_STEPS)

    def steps(self, share: float, values: dict[str, Value] | None = None) -> int:
        """Steps of the last stage on a rung."""
        return next(stage for stage in self.trial(values or {}, share).stages if stage.name == self.stages[-1]).training.steps

    @property
    def identity(self) -> dict[str, Any]:
        """All on which a trial's score depends: a study holds trials of one identity alone."""
        settings, ladder = self.settings, self.ladder
        return {
            "ladder": numeric_settings(ladder) | {"stages": {stage.name: _of_stage(stage) for stage in ladder.stages}},
            "teacher": ladder.teacher.model_dump(mode="json", exclude_defaults=True),
            "examples": ladder.evaluation.examples,
            "stages": list(self.stages),
            "space": {dimension.name: dimension.words for dimension in self.space},
            "metric": self.metric,
            "against": settings.against,
            "sampler": settings.sampler,
            "pruner": "none" if self.by_objectives else settings.pruner,
            "shares": list(self.shares),
            "max_parameters": settings.max_parameters,
        }


def _of_stage(stage: Any) -> dict[str, Any]:
    return numeric_settings(stage) | {"teachers": list(stage.teachers), "signals": known_settings(stage.signals)}


def plan_search(ladder: Ladder) -> SearchPlan:
    """The search that a settled ladder asks for.

    Raises:
        UserError: Its stage, metric or space cannot be, or no two rungs differ.
    """
    settings, names = ladder.search, [stage.name for stage in ladder.stages]
    if settings.stage is not None and settings.stage not in names:
        remedy = suggest(settings.stage, names).strip() or "Leave it out for all stages."
        raise UserError.about("search.stage", settings.stage, f"a stage of this ladder: {', '.join(names)}", remedy)
    place = names.index(settings.stage) if settings.stage else 0
    stages = (settings.stage,) if settings.stage else tuple(names)
    metrics = METRICS[ladder.workload]
    metric = settings.metric or metrics[0]
    if metric not in metrics:
        remedy = suggest(metric, metrics).strip() or f"Leave it out for {metrics[0]}."
        raise UserError.about("search.metric", metric, f"{', '.join(metrics)}, for workload {ladder.workload}", remedy)
    if settings.sampler == "nsga2" and settings.against == "none":
        raise UserError.about("search.sampler", "nsga2", "tpe or random, for one objective", "Name a second one: search.against.")
    space = dimensions(ladder, stages)
    study = settings.study or "-".join((ladder.name, *((settings.stage,) if settings.stage else ())))
    return SearchPlan(ladder, stages, tuple(names[:place]), space, metric, study, _shares(ladder, stages))


def _shares(ladder: Ladder, stages: tuple[str, ...]) -> tuple[float, ...]:
    """The rungs' shares of the steps; rungs on which the schedules would be the same are one."""
    settings = ladder.search
    if settings.pruner == "none" or settings.against != "none":
        return (1.0,)
    found: dict[tuple[int, ...], float] = {}
    for rung in range(settings.rungs):
        share = settings.factor ** -(settings.rungs - 1 - rung)
        found[tuple(stage.training.steps for stage in shortened(ladder, share, stages, LEAST_STEPS).stages)] = share
    return tuple(found.values())
