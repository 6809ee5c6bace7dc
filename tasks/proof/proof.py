"""Compares the scores of arms, and records the proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from conf.atomic import write_atomic
from conf.schema.ladder import Ladder
from conf.schema.measures.proof import ARMS, MATCHED, Arm
from models.base.looks import interval_at, seeds_to_decide
from models.base.quality import baseline_figures, direction, learned_nothing, main_metric
from models.base.statistics import interval, outcome
from tasks.planning.costs.economics import HOUR
from tasks.planning.matching import total_of
from tasks.planning.routes import replicate_seed
from tasks.proof.arms import MEANING, ForwardFlops, arm_flops
from tasks.proof.looks import looks_at
from tasks.proof.verdict_text import trust, verdict
from tasks.records.choice.route import RouteDecision
from tasks.records.format import percent
from tasks.records.proof import PROOF, ArmResult, Contrast, Estimate, Proof, Replicate
from tasks.records.run import RunRecord, StageRecord
from tasks.runtime.logs import NOT_ON_TERMINAL, log
from tasks.runtime.runs.run_registry import Context
from tasks.tracking.recorder import recorder_of
from tasks.tracking.tracker import Tracker
from tasks.training.costs.cost_model import StageFlops, seconds_of
from tasks.training.teaching import planned_teaching


def metric_of(ladder: Ladder) -> str:
    """The metric that the arms are compared by."""
    return main_metric(ladder.workload)


def replicate_of(
    arm: Arm,
    ladder: Ladder,
    students: Sequence[StageRecord],
    tested: StageRecord,
    forwards: ForwardFlops,
    route: RouteDecision | None = None,
) -> Replicate:
    """Scores and costs of one arm with one seed.

    Args:
        arm: Which.
        ladder: As rewritten, with this seed.
        students: Its models, judged on the validation split.
        tested: The last of them, judged on the test split.
        forwards: To count its operations as if it were run alone, whatever caches and earlier arms saved.
        route: The choice of its route, for the arm auto: its price is counted with that of the students.
    """
    if route is None:
        chosen = [student.choice and student.choice.place for student in students]
        costs = arm_flops(arm, ladder, forwards, [student.steps for student in students], chosen)
        flops, seconds = total_of(costs), sum(map(seconds_of, students, costs))
    else:
        flops = route.spent + route.final
        seconds = route.seconds + sum(map(seconds_of, students, _after_pilots(route, ladder, forwards)))
    metric = metric_of(ladder)
    return Replicate(
        seed=replicate_seed(ladder),
        score=tested.metrics[metric],
        valid=students[-1].metrics[metric],
        flops=flops,
        seconds=seconds,
        money=seconds / HOUR * ladder.economics.machine_factor * ladder.economics.price_per_hour,
        steps=tuple(student.steps for student in students),
        fingerprints=tuple(student.fingerprint for student in students),
        reused=sum(student.reused for student in students),
        parameters=students[-1].parameters,
        nothing=learned_nothing(tested.metrics),
        route=route,
    )


def _after_pilots(route: RouteDecision, ladder: Ladder, forwards: ForwardFlops) -> list[StageFlops]:
    """Operations of each stage of a chosen route; those with a cache of the root's answers, begun by pilots, share the saving."""
    arms: dict[str, Arm] = {"as-written": "staged", **{arm: arm for arm in ARMS}}
    costs = arm_flops(arms[route.winner or ""], ladder, forwards)
    cached = [
        stage.signals.source == "cached" and planned_teaching(ladder, place).by_root_alone for place, stage in enumerate(ladder.stages)
    ]
    answers = sum(cost.answers for cost, stored in zip(costs, cached, strict=True) if stored)
    share = 1 - (total_of(costs) - route.final) / answers if answers else 1.0
    return [cost._replace(answers=round(cost.answers * share)) if stored else cost for cost, stored in zip(costs, cached, strict=True)]


def proof_of(
    ladder: Ladder,
    run: str,
    root: StageRecord | None,
    examples: int,
    results: dict[Arm, list[Replicate]],
    notes: Sequence[str],
    earlier: Sequence[Proof] = (),
) -> Proof:
    """Compare the finished arms, all or some.

    Args:
        ladder: Its `proof` says how.
        run: The run's name.
        root: The root teacher, judged on the test split.
        examples: Held-out rows of a score.
        results: Replicates of each arm, in the order of the seeds.
        notes: To be kept.
        earlier: Finished proofs of this home, the oldest first: those of the same students were looks at these seeds.
    """
    settings, metric = ladder.proof, metric_of(ladder)
    resolution = 1 / examples if metric == "accuracy" and examples else 0.0

    def result(arm: Arm, replicates: list[Replicate]) -> ArmResult:
        def mean(values: list[float]) -> Estimate | None:
            return Estimate.of(interval(values, settings.confidence, resolution)) if len(values) > 1 else None

        return ArmResult(
            arm=arm,
            meaning=MEANING[arm],
            parameters=replicates[0].parameters,
            replicates=tuple(replicates),
            score=mean([each.score for each in replicates]),
            valid=mean([each.valid for each in replicates]),
        )

    notes = (*notes, *choices_of(results))
    arms = tuple(result(arm, replicates) for arm, replicates in results.items() if replicates)
    proof = Proof(
        run=run,
        ladder=ladder.name,
        metric=metric,
        delta=settings.least(ladder.workload),
        confidence=settings.confidence,
        accounting=settings.accounting,
        seeds=settings.seeds,
        pilot=settings.pilot,
        test_examples=examples,
        root=root.metrics[metric] if root else None,
        baseline=baseline_figures(root.metrics).get(metric) if root else None,
        arms=arms,
        contrasts=tuple(_contrasts(ladder, run, results, resolution, earlier)),
        verdict="",
        currency=ladder.economics.currency,
        notes=tuple(notes),
    )
    return proof.model_copy(update={"verdict": verdict(proof), "notes": (*notes, *trust(proof))})


