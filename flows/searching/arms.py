"""The search of every arm of a proof, with as many trials each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from conf.schema.ladder import Ladder
from conf.schema.measures.proof import Arm
from flows.searching.rounds import Searching, search, train_defaults
from tasks.lifecycle.ladder_run import LadderRun
from tasks.records.run import StageRecord
from tasks.runtime.logs import log
from tasks.runtime.stage_inputs import StageInputs
from tasks.search.arms import arm_plan
from tasks.search.cluster import workers_of
from tasks.search.plan import SearchPlan
from tasks.search.result import search_record
from tasks.search.space import applied
from tasks.search.words import scored


class TunedArm(NamedTuple):
    """Result of the search of an arm: values of its settings, none where its own are the best."""

    plan: SearchPlan
    values: dict[str, Any]
    words: str

    def of(self, ladder: Ladder) -> Ladder:
        """The arm's ladder, of any seed, with these values."""
        return applied(ladder, self.plan.space, self.values) if self.values else ladder


def search_arms(ladders: Mapping[Arm, Ladder], root: StageRecord, inputs: StageInputs, run: LadderRun) -> dict[Arm, TunedArm]:
    """Search the settings of every arm, on the validation split and on seeds that no replicate has; empty without `proof.search`."""
    trials = inputs.ladder.proof.search
    if not trials:
        return {}
    from tasks.search.study import claimed, open_study  # Optuna is imported where it searches

    found: dict[Arm, TunedArm] = {}
    with workers_of(inputs.ladder.compute.at_once) as workers:
        for arm, ladder in ladders.items():
            plan = arm_plan(arm, ladder, trials)
            log.info("proof: %s, %d trials of its settings", arm, trials)
            with claimed(run.context.paths, plan):
                study = open_study(plan, run.context.paths)
                searching = Searching(plan, study, [root], StageInputs(plan.ladder, inputs.data, run.context), workers, lambda _: None)
                defaults = train_defaults(searching)
                search(searching, defaults)
                record = search_record(plan, run.record.run, study.records, defaults)
            best, own = record.best, defaults.score
            assert own is not None
            words = f"{arm}: its own settings ({scored(record, own)})"
            if best is not None and best.score is not None:
                values = ", ".join(f"{key} {value}" for key, value in best.values.items())
                words = f"{arm}: {values} ({scored(record, own)} before, {scored(record, best.score)} on the validation split)"
            found[arm] = TunedArm(plan, best.values if best else {}, words)
    return found
