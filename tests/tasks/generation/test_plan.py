"""A plan knows the generated rows of an earlier run of the same settings and prompts, and says where there are none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conf.home import Home
from conf.loading.load import Loaded, to_yaml
from conf.schema.ladder import Ladder
from tasks.planning.budget import STAGE_SECONDS, fit_budget
from tasks.planning.generated import NOTE, generated_data
from tasks.planning.plan import make_plan
from tasks.records.choice.generation import GenerationRecord
from tasks.records.format import operations
from tasks.runtime.runs.run_registry import save
from tasks.runtime.stage_inputs import StageInputs
from tests.factories import run_record
from tests.tasks.generation.conftest import Made

FIELDS = {"teacher": "t", "fingerprint": "f", "answers_fingerprint": "a", "folder": "", "prompts": 1, "answers": 1, "kept": 1}


def finished(given: StageInputs, ladder: Ladder, joined: bool = True) -> None:
    """Record a run of the ladder that wrote to the prompts as they are now, and was killed before the rows had joined the data or after."""
    from tasks.generation.prompts import prompts_hash

    assert ladder.data.generate is not None
    home, source = Home(Path(given.context.home)), prompts_hash(ladder.data.generate.prompts, Path(given.context.base))
    folder = home.runs / "tiny-1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ladder.yaml").write_text(to_yaml(ladder))
    made = GenerationRecord.model_validate(FIELDS | {"source": source, "corpus": given.data.fingerprint if joined else None})
    save(home, run_record("tiny-1", data=given.data, generation=(made,), folder=str(folder)))


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_rows_of_an_earlier_run(inputs: Made, rounds: int) -> None:
    given = inputs(rounds=rounds)
    assert generated_data(given.ladder, given.context) is None
    finished(given, given.ladder, joined=False)
    assert generated_data(given.ladder, given.context) is None
    finished(given, given.ladder)
    assert generated_data(given.ladder, given.context) == given.data
    assert generated_data(inputs(rounds=rounds, temperature=0.5).ladder, given.context) is None
    longer = given.ladder.stages[0].model_copy(update={"training": given.ladder.stages[0].training.model_copy(update={"steps": 2})})
    other = given.ladder.model_copy(update={"stages": (longer,)})
    assert (generated_data(other, given.context) is None) == (rounds == 2)  # whose student chooses the prompts
    (Path(given.context.base) / "prompts.txt").write_text("say something else\n")
    assert generated_data(given.ladder, given.context) is None


def test_a_plan_says_that_the_rows_are_not_there(inputs: Made) -> None:
    given = inputs()
    plan = make_plan(given.ladder, Path(given.context.base), Home(Path(given.context.home)))
    assert NOTE in plan.notes
    assert plan.stages[0].action == "compute"


@pytest.mark.parametrize(("rounds", "times"), [(1, None), (2, "once"), (4, "up to 3 times")])
def test_a_plan_prices_what_rounds_train(inputs: Made, rounds: int, times: str | None) -> None:
    given = inputs(rounds=rounds)
    plan = make_plan(given.ladder, Path(given.context.base), Home(Path(given.context.home)))
    said = [note for note in plan.notes if note.startswith("the rounds of data.generate train")]
    first, steps = plan.stages[0], given.ladder.stages[0].training.steps
    wanted = f"the rounds of data.generate train {first.name} {times} more, {operations(first.flops * steps)} and about "
    assert [note[: len(wanted)] for note in said] == ([] if times is None else [wanted])


def test_a_budget_counts_what_rounds_train(inputs: Made) -> None:
    def needed(rounds: int) -> float:
        given = inputs(rounds=rounds)
        words = fit_budget(Loaded(given.ladder, Path(given.context.base)), "9d", Home(Path(given.context.home))).words
        found = re.search(r"about (\d+) s, besides what data\.generate takes", words)
        assert found is not None, words
        return float(found[1])

    assert 3 * STAGE_SECONDS <= needed(4) - needed(1) <= 3 * STAGE_SECONDS + 3
