"""Compare a ladder with its control arms over several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from prefect import flow, tags
from prefect.client.schemas.objects import State

from conf.schema.ladder import Ladder
from conf.schema.measures.proof import Arm
from conf.schema.workloads import refuse_unjudged
from flows.adapter.run_labels import untagged
from flows.adapter.steps import cancellable, evaluate_model, record_model
from flows.distill import begin, conclude
from flows.gate_policies import run_with_policy
from flows.generating.generate import with_generated
from flows.parameters import LadderChoice, Note, OptionalBudget, OptionalSeed, Overrides, Person, RunTitle, request_of, resolve
from flows.routing.choose import choose_route
from flows.searching.ahead import train_ahead
from flows.searching.arms import TunedArm, search_arms
from models.base.device import precision_of
from tasks.evaluation.evaluate import answers_on_test
from tasks.lifecycle.ladder_run import LadderRun
from tasks.planning.routes import replicate_seed
from tasks.proof.arms import watched
from tasks.proof.looks import earlier_proofs
from tasks.proof.lost_examples import LabelledAnswers, identified, write_identified
from tasks.proof.prepare_arms import Arms, arms_of
from tasks.proof.proof import proof_of, record_proof, record_test, replicate_of, save_proof
from tasks.records.choice.route import RouteDecision
from tasks.records.proof import Proof, Replicate
from tasks.records.run import RunRecord, StageRecord
from tasks.runtime.logs import log
from tasks.runtime.stage_inputs import StageInputs
from tasks.search.cluster import require_cluster


@flow(name="prove", flow_run_name="proof of {ladder}", persist_result=False)
@cancellable
def prove(
    ladder: LadderChoice = "digits",
    overrides: Overrides = (),
    seed: OptionalSeed = -1,
    fresh: bool = False,
    budget: OptionalBudget = "",
    name: RunTitle = "",
    note: Note = "",
    by: Person = "",
) -> RunRecord | State[RunRecord]:
    """Compare a ladder with its control arms.

    Args:
        ladder: A shipped ladder, or the path of a YAML file.
        overrides: Settings to change, as `key=value`: `proof.seeds=10`, `proof.arms=[staged,direct-matched]`, `proof.pilot=true`.
        seed: First seed of data order and first weights; -1: the ladder's own.
        fresh: Compute anew even results that are stored.
        budget: Wall-clock time such as `2h` for the whole proof, to which steps and held-out examples are scaled down; empty: no limit.
        name: Name of the run, part of its folder's; empty: ladder, three characters and the time.
        note: Why it is made, for the record.
        by: Who asks for it, for the record.
    """
    request = request_of(ladder, overrides=overrides, seed=seed, fresh=fresh, budget=budget, name=name, note=note, by=by, proof=True)
    resolved = resolve(request)
    settings = resolved.ladder
    refuse_unjudged(settings.workload, "ladder", settings.name, "a proof")
    require_cluster(settings.compute.at_once)
    with LadderRun.open(resolved) as run:
        inputs, teacher = begin(run, settings)
        root = run.keep(record_model(teacher, [], inputs))
        inputs = with_generated(root, inputs, run)
        arms = arms_of(settings, inputs.data, run.context)
        for note in arms.notes:
            log.info("%s", note)
        tuned = search_arms(arms.ladders, root, inputs, run)
        if tuned:
            words = "; ".join(each.words for each in tuned.values())
            arms = arms._replace(notes=(*arms.notes, f"{settings.proof.search} trials of every arm's settings, on other seeds: {words}"))
        judged = _tested(root, inputs, precision_of(settings, settings.teacher.training or settings.stages[0].training))
        proof, lost = _compared(arms, tuned, root, judged, inputs, run)
        record_proof(run.record, proof, run.context, lost)
        return conclude(run, settings)


def _compared(
    arms: Arms, tuned: Mapping[Arm, TunedArm], root: StageRecord, judged: Judged, inputs: StageInputs, run: LadderRun
) -> tuple[Proof, Path | None]:
    """Run all arms, seed by seed, so that finished seeds can be compared at any time; also returns the file of lost examples."""
    results: dict[Arm, list[Replicate]] = {arm: [] for arm in arms.ladders}
    answers: dict[Arm, list[LabelledAnswers]] = {arm: [] for arm in arms.ladders}
    settings, tested = inputs.ladder, judged.model
    examples = int(sum(figures.get("count", 0) for figures in tested.slices.values()))
    order = sorted(arms.ladders, key=lambda arm: arm != "staged")  # matched arms follow the steps that it took
    earlier = earlier_proofs(run.context.paths, run.record.run)

    def replicated(arm: Arm, number: int, taken: list[int] | None) -> Ladder:
        made = arms.replicate(arm, number, taken)
        return watched(tuned[arm].of(made) if arm in tuned else made, looked_at=arm == "staged" and number == 0)

    train_ahead(arms, replicated, root, inputs)
    for number in range(settings.proof.seeds):
        taken: list[int] | None = None
        for arm in order:
            ladder = replicated(arm, number, taken)
            log.info("proof: %s, seed %d of %d", arm, number + 1, settings.proof.seeds)
            with _of_arm(run, arm, ladder):
                choice, own = _on_route(StageInputs(ladder, inputs.data, run.context), root)
                ladder = own.ladder
                if not results[order[0]]:
                    run.plan(tuple(stage.name for stage in ladder.stages))
                students = _climbed(root, own, run)
                if len(run.record.stages) < len(run.record.planned):
                    for student in students:
                        run.keep(student)
                last = _tested(students[-1], own, precision_of(ladder, ladder.stages[-1].training))
            taken = [student.steps for student in students] if arm == "staged" else taken
            answers[arm].append(last.answers)
            results[arm].append(replicate_of(arm, ladder, students, last.model, arms.forwards, choice))
            save_proof(run.record, proof_of(settings, run.record.run, tested, examples, results, arms.notes, earlier))
    proof = proof_of(settings, run.record.run, tested, examples, results, arms.notes, earlier)
    file = write_identified(Path(run.record.folder), judged.answers, answers, inputs.data.corpus())
    return proof.model_copy(update={"identified": identified(judged.answers, answers)}), file


def _on_route(inputs: StageInputs, root: StageRecord) -> tuple[RouteDecision | None, StageInputs]:
    """The choice of an arm's route and its ladder, where pilots choose it; finished pilots of an interrupted proof are in the store."""
    if inputs.ladder.route != "auto":
        return None, inputs
    decision, made = choose_route(root, inputs)
    log.info("route: %s (%s)", decision.winner, decision.reason)
    return decision, made


