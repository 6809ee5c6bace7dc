"""The winner's trainings begin with the weights of its last pilot's students, where that is the better beginning."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from conf.loading.load import load
from conf.schema.ladder import Ladder
from flows.routing.choose import choose_route
from models.architectures.checkpoint import load_model
from tasks.planning.matching import with_stages
from tasks.records.choice.route import PilotRecord, RouteDecision, RouteRound
from tasks.records.run import StageRecord
from tasks.routing.pilots import pilot_ladder, with_steps
from tasks.routing.warm_start import first_weights, found
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student
from tasks.training.work import Work
from tests.factories import inputs_of
from tests.flows.ladders import TINY


def ladder_of(folder: Path, *overrides: str) -> Ladder:
    (folder / "tiny.yaml").write_text(TINY)
    return load(str(folder / "tiny.yaml"), ("route=auto", "compute.at_once=null", *overrides)).ladder


def decision_of(*pilots: tuple[str, float | None, tuple[str, ...]], winner: str = "as-written") -> RouteDecision:
    made = tuple(
        PilotRecord(route=route, number=1, seed=seed, steps=(10,) * len(prints), score=score, flops=1.0, fingerprints=prints)
        for seed, (route, score, prints) in enumerate(pilots)
    )
    last = (RouteRound(number=1, price=1.0, pilots=made, standings=()),) if made else ()
    return RouteDecision(metric="accuracy", price=10.0, share=0.1, listed={}, rounds=last, winner=winner)


def test_the_best_pilot_of_the_winner_is_gone_on_from(tmp_path: Path) -> None:
    ladder = ladder_of(tmp_path)
    ladder = with_stages(ladder, *ladder.stages[:2])
    pilots = [("as-written", 0.5, ("a", "b")), ("direct", 0.9, ("x",)), ("as-written", 0.7, ("c", "d")), ("as-written", None, ("e", "f"))]
    assert first_weights(ladder, decision_of(*pilots)) == ("c", "d")
    assert first_weights(ladder, decision_of()) == ()
    assert first_weights(ladder, decision_of(("as-written", None, ("a", "b")))) == ()
    decision = decision_of(("as-written", 0.5, ("a", "b")))
    (only,) = decision.pilots
    few = decision.rounds[0].model_copy(update={"pilots": (only.model_copy(update={"steps": (9, 10)}),)})
    assert first_weights(ladder, decision.model_copy(update={"rounds": (few,)})) == ("", "b")
    cold = ladder.model_copy(update={"routing": ladder.routing.model_copy(update={"warm_start": False})})
    assert first_weights(cold, decision_of(*pilots)) == ()


def test_a_student_that_is_made_from_a_parent_or_of_an_ensemble_begins_as_written(tmp_path: Path) -> None:
    ladder = ladder_of(tmp_path)

    def with_students(**changed: str) -> Ladder:
        made = [each.student.model_copy(update=changed) for each in ladder.stages]
        pairs = zip(ladder.stages, made, strict=True)
        return with_stages(ladder, *(each.model_copy(update={"student": student}) for each, student in pairs))

    count = len(ladder.stages)
    pilot = ("as-written", 0.5, tuple("abc"[:count]))
    assert first_weights(with_students(initialisation="layers"), decision_of(pilot)) == ("a", *[""] * (count - 1))
    assert first_weights(with_students(vision="frozen"), decision_of(pilot)) == ("a", *[""] * (count - 1))
    assert not any(first_weights(with_students(source="checkpoint"), decision_of(pilot)))
    together = tuple(each.model_copy(update={"members": 2}) for each in ladder.stages)
    assert not any(first_weights(with_stages(ladder, *together), decision_of(pilot)))


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> tuple[StageInputs, StageRecord, StageRecord]:
    folder = tmp_path_factory.mktemp("warm")
    ladder = ladder_of(folder, "teacher.training.steps=5")
    inputs = inputs_of(with_stages(ladder, ladder.stages[-1]), folder)
    root, short = prepare_teacher(inputs), pilot_ladder(with_steps(inputs.ladder, [3]), "direct-1")
    return inputs, root, train_student(short.stages[0], [root], replace(inputs, ladder=short))


def test_the_final_training_begins_where_the_pilot_ended(
    pilot: tuple[StageInputs, StageRecord, StageRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, root, last = pilot
    decision = decision_of(("direct", 0.5, (last.fingerprint,)), winner="direct")
    decision = decision.model_copy(update={"first_weights": first_weights(inputs.ladder, decision)})
    first = found(decision, inputs.ladder, inputs.context)
    assert {name: record.weights_sha256 for name, record in first.items()} == {inputs.ladder.stages[0].name: last.weights_sha256}
    (stage,) = inputs.ladder.stages
    warm, cold = train_student(stage, [root], replace(inputs, first_weights=first)), train_student(stage, [root], inputs)
    assert (warm.steps, warm.identity["begins"]) == (cold.steps, last.weights_sha256)
    assert warm.weights_sha256 not in (cold.weights_sha256, last.weights_sha256)
    works = list[Work]()
    monkeypatch.setattr("tasks.training.student.find_or_train", lambda work, inputs: works.append(work))
    train_student(stage, [root], replace(inputs, first_weights=first))
    begins = works[0].make(None, Path(last.folder)).state_dict()
    ended = load_model(Path(last.folder), "image-classification").state_dict()
    assert all(value.equal(ended[name]) for name, value in begins.items())
    assert begins.keys() == ended.keys()


def test_a_pilot_that_was_deleted_leaves_the_ladder_as_written(pilot: tuple[StageInputs, StageRecord, StageRecord], tmp_path: Path) -> None:
    inputs, root, last = pilot
    home = tmp_path / "home"
    shutil.copytree(inputs.context.home, home)
    shutil.rmtree(next((home / "store" / "stage").glob(f"*{last.fingerprint[:12]}*")))
    decision = decision_of().model_copy(update={"first_weights": (last.fingerprint,)})
    here = replace(inputs, context=inputs.context.model_copy(update={"home": str(home)}))
    assert found(decision, inputs.ladder, here.context) == {}
    kept = list[RouteDecision]()
    decided, chosen = choose_route(root, here, decision.model_copy(update={"steps": (3,)}), kept.append)
    assert (decided.first_weights, chosen.first_weights) == (("",), {})
    assert kept == [decided]  # so that a run that is continued once more begins alike
