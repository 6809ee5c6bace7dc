"""The data stage `data.generate` of a run: rows of a teacher join the corpus."""

from __future__ import annotations

from dataclasses import replace

from flows.steps import generate_data, prepare_data
from tasks.generation.generate import with_rows
from tasks.generation.record import record_generation
from tasks.lifecycle.ladder_run import LadderRun
from tasks.records.run import StageRecord
from tasks.runtime.stage_inputs import StageInputs


def with_generated(root: StageRecord, inputs: StageInputs, run: LadderRun) -> StageInputs:
    """The inputs whose corpus holds what a teacher wrote to prompts; the same inputs where the ladder asks for nothing.

    The root teacher was trained and judged on the ladder's own documents; held-out documents stay as they are.
    """
    settings = inputs.ladder.data.generate
    if settings is None:
        return inputs
    made = generate_data(root, inputs)
    run.keep_generation((made,))
    record_generation(run.record, made, settings, run.context)
    return replace(inputs, data=run.keep_data(prepare_data(with_rows(inputs.ladder, (made,)), run.context)))
