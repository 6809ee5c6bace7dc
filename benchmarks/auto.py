"""`route: auto` beside every fixed route at the same price: `python -m benchmarks.auto [LADDER] [OVERRIDES] [--seeds N] [--home FOLDER]`.

Every route of the ladder is trained with the FLOPs of the ladder as written. Auto has the same price, its pilots included: it chooses by
them, on the validation split, and trains the winner with the rest, going on from its pilot. Printed are scores on the test split by seed,
the choices, and auto's paired gain over as-written and over the fixed route with the best mean, which nobody knows before. Results lie in
FOLDER and are found there again.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

from benchmarks.common import machine
from conf.loading.load import load
from conf.schema.ladder import Ladder
from models.base.device import precision_of, resolve_device
from models.base.quality import direction, main_metric
from models.base.statistics import interval
from models.evaluation.paired import DocumentScores
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.evaluation.paired_scores import stored_scores
from tasks.proof.arms import replicate
from tasks.records.choice.route import PilotRecord
from tasks.records.format import operations, percent
from tasks.records.run import StageRecord
from tasks.routing.candidates import AS_WRITTEN, candidates_of
from tasks.routing.pilots import pilot_ladder, record_of_pilot
from tasks.routing.search import RouteSearch, routes_to_search
from tasks.routing.warm_start import found
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.members import with_members
from tasks.training.student import train_student

AUTO = "auto"


def trained(ladder: Ladder, root: StageRecord, inputs: StageInputs) -> list[StageRecord]:
    """The students of a ladder, found or trained."""
    own, lineage = replace(inputs, ladder=ladder), [root]
    for stage in ladder.stages:
        members = [train_student(stage, lineage, own, None, member) for member in range(1, stage.members)]
        lineage.append(with_members(train_student(stage, lineage, own), members))
    return lineage[1:]


def judged(student: StageRecord, ladder: Ladder, inputs: StageInputs, split: str) -> StageRecord:
    """A student evaluated alone."""
    return evaluate_model(student, [], replace(inputs, ladder=ladder), precision_of(ladder, ladder.stages[-1].training), split)  # pyright: ignore[reportArgumentType]


def tested(ladder: Ladder, root: StageRecord, inputs: StageInputs) -> float:
    """Score of a ladder's last student on the test split."""
    last = judged(trained(ladder, root, inputs)[-1], ladder, inputs, "test")
    return last.metrics[main_metric(ladder.workload)]


def searched(search: RouteSearch, root: StageRecord, inputs: StageInputs) -> None:
    """Run all rounds of a search."""
    while not search.finished:
        made, scores = list[PilotRecord](), dict[str, DocumentScores]()
        for pilot in search.pilots():
            *above, last = trained(pilot.ladder, root, inputs)
            last = judged(last, pilot.ladder, inputs, "valid")
            made.append(search.count(record_of_pilot(pilot, [*above, last])))
            where = last.name, Path(last.folder), last.weights_sha256
            examples = pilot.ladder.evaluation.examples
            scores[last.fingerprint] = stored_scores(*where, inputs.data, ("valid",), examples, pilot.ladder, inputs.context)
        search.judge(made, scores)
        for each in search.decision.rounds[-1].standings:
            print(f"    {each.route}: {each.score} {'kept' if each.kept else 'dropped'}, {each.reason}", flush=True)


def measure(ladder: Ladder, home: Path, base: Path, seeds: int) -> None:
    """Print the table of a ladder."""
    context = Context(run="benchmark", ladder=ladder.name, home=str(home.absolute()), base=str(base))
    data = prepare_data(ladder, context)
    root = prepare_teacher(StageInputs(ladder, data, context))
    scores: dict[str, list[float]] = {}
    chosen, shares = list[str](), list[float]()
    for number in range(seeds):
        own = replicate(ladder, number)
        inputs, corpus = StageInputs(own, data, context), data.corpus()
        known, fixed = routes_to_search(own, context, corpus), candidates_of(own, context, corpus, pilots=False)
        print(f"seed {number}: {operations(known.price)}; routes {', '.join(known.routes)}", flush=True)
        search = RouteSearch(own, known)
        searched(search, root, inputs)
        decision, final = search.decide()
        assert decision.winner is not None
        print(f"  chosen: {decision.winner}, {decision.reason}", flush=True)
        chosen.append(decision.winner)
        shares.append(decision.spent / decision.price)
        candidates = {AUTO: final} | {route: each.ladder for route, each in fixed.routes.items()}
        for route, made in candidates.items():
            whole = pilot_ladder(made, f"{route}-whole")
            first = found(decision, whole, context) if route == AUTO else {}
            scores.setdefault(route, []).append(tested(whole, root, replace(inputs, first_weights=first)))
            print(f"  {route}: {scores[route][-1]:.4f}", flush=True)
    _print(ladder, scores, chosen, shares)


def _print(ladder: Ladder, scores: dict[str, list[float]], chosen: list[str], shares: list[float]) -> None:
    sign = direction(main_metric(ladder.workload))
    means = {route: sum(found) / len(found) for route, found in scores.items()}
    where = machine(resolve_device(ladder.compute.device))
    print(f"\n{ladder.name}, {len(chosen)} seeds, {main_metric(ladder.workload)} on the test split; {where}")
    for route in sorted(means, key=lambda route: -sign * means[route]):
        print(f"{route:15} {means[route]:.4f}   {' '.join(f'{score:.4f}' for score in scores[route])}")
    best = max((route for route in means if route != AUTO), key=lambda route: sign * means[route])
    counts = ", ".join(f"{route} {count}" for route, count in Counter(chosen).most_common())
    print(f"chosen: {counts}; pilots took {percent(max(shares))} at most")
    for other in dict.fromkeys((AS_WRITTEN, best)):
        gain = interval([sign * (a - b) for a, b in zip(scores[AUTO], scores[other], strict=True)])
        print(f"auto minus {other}: {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}), positive is better")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder", nargs="?", default="digits")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--home", type=Path, default=Path(".ladder/auto"))
    asked = parser.parse_intermixed_args()
    loaded = load(asked.ladder, ("route=auto", *asked.overrides))
    measure(loaded.ladder, asked.home, loaded.base, asked.seeds)
