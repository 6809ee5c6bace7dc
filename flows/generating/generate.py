"""The data stage `data.generate` of a run: rows of a teacher join the corpus."""

from __future__ import annotations

from dataclasses import replace

from flows.adapter.steps import generate_data, judge_student, prepare_data, read_prompts, train_student
from tasks.generation.generate import with_rows
from tasks.generation.record import record_generation
from tasks.generation.rounds import Rounds
from tasks.lifecycle.ladder_run import LadderRun
from tasks.records.run import StageRecord
from tasks.runtime.stage_inputs import StageInputs
from tasks.training.bake_off import quiet_inputs


def with_generated(root: StageRecord, inputs: StageInputs, run: LadderRun) -> StageInputs:
    """The inputs with the generated rows in their corpus; unchanged where the ladder has no `data.generate`.

    The root teacher was trained and judged on the ladder's own documents; held-out documents stay as they are. With several rounds, the
    student of the first stage is trained after each, and its failures choose the next prompts while that is worth its price. The stage
    then finds its student in the store.
    """
    settings = inputs.ladder.data.generate
    if settings is None:
        return inputs
    rounds = Rounds(settings, read_prompts(inputs))
    while rounds.goes_on:
        made = rounds.add(generate_data(root, inputs, rounds.prompts, rounds.student))
        run.keep_generation(rounds.records)
        given = replace(inputs, data=prepare_data(with_rows(inputs.ladder, rounds.records, inputs.data), run.context))
        if settings.rounds > 1:
            quiet = quiet_inputs(given)
            own = replace(quiet, context=run.context.model_copy(update={"mlflow_run_id": None}))  # no rung of the ladder yet
            student = train_student(inputs.ladder.stages[0], [root], own)
            made = rounds.judge(student, judge_student(student, root, rounds.held, rounds.unused, given))
            run.keep_generation(rounds.records)
        record_generation(run.record, made, settings, run.context)
    joined = run.keep_data(prepare_data(with_rows(inputs.ladder, rounds.used, inputs.data), run.context))
    run.keep_generation(tuple(made.model_copy(update={"corpus": joined.fingerprint}) for made in rounds.records))
    return replace(inputs, data=joined)
