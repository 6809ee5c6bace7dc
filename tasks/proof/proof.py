"""From a ladder to its arms, and from what they scored to a proof."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import Loaded
from conf.schema.ladder import Ladder
from conf.schema.proof import ARMS, MATCHED, Arm
from models.base.numerics import NUMERICS
from models.base.statistics import interval, outcome, seeds_to_decide
from tasks.proof.arms import MEANING, Prices, arm_flops, direct, impossible, refuse, rewritten, scratch, settled, watched
from tasks.proof.verdict_text import trust, verdict
from tasks.records.proof import PROOF, ArmResult, Contrast, Estimate, Proof, Replicate
from tasks.records.run import DataRecord, RunRecord, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.run_registry import Context, store_of
from tasks.store.fingerprint import fingerprint
from tasks.tracking.recorder import recorder_of
from tasks.tracking.tracker import Tracker
from tasks.training.identity import numeric_settings, untaught
from tasks.training.signal_policy import examples_of

KIND = "prices"  # part of the store
FROM_ROOT: tuple[Arm, ...] = ("direct", "direct-matched", "direct-free", "pruned-only")


class Arms(NamedTuple):
    """The arms of a proof, the most wanted first, and why others were left out."""

    ladders: dict[Arm, Ladder]
    prices: Prices
    notes: tuple[str, ...]


def arms_of(ladder: Ladder, data: DataRecord, context: Context) -> Arms:
    """Rewrite the ladder into its arms, each with the FLOPs that it is to have.

    Raises:
        UserError: An arm that is named cannot be, or less than two arms can.
    """
    base = settled(ladder, data.corpus().info)
    prices, unfit = _prices(base, data, context)
    made, notes = dict[Arm, Ladder](), list[str]()
    for arm in ladder.proof.arms or ARMS:
        try:
            refuse(arm, base)
            if unfit and arm in FROM_ROOT:
                raise _unfit(arm, unfit)
            made[arm] = rewritten(arm, base, prices)
        except UserError as error:
            if ladder.proof.arms:
                raise
            notes.append(str(error).removeprefix("proof.arms: "))
    if len(made) < 2:
        raise UserError.about("proof.arms", ", ".join(made) or "none", "two arms or more", " ".join(notes))
    return Arms(made, prices, tuple(f"left out: {note}" for note in notes))


def trained(loaded: Loaded, home: Home) -> list[Ladder]:
    """Every ladder that a proof trains: all arms with all seeds, and the controls of the first one's audits."""
    from tasks.data.prepare import prepare_data

    whole = loaded.ladder.model_copy(update={"proof": loaded.ladder.proof.model_copy(update={"pilot": False})})
    context = Context(run="calibration", ladder=whole.name, home=str(home.root), base=str(loaded.base))
    data = prepare_data(whole, context)
    arms = arms_of(whole, data, context)
    staged = arms.ladders.get("staged")
    controls = [staged.model_copy(update={"stages": tuple(map(untaught, staged.stages))})] if staged else []
    return [*arms.ladders.values()] * whole.proof.seeds + (controls if watched(whole, looked_at=True).audit.control else [])


def _prices(ladder: Ladder, data: DataRecord, context: Context) -> tuple[Prices, str]:
    """What a forward pass of each student costs, and why the last one cannot start from the root, if so; counted once."""
    students = [numeric_settings(stage.student) for stage in ladder.stages]
    teacher = ladder.teacher.model_dump(mode="json", exclude={"training"})
    identity = {"kind": KIND, "numerics": NUMERICS, "students": students, "teacher": teacher, "data": data.content_hash}
    store, mark = store_of(context), fingerprint(identity)
    with store.lock(mark):
        found = store.find(KIND, mark)
        if found is None:
            counted = _counted(ladder, data, context)

            def write(folder: Path) -> None:
                (folder / "prices.json").write_text(json.dumps(counted))

            found = store.publish(KIND, ladder.name, identity, mark, context.made, write)
    known = json.loads((found.folder / "prices.json").read_text())
    return Prices(**known["prices"] | {"students": tuple(known["prices"]["students"])}), known["unfit"]


def refuse_unfit(ladder: Ladder, context: Context) -> None:
    """Refuse a named arm whose student cannot start from the root, as far as that is known before the data are prepared.

    Raises:
        UserError: With what their shapes have not in common.
    """
    named: list[Arm] = [arm for arm in ladder.proof.arms if arm in FROM_ROOT]
    if named and ladder.stages[-1].student.initialisation != "random":
        from tasks.planning.preflight import check_ladder

        try:
            check_ladder(direct(ladder), context)
        except UserError as error:
            raise _unfit(named[0], str(error)) from None


def _unfit(arm: Arm, error: str) -> UserError:
    reason = error.partition("Here ")[2].partition(". ")[0] or error.rstrip(".")
    return impossible(arm, f"an arm whose last student does not start from the root, since {reason}", "Leave it out.")