def _climbed(root: StageRecord, inputs: StageInputs, run: LadderRun) -> list[StageRecord]:
    lineage = [root]
    for stage in inputs.ladder.stages:
        lineage += run_with_policy(stage, lineage, inputs, run)
    return lineage[1:]


class Judged(NamedTuple):
    """A model evaluated on the test split, and its answers there."""

    model: StageRecord
    answers: LabelledAnswers


def _tested(model: StageRecord, inputs: StageInputs, precision: str) -> Judged:
    """Evaluate a model on the test split, without samples and without its teachers."""
    evaluation = inputs.ladder.evaluation.model_copy(update={"samples": 0})
    quiet = replace(inputs, ladder=inputs.ladder.model_copy(update={"evaluation": evaluation}))
    with untagged():
        judged = evaluate_model(model, [], quiet, precision, "test")
    record_test(judged, inputs.context)
    return Judged(judged, answers_on_test(model, quiet, precision))


@contextmanager
def _of_arm(run: LadderRun, arm: Arm, ladder: Ladder) -> Iterator[None]:
    """Tag the runs made within, in Prefect and in MLflow."""
    before, seed = run.context, replicate_seed(ladder)
    run.context = before.model_copy(update={"tags": {"ladder.arm": arm, "ladder.seed": str(seed)}})
    try:
        with tags(f"arm:{arm}", f"seed:{seed}"):
            yield
    finally:
        run.context = before
