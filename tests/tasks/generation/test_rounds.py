"""Failures choose the next prompts; another round is made while it is worth its price; the best round's rows train."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from conf.schema.generate import Generate
from models.architectures.checkpoint import load_model
from models.generation.perplexity import perplexities
from tasks.generation.failures import JudgedStudent, judge_student
from tasks.generation.generate import generate_data, read_prompts
from tasks.generation.prompts import AskedPrompts, Prompt
from tasks.generation.rounds import Rounds
from tasks.generation.scores import losses_of
from tasks.records.choice.generation import GenerationRecord
from tasks.records.run import StageRecord
from tests.endpoints import endpoint
from tests.factories import model_record
from tests.published import published_folder
from tests.tasks.generation.conftest import Made

pytestmark = pytest.mark.thorough


def rounds_of(prompts: int = 20, **settings: Any) -> Rounds:
    made = Generate.model_validate({"prompts": {"paths": ["p"]}, "rounds": 3, "held": 5, "per_round": 4} | settings)
    return Rounds(made, AskedPrompts(tuple(Prompt(f"p{n}", ()) for n in range(prompts)), {"equal": 2}))


def record(price: float = 0.0) -> GenerationRecord:
    fields: dict[str, Any] = {"teacher": "t", "fingerprint": "f", "answers_fingerprint": "a", "folder": ""}
    return GenerationRecord(**fields, prompts=4, answers=4, kept=4, price=price, currency="EUR")


def played(rounds: Rounds, *scores: float) -> list[str]:
    """The prompts of each round, where the last of those unused fails worst."""
    asked = []
    for score in scores:
        assert rounds.goes_on
        asked.append(" ".join(prompt.text for prompt in rounds.prompts.prompts))
        rounds.add(record(price=1.5))
        failures = tuple(float(place) for place in range(len(rounds.unused)))
        rounds.judge(model_record("small"), JudgedStudent(score=score, failures=failures))
    return asked


def test_the_worst_failures_are_the_next_prompts_and_held_ones_are_never_asked() -> None:
    rounds = rounds_of()
    assert [prompt.text for prompt in rounds.held] == ["p0", "p1", "p2", "p3", "p4"]
    assert played(rounds, 0.1, 0.2, 0.3) == ["p5 p6 p7 p8", "p19 p18 p17 p16", "p15 p14 p13 p12"]
    assert not rounds.goes_on
    assert [made.number for made in rounds.used] == [1, 2, 3]
    assert rounds.records[1].decision == "score 0.2000 on 5 held prompts, +0.1000, price so far 3.00 EUR; another round"
    assert [prompt.text for prompt in rounds.unused] == ["p9", "p10", "p11"]


def test_a_round_that_gains_too_little_is_the_last() -> None:
    rounds = rounds_of(least_gain=0.05)
    played(rounds, 0.1, 0.14)
    assert not rounds.goes_on
    assert "not worth its price: least_gain is 0.05" in str(rounds.records[1].decision)
    assert len(rounds.used) == 2  # it helped, all the same


def test_rows_of_a_round_that_did_harm_do_not_train() -> None:
    rounds = rounds_of()
    played(rounds, 0.1, 0.05)
    assert not rounds.goes_on
    assert [made.number for made in rounds.used] == [1]


def test_rounds_end_with_the_prompts() -> None:
    rounds = rounds_of(prompts=8, held=100)
    assert (len(rounds.held), len(rounds.prompts.prompts)) == (4, 4)
    played(rounds, 0.1)
    assert not rounds.goes_on
    assert "no prompts are left" in str(rounds.records[0].decision)


def test_one_round_asks_for_all_and_needs_no_student() -> None:
    rounds = rounds_of(rounds=1)
    assert (rounds.held, len(rounds.prompts.prompts), rounds.prompts.left_out) == ((), 20, {"equal": 2})
    rounds.add(record())
    assert not rounds.goes_on
    assert len(rounds.used) == 1


@pytest.fixture
def student(tmp_path: Path) -> StageRecord:
    """A model that is unsure of everything, and whose most probable ids are small letters."""
    folder = published_folder(tmp_path / "student", "causal-lm", seed=1)
    model = load_model(folder, "causal-lm")
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(0.25)
        head = cast(Any, model).get_output_embeddings().weight
        head[: ord("a")] = head[ord("z") + 1 :] = 0.0
    model.save_pretrained(folder)
    return model_record("small", folder=str(folder))


def test_right_answers_come_last(root: StageRecord, student: StageRecord, inputs: Made, tmp_path: Path) -> None:
    """A random student is asked once without references to learn what it says, which then is the right answer to some."""
    given = inputs(rounds=2)
    asked = read_prompts(given).prompts
    known = inputs(rounds=2, prompts={"paths": ["rows.csv"], "reference": "answer"})
    (tmp_path / "rows.csv").write_text("prompt,answer\n" + "".join(f"{prompt.text},never\n" for prompt in asked))
    settings = known.ladder.data.generate
    assert settings is not None
    from tasks.generation.answers import write_all
    from tasks.generation.failures import greedy

    said = [samples[0].text for samples in write_all(greedy(settings), asked, student, known).answers]
    right = {asked[0].text, asked[3].text}
    prompts = [Prompt(p.text, p.values, text if p.text in right else "never") for p, text in zip(asked, said, strict=True)]
    judged = judge_student(student, root, prompts[:2], prompts[2:], known)
    assert judged.score == 0.5
    worst = sorted(range(8), key=lambda place: judged.failures[place])
    assert worst[0] == 1  # asked[3]
    assert all(0 <= judged.failures[worst[0]] < 1 <= judged.failures[place] for place in worst[1:])


def test_without_references_the_distance_from_the_teacher_counts(root: StageRecord, student: StageRecord, inputs: Made) -> None:
    given = inputs(rounds=2)
    asked = read_prompts(given).prompts
    judged = judge_student(student, root, asked[:3], asked[3:], given)
    same = judge_student(student, student, asked[:3], asked[3:], given)
    assert min(judged.failures) > 0.1
    assert same.failures == pytest.approx([0.0] * 7, abs=1e-3)
    assert judged.score == pytest.approx(-math.log(258), abs=0.5)  # it knows next to nothing
    assert judge_student(student, root, asked[:3], asked[3:], given) == judged


def test_with_an_endpoint_the_students_own_doubt_counts(root: StageRecord, student: StageRecord, inputs: Made) -> None:
    with endpoint(lambda prompt: f"{prompt} it is") as server:
        given = inputs(rounds=2, endpoint={"url": server.url, "model": "m"})
        asked = read_prompts(given).prompts
        judged = judge_student(student, root, asked[:3], asked[3:], given)
        assert set(server.asked) == {prompt.text for prompt in asked[:3]}  # the answers that judge
    losses = losses_of(Path(student.folder), [(p.text, f"{p.text} it is") for p in asked[:3]], given)
    assert judged.score == pytest.approx(-sum(losses) / 3)
    assert all(failure > 0 for failure in judged.failures)


def test_perplexity_under_the_last_student_drops_rows(root: StageRecord, student: StageRecord, inputs: Made) -> None:
    first = generate_data(root, given := inputs(), read_prompts(given))
    rows = [json.loads(line) for line in (Path(first.folder) / "rows.jsonl").read_text().splitlines()]
    found = perplexities(losses_of(Path(student.folder), [(row["prompt"], row["completion"]) for row in rows], given))
    bound = sorted(found)[4] * 1.0001
    ruled = inputs(selection={"perplexity": {"model": "student", "most": bound}})
    assert generate_data(root, ruled, read_prompts(ruled)).kept == first.kept  # no student yet
    assert generate_data(root, ruled, read_prompts(ruled), student).dropped == {"too strange": first.kept - 5}
    named = inputs(selection={"perplexity": {"model": student.folder, "least": bound}})
    assert generate_data(root, named, read_prompts(named)).dropped == {"too easy": 5}