def _counted(ladder: Ladder, data: DataRecord, context: Context) -> dict[str, Any]:
    from tasks.planning.preflight import check_ladder  # torch is imported where something is computed

    corpus = data.corpus()
    root, sizes = check_ladder(ladder, context, corpus)
    assert root is not None  # it is at hand by now
    unfit, single = "", sizes[-1]
    try:
        _, (single,) = check_ladder(direct(ladder), context, corpus)
    except UserError as error:
        unfit = str(error)
    _, (alone,) = check_ladder(scratch(ladder), context, corpus)
    prices = Prices(
        root.forward_flops,
        tuple(size.forward_flops for size in sizes),
        single.forward_flops,
        alone.forward_flops,
        examples_of(corpus.info),
    )
    return {"prices": prices._asdict(), "unfit": unfit}


def metric_of(ladder: Ladder) -> str:
    """What the arms are compared by."""
    return "bits_per_byte" if ladder.workload == "causal-lm" else "accuracy"


def replicate_of(arm: Arm, ladder: Ladder, students: Sequence[StageRecord], tested: StageRecord, prices: Prices) -> Replicate:
    """What one arm with one seed came to.

    Args:
        arm: Which.
        ladder: As rewritten, with this seed.
        students: Its models, judged on the validation split.
        tested: The last of them, judged on the test split.
        prices: To count its operations as if it were run alone, whatever caches and earlier arms saved.
    """
    pairs = zip(ladder.stages, students, strict=True)
    trained = tuple(s.model_copy(update={"training": s.training.model_copy(update={"steps": r.steps})}) for s, r in pairs)
    metric, seconds = metric_of(ladder), sum(student.seconds for student in students)
    return Replicate(
        seed=ladder.stage_seed(ladder.stages[-1]),
        score=tested.metrics[metric],
        valid=students[-1].metrics[metric],
        flops=arm_flops(arm, ladder.model_copy(update={"stages": trained}), prices),
        seconds=seconds,
        money=seconds / 3600 * ladder.economics.machine_factor * ladder.economics.price_per_hour,
        steps=tuple(student.steps for student in students),
        fingerprints=tuple(student.fingerprint for student in students),
        reused=sum(student.reused for student in students),
        parameters=students[-1].parameters,
    )


def proof_of(
    ladder: Ladder, run: str, root: StageRecord | None, examples: int, results: dict[Arm, list[Replicate]], notes: Sequence[str]
) -> Proof:
    """Compare what is finished, whole or not.

    Args:
        ladder: Its `proof` says how.
        run: The run's name.
        root: The root teacher, judged on the test split.
        examples: Held-out rows of a score.
        results: Replicates of each arm, in the order of the seeds.
        notes: To be kept.
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
        arms=arms,
        contrasts=tuple(_contrasts(ladder, results, resolution)),
        verdict="",
        currency=ladder.economics.currency,
        notes=tuple(notes),
    )
    return proof.model_copy(update={"verdict": verdict(proof), "notes": (*notes, *trust(proof))})


def opponents(ladder: Ladder, arms: Sequence[Arm]) -> tuple[Arm, list[Arm]]:
    """The first arm of every contrast, and those that it is held against: first the one that the accounting asks for.

    Staged against direct, as the accounting matches them; where one of these is not run, the first arm against the second.
    """
    first: Arm = "staged" if "staged" in arms else arms[0]
    wanted = MATCHED[ladder.proof.accounting]
    others: list[Arm] = [arm for arm in arms if arm != first]
    return first, sorted(others, key=lambda arm: (arm != wanted, not arm.startswith("direct")))


def _contrasts(ladder: Ladder, results: dict[Arm, list[Replicate]], resolution: float) -> list[Contrast]:
    settings, delta = ladder.proof, ladder.proof.least(ladder.workload)
    sign = -1.0 if metric_of(ladder) == "bits_per_byte" else 1.0
    first, others = opponents(ladder, list(results))
    found = []
    for second in others:
        pairs = list(zip(results[first], results[second], strict=False))  # while it runs, an arm may be one seed ahead
        assert all(a.seed == b.seed for a, b in pairs)
        if len(pairs) < 2:
            continue
        gains = tuple(sign * (a.score - b.score) for a, b in pairs)
        gain = interval(gains, settings.confidence, resolution)
        decided = outcome(gain, delta)
        more = seeds_to_decide(gain, delta, settings.confidence) if decided == "undecided" else None
        found.append(Contrast(first=first, second=second, gains=gains, gain=Estimate.of(gain), outcome=decided, seeds_to_decide=more))
    return found


def save_proof(record: RunRecord, proof: Proof) -> Path:
    """Write `proof.json` beside the run's record, whole or not at all."""
    path = Path(record.folder) / PROOF
    aside = path.with_suffix(".writing")
    aside.write_text(proof.model_dump_json(indent=1))
    aside.replace(path)
    return path


def record_proof(record: RunRecord, proof: Proof, context: Context, examples: Path | None = None) -> None:
    """Keep the proof in MLflow: the files, the verdict as a tag, each arm's mean and each contrast as metrics.

    Args:
        record: The run.
        proof: What it found.
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
    log.info("%s", proof.verdict)