def choices_of(results: Mapping[Arm, Sequence[Replicate]]) -> list[str]:
    """A note on the routes that pilots chose, seed by seed."""
    found = [(arm, [each.route for each in replicates if each.route]) for arm, replicates in results.items()]
    return [
        f"{arm}: pilots took {percent(max(route.spent / route.price for route in routes))} at most and chose "
        + ", ".join(f"{name} {count} times" if count > 1 else f"{name} once" for name, count in Counter(r.winner for r in routes).items())
        for arm, routes in found
        if routes
    ]


def opponents(ladder: Ladder, arms: Sequence[Arm]) -> tuple[Arm, list[Arm]]:
    """The first arm of every contrast, and those that it is held against: first the one that the accounting asks for.

    Staged against direct, as the accounting matches them; where one of these is not run, the first arm against the second.
    """
    first: Arm = "staged" if "staged" in arms else arms[0]
    wanted = MATCHED[ladder.proof.accounting]
    others: list[Arm] = [arm for arm in arms if arm != first]
    return first, sorted(others, key=lambda arm: (arm != wanted, not arm.startswith("direct")))


def _contrasts(
    ladder: Ladder, run: str, results: dict[Arm, list[Replicate]], resolution: float, earlier: Sequence[Proof]
) -> Iterator[Contrast]:
    sign, delta = direction(metric_of(ladder)), ladder.proof.least(ladder.workload)
    finished = all(len(replicates) == ladder.proof.seeds for replicates in results.values())
    first, others = opponents(ladder, list(results))
    for second in others:
        pairs = list(zip(results[first], results[second], strict=False))  # while it runs, an arm may be one seed ahead
        assert all(a.seed == b.seed for a, b in pairs)
        if len(pairs) < 2:
            continue
        gains = tuple(sign * (a.score - b.score) for a, b in pairs)
        looks = looks_at(run, (first, second), pairs, earlier)
        judged = [[gains[place] for place in places] for places in looks.added]
        given = (ladder.proof.confidence, resolution, ladder.proof.interval)
        gain = interval_at(judged or [gains], *given, number=looks.number)
        decided = outcome(gain, delta) if finished and judged else "undecided"
        learned = not all(each.nothing for pair in pairs for each in pair)  # no number of seeds would tell two such arms apart
        undecided = decided == "undecided" and finished and learned and bool(judged)
        yield Contrast(
            first=first,
            second=second,
            gains=gains,
            gain=Estimate.of(gain),
            outcome=decided,
            seeds_to_decide=seeds_to_decide(judged, delta, *given, number=len(looks.taken)) if undecided else None,
            looks=looks.taken,
            look=looks.number,
        )


def save_proof(record: RunRecord, proof: Proof) -> Path:
    """Write `proof.json` beside the run's record, whole or not at all."""
    path = Path(record.folder) / PROOF
    write_atomic(path, proof.model_dump_json(indent=1))
    return path


def record_test(judged: StageRecord, context: Context) -> None:
    """Keep in MLflow, with the model's run, its figures on the test split, which a proof reads."""

    def act(tracker: Tracker, run_id: str) -> None:
        tracker.log_test(run_id, judged.metrics, judged.steps)

    recorder_of(context.paths, context.run).attempt(f"{judged.name} (test split)", judged.mlflow_run_id, act)


def record_proof(record: RunRecord, proof: Proof, context: Context, examples: Path | None = None) -> None:
    """Keep the proof in MLflow: the files, the verdict as a tag, each arm's mean and each contrast as metrics.

    Args:
        record: The run.
        proof: The result.
        context: Where and for whom.
        examples: The file of compression-identified examples.
    """
    path = save_proof(record, proof)
    figures = {f"proof/{arm.arm}": arm.score.mean for arm in proof.arms if arm.score}
    figures |= {f"proof/{c.first}-minus-{c.second}": c.gain.mean for c in proof.contrasts}

    def send(tracker: Tracker, run_id: str) -> None:
        from datetime import UTC, datetime

        stamp = int(datetime.now(UTC).timestamp() * 1000)
        for file in filter(None, (path, examples)):
            tracker.log_artifact(run_id, file)
        tracker.log_points(run_id, [(key, value, 0, stamp) for key, value in figures.items()])
        tracker.set_tags(run_id, {"ladder.verdict": proof.verdict})

    recorder_of(context.paths, record.run).attempt("proof", record.mlflow_run_id, send)
    log.info("%s", proof.verdict, extra=NOT_ON_TERMINAL)  # the command prints it at its end
