"""Plan, budget, arms of a proof and the training itself count the same FLOPs for a stage, to the last digit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from conf.home import Home
from conf.schema.ladder import Ladder
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data import tokenizers
from models.data.batches import TrainingBatches
from models.signals.cache import keys_of
from tasks.data.prepare import prepare_data
from tasks.planning.budget import answers_in_turn
from tasks.planning.matching import total_of
from tasks.planning.plan import make_plan
from tasks.proof.arms import arm_flops
from tasks.proof.prepare_arms import arms_of
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.costs.cost_model import Forward, training_flops
from tasks.training.costs.examples import TrainingExamples, training_examples
from tasks.training.members import with_members
from tasks.training.student import train_student

pytestmark = pytest.mark.thorough

LINES = "".join(f"def function_{i % 3}(value):\n    return value * {i % 5} + len(str({i % 7}))\n\n\n" for i in range(30))
SHAPE = {"hidden_size": 16, "layers": 4, "heads": 4, "key_value_heads": 2, "feed_forward": 24}
TRAINING = {"steps": 3, "batch_size": 4, "precision": "fp32"}
ENDS_AFTER_TWO = {"patience": 1, "validate_every": 1, "learning_rate": 1e-12}  # nothing improves
ALPHAS = [0.0, 0.7, {"kind": "cosine", "start": 0.8, "end": 0.0}, {"kind": "cosine", "start": 0.0, "end": 0.8}]


def ladder_of(*stages: dict[str, Any]) -> Ladder:
    def stage(place: int, given: dict[str, Any]) -> dict[str, Any]:
        student = {"shape": SHAPE | {"layers": 3 - place}, "initialisation": "layers"} | given.get("student", {})
        return {"name": f"s{place}", **given, "student": student, "training": TRAINING | given.get("training", {})}

    return Ladder.model_validate(
        {
            "name": "tiny",
            "data": {"source": "files", "paths": ["texts/*.txt"], "sequence_length": 4, "valid_fraction": 0.2, "test_fraction": 0.2},
            "tokenizer": {"kind": "teacher"},
            "teacher": {"source": "checkpoint", "path": "teacher"},
            "compute": {"at_once": None, "device": "cpu"},
            "evaluation": {"examples": 8},
            "proof": {"arms": ["staged", "scratch", *["direct-matched"] * (len(stages) > 1)]},
            "stages": [stage(place, given) for place, given in enumerate(stages)],
        }
    )


class Prepared(NamedTuple):
    """A folder with texts, a teacher whose BPE has ids that they do not use, and a home with the data and the imported teacher."""

    folder: Path
    data: DataRecord
    root: StageRecord

    @contextmanager
    def fresh(self) -> Iterator[Context]:
        """A home in which nothing is trained yet."""
        with TemporaryDirectory() as home:
            shutil.copytree(self.folder / "home", home, dirs_exist_ok=True)
            yield Context(run="run-1", ladder="tiny", home=home, base=str(self.folder))

    def trained(self, ladder: Ladder, context: Context) -> list[StageRecord]:
        lineage = [self.root]
        inputs = StageInputs(ladder, self.data, context)
        for stage in ladder.stages:
            first, *others = (train_student(stage, lineage, inputs, member=member) for member in range(stage.members))
            lineage.append(with_members(first, others))
        return lineage[1:]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "texts").mkdir()
    for index in range(12):
        (folder / "texts" / f"{index}.txt").write_text(f"# {index}\n{LINES[index * 50 : index * 50 + 400]}")
    tokenizer = tokenizers.train_bpe([LINES, Path(__file__).read_text()], 600)
    torch.manual_seed(0)
    shape = ladder_of({}).stages[0].student.shape.model_copy(update={"layers": 4})
    model: Any = build(config_for(shape, Interface("causal-lm", 4, len(tokenizer), *tokenizers.special_ids(tokenizer))), "causal-lm")
    model.save_pretrained(folder / "teacher")
    tokenizers.save(tokenizer, folder / "teacher")
    (folder / "home").mkdir()
    context = Context(run="run-0", ladder="tiny", home=str(folder / "home"), base=str(folder))
    ladder = ladder_of({})
    data = prepare_data(ladder, context)
    return Prepared(folder, data, prepare_teacher(StageInputs(ladder, data, context)))


CHOICES = {
    "throughout": [["parent"], ["root"], ["root", "parent"], ["ancestors"], ["none"]],
    "rising": [["rising"], ["rising"], ["root"], ["parent"]],
    "members": [["parent"], ["rising"], ["root"], ["none"]],
}


@st.composite
def ladders(draw: st.DrawFn, teaching: str) -> Ladder:
    """Two or three stages of every kind that a cost depends on."""
    stages, whole, number = list[dict[str, Any]](), True, draw(st.integers(2, 3))
    for place in range(number):
        cached, whole = draw(st.booleans()), whole and draw(st.booleans())
        training = {"steps": draw(st.integers(1, 20)), "batch_size": draw(st.sampled_from([2, 4]))}
        training["passes"] = draw(st.sampled_from([1, 1, 2, 4]))
        members = draw(st.integers(1, 3)) if teaching == "members" and place < number - 1 else 1
        ended = members == 1 and draw(st.sampled_from([False, False, True]))
        stage = {
            "teachers": draw(st.sampled_from(CHOICES[teaching])),
            "objective": {"alpha": draw(st.sampled_from(ALPHAS)), "keep": draw(st.sampled_from([0.3, 0.75, 1.0]))},
            "signals": {"source": "cached" if cached else "live", "kind": draw(st.sampled_from(["full", "sampled"])), "draws": 5},
            "training": training | (ENDS_AFTER_TWO if ended else {}),
            "student": {"vocabulary": "teacher" if whole else "used"},
            "seed": draw(st.sampled_from([None, 0, 1, 7])),
            "members": members,
        }
        if stage["teachers"] == ["rising"] and draw(st.booleans()):
            stage["objective"]["handover"] = [float(draw(st.integers(1, 5))) for _ in range(place + 1)]
        if stage["teachers"] == ["none"]:
            stage["signals"] = {}
        elif any(above["members"] > 1 for above in stages):  # the mean of probabilities needs them all
            stage["signals"] |= {"kind": "full"}
        stages.append(stage)
    return ladder_of(*stages)


@pytest.mark.parametrize("teaching", CHOICES)
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_plan_budget_arms_and_training_count_alike(prepared: Prepared, teaching: str, data: st.DataObject) -> None:
    assert_alike(prepared, data.draw(ladders(teaching)))


@pytest.mark.slow
@pytest.mark.parametrize("teaching", CHOICES)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_many_ladders_are_counted_alike(prepared: Prepared, teaching: str, data: st.DataObject) -> None:
    assert_alike(prepared, data.draw(ladders(teaching)))


def assert_alike(prepared: Prepared, ladder: Ladder) -> None:
    with prepared.fresh() as context:
        plan = make_plan(ladder, prepared.folder, Home(Path(context.home)))
        arms = arms_of(ladder, prepared.data, context)
        [budget] = answers_in_turn([ladder], prepared.data)
        students = prepared.trained(ladder, context)

    forwards = (arms.forwards.root, *arms.forwards.students)
    taken, trained = [student.steps for student in students], [student.flops for student in students]
    assert [cost.total for cost in arm_flops("staged", arms.ladders["staged"], arms.forwards, taken)] == trained
    if not any(student.early_stopped for student in students):
        assert [stage.flops for stage in plan.stages] == trained
        for place, (stage, (_, answers)) in enumerate(zip(ladder.stages, budget, strict=True)):
            prices = [forwards[t].used if stage.student.vocabulary == "used" else forwards[t].whole for t in answers.teachers]
            examples = stage.training.steps * stage.training.batch_size * stage.members
            counted = training_flops(forwards[place + 1].whole, examples, zip(prices, answers.new, strict=True))
            assert counted.total == trained[place]
        assert plan.costs.flops == sum(trained)
    event(f"ended early: {any(student.early_stopped for student in students)}")

    direct = arms.ladders["direct-matched"]
    assert plan.costs.jump is not None
    assert plan.costs.jump.steps == direct.stages[0].training.steps
    assert plan.costs.jump.flops == total_of(arm_flops("direct-matched", direct, arms.forwards))


def test_duplicates_are_the_examples_that_a_cache_holds_once(prepared: Prepared) -> None:
    corpus, seeds = prepared.data.corpus(), {0: 40, 1: 70, 5: 9}
    examples = training_examples(corpus, cached=True)
    assert examples.number is not None
    assert len(examples.duplicates) > 0, "the texts repeat themselves"
    keys = set()
    for seed, count in seeds.items():
        batches = TrainingBatches(corpus, 1, seed)
        keys |= {key for step in range(count) for key in keys_of(batches.at(step)).tolist()}
    assert examples.distinct(seeds) == len(keys)
    assert examples.distinct({0: examples.number}) == examples.number - len(examples.duplicates)
    assert examples.distinct({0: 3, 1: examples.number}) == examples.number - len(examples.duplicates)


@pytest.mark.parametrize("passes", [2, 3, 7])
def test_answers_of_a_pool_are_those_that_a_training_asks_for_and_each_is_read_as_often(prepared: Prepared, passes: int) -> None:
    corpus, own, cached = prepared.data.corpus(), {"steps": 9, "passes": passes}, {"source": "cached", "kind": "full"}
    ladder = ladder_of({"training": own, "signals": cached, "seed": 3}, {})
    training = ladder.stages[0].training
    assert training.pool == -(-36 // passes)
    batches = TrainingBatches(corpus, 4, 3, pool=training.pool)
    read = np.concatenate([batches.numbers(step) for step in range(9)])
    assert set(np.unique(read, return_counts=True)[1]) <= {36 // training.pool, -(-36 // training.pool)}
    keys = {key for step in range(9) for key in keys_of(batches.at(step)).tolist()}
    with prepared.fresh() as context:
        forwards = arms_of(ladder, prepared.data, context).forwards
        student, _ = prepared.trained(ladder, context)
    assert student.answers_asked == len(keys) <= training.pool
    assert student.flops == 3 * 36 * forwards.students[0].whole + len(keys) * forwards.root.whole


def test_a_roots_cache_is_counted_once_by_the_examples_that_all_seeds_need() -> None:
    """Two students of the root, each on 3,200 of 8,000 examples in another order, need more than either and less than both."""
    examples = TrainingExamples(8000)
    both = examples.distinct({0: 3200, 1: 3200})
    assert examples.distinct({0: 3200}) == 3200
    assert abs(both - 8000 * (1 - 0.6**2)) < 100, "independent orders"
    assert examples.distinct({0: 3200, 1: 3200, 2: 8000}) == 8000


@pytest.mark.parametrize("source", ["live", "cached"])
def test_a_head_that_is_cut_counts_as_cut(prepared: Prepared, source: str) -> None:
    stages = [{"student": {"vocabulary": choice}, "signals": {"source": source}} for choice in ("teacher", "used")]
    whole, cut = (ladder_of(stage, {**stage, "teachers": ["root"]}) for stage in stages)
    with prepared.fresh() as context:
        forwards = arms_of(cut, prepared.data, context).forwards
        assert forwards.root.used < forwards.root.whole
        assert forwards.students[0] == Forward(forwards.students[0].whole, forwards.students[0].whole)
        student = prepared.trained(cut, context)[0]
    assert student.vocabulary is not None
    assert student.vocabulary < (prepared.data.corpus().info.vocabulary or 0)
    examples = 12 if source == "live" else training_examples(prepared.data.corpus(), cached=True).distinct({0: 12})
    assert student.flops == 3 * 12 * forwards.students[0].whole + examples * forwards.root.used
    with prepared.fresh() as context:
        assert prepared.trained(whole, context)[0].flops > student.flops


def test_a_proof_of_a_ladder_whose_route_pilots_choose_has_auto_among_its_arms(prepared: Prepared) -> None:
    ladder = ladder_of({}, {})
    ladder = ladder.model_copy(update={"proof": ladder.proof.model_copy(update={"arms": ()})})
    with prepared.fresh() as context:
        written, chosen = (arms_of(ladder.model_copy(update={"route": route}), prepared.data, context) for route in ("as-written", "auto"))
    assert [*written.ladders, "auto"] == list(chosen.ladders)
    assert chosen.base == written.base
