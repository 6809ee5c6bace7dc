"""What arms scored becomes contrasts, a verdict with its price, a table and a picture."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from conf.home import Home
from conf.loading.load import load
from conf.schema.measures.proof import ARMS, Arm
from tasks.lifecycle.clean import clean
from tasks.proof.arms import ForwardFlops
from tasks.proof.proof import opponents, proof_of, replicate_of, save_proof
from tasks.proof.verdict_text import render, table
from tasks.records.proof import Proof, Replicate, read_proof
from tasks.records.run import RunRecord, StageRecord
from tasks.report.sections.measures import proof as page
from tasks.training.costs.cost_model import Forward
from tasks.training.costs.examples import TrainingExamples
from tests.factories import model_record, run_record
from tests.tasks.homes import AGE, NEW, model, names, ran

NOISE = (0.002, -0.001, 0.003, -0.002, 0.001)  # of a seed, the same in every arm


def replicates(mean: float, own: float = 0.0, flops: float = 1e12, seeds: int = 5, seconds: float = 60.0) -> list[Replicate]:
    """Scores that share their seeds' noise, and have a little of their own."""
    return [
        Replicate(
            seed=i,
            score=mean + NOISE[i] + own * (-1) ** i,
            valid=mean + NOISE[i],
            flops=flops,
            seconds=seconds,
            steps=(100,),
            fingerprints=(f"{i}",),
            reused=0,
            parameters=1000,
        )
        for i in range(seeds)
    ]


def compared(ladder: str, arms: dict[Arm, list[Replicate]], *overrides: str, examples: int = 5000) -> Proof:
    return proof_of(load(ladder, overrides).ladder, "run", None, examples, arms, ["left out: x"])


@pytest.mark.parametrize(
    ("ladder", "staged", "direct", "own", "says"),
    [
        (
            "digits",
            0.95,
            0.93,
            0.001,
            "Staged better: staged scores 95.08 %, direct-matched 93.06 %, a gain of +2.02 points (95 %",
        ),
        ("digits", 0.92, 0.93, 0.001, "Direct-matched better: staged scores 92.08 %, direct-matched 93.06 %, a gain of -0.98 points"),
        ("digits", 0.93, 0.93, 0.001, "Equivalent within 0.50 points: staged scores 93.08 %"),
        ("digits", 0.935, 0.93, 0.02, "Undecided: staged scores 93.96 %"),
        ("python-stdlib", 2.10, 2.20, 0.004, "Staged better: staged scores 2.1014 bits/byte, direct-matched 2.2006 bits/byte, a gain of"),
        ("python-stdlib", 2.10, 2.00, 0.004, "Direct-matched better: staged scores 2.1014 bits/byte"),
    ],
)
def test_the_verdict_is_one_of_four_with_its_price(ladder: str, staged: float, direct: float, own: float, says: str) -> None:
    proof = compared(ladder, {"staged": replicates(staged, own, 2e12), "direct-matched": replicates(direct)})
    assert proof.verdict.startswith(says)
    assert "for 2.00 times the FLOPs (2 TFLOP, 60 s a seed against 60 s)" in proof.verdict
    assert ("seeds would decide it" in proof.verdict) == proof.verdict.startswith("Undecided")
    assert proof.finished
    assert proof.verdict.endswith(".")


def test_arms_that_learned_nothing_are_not_compared_and_ask_for_no_seeds() -> None:
    def silent(mean: float, own: float = 0.0) -> list[Replicate]:
        return [each.model_copy(update={"nothing": "it gives the same class"}) for each in replicates(mean, own)]

    both = compared("digits", {"staged": silent(0.1, 0.02), "direct-matched": silent(0.101)})
    assert both.verdict.startswith("Nothing was learned, so nothing is compared: the students of staged (it gives the same class) and")
    assert both.contrasts[0].seeds_to_decide is None
    assert "seeds would decide it" not in both.verdict
    one = compared("digits", {"staged": replicates(0.95), "direct-matched": silent(0.1)})
    assert one.verdict.startswith("Staged better")
    assert "direct-matched has learned nothing in any seed: it gives the same class." in one.notes
    seldom = [*silent(0.1, 0.02)[:-1], *replicates(0.1, 0.02)[-1:]]
    assert "seeds would decide it" in compared("digits", {"staged": seldom, "direct-matched": silent(0.101)}).verdict


def test_the_baseline_is_a_row_of_the_proof() -> None:
    root = model_record(metrics={"accuracy": 0.97, "nll": 0.1, "baseline_accuracy": 0.104, "baseline_nll": 2.3})
    proof = proof_of(load("digits").ladder, "run", root, 5000, {"staged": replicates(0.95), "direct": replicates(0.94)}, [])
    assert proof.baseline == 0.104
    assert table(proof)[1][-1][:2] == ["majority class", "10.40"]


def test_a_pair_of_arms_is_known_better_than_either() -> None:
    proof = compared("digits", {"staged": replicates(0.95), "direct": replicates(0.94)}, "proof.delta=0.003")
    gain, score = proof.contrasts[0].gain, proof.arms[0].score
    assert score is not None
    of_gain, of_score = (each.high - each.low for each in (gain, score) if each.low is not None and each.high is not None)
    assert of_gain < 0.2 * of_score


def test_the_accounting_chooses_the_opponent() -> None:
    ladder = load("digits").ladder
    assert opponents(ladder, ARMS)[1][:3] == ["direct-matched", "direct", "direct-free"]
    for accounting, arm in (("flops-free", "direct-free"), ("tokens", "direct")):
        first, others = opponents(load("digits", [f"proof.accounting={accounting}"]).ladder, ARMS)
        assert (first, others[0]) == ("staged", arm)
    assert opponents(ladder, ["scratch", "direct"]) == ("scratch", ["direct"])


def test_while_it_runs_the_seeds_that_both_have_are_compared_and_the_verdict_says_so() -> None:
    early = compared("digits", {"staged": replicates(0.95, seeds=1), "direct": []})
    assert early.verdict == "No verdict yet: a comparison needs two seeds of two arms, and finished is staged 1 of 5."
    later = compared("digits", {"staged": replicates(0.95, seeds=3), "direct": replicates(0.9, seeds=2)})
    assert len(later.contrasts[0].gains) == 2
    assert later.verdict.endswith("Not all seeds are finished.")
    assert compared("digits", {"staged": [], "direct": []}).verdict.endswith("finished is nothing.")


@pytest.mark.parametrize("ladder", ["digits", "python-stdlib"])
def test_the_table_fits_80_columns_and_has_every_arm(ladder: str) -> None:
    proof = compared(ladder, {arm: replicates(0.9 + 0.01 * i, 0.02, seconds=12345.6) for i, arm in enumerate(ARMS)})
    buffer = io.StringIO()
    Console(file=buffer, width=80).print(render(proof))
    lines = buffer.getvalue().rstrip().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in buffer.getvalue()
    headers, rows = table(proof)
    assert [row[0] for row in rows] == list(ARMS)
    assert headers[5] == "staged gains"


def test_what_is_too_coarse_for_its_delta_is_said() -> None:
    arms: dict[Arm, list[Replicate]] = {"staged": replicates(0.95), "direct": replicates(0.95)}
    coarse = compared("digits", arms, examples=100)
    assert any("One of the 100 test examples is 1.00 points" in note for note in coarse.notes)
    assert not any("test examples is" in note for note in compared("digits", arms).notes)
    assert coarse.notes[0] == "left out: x"


def followed(*sizes: int, own: float = 0.02) -> list[Proof]:
    """Proofs of the same arms with so many seeds each, one after another, each of which knows those before."""
    made: list[Proof] = []
    for number, seeds in enumerate(sizes):
        arms: dict[Arm, list[Replicate]] = {"staged": replicates(0.935, own, seeds=seeds), "direct": replicates(0.93, seeds=seeds)}
        ladder = load("digits", [f"proof.seeds={seeds}"]).ladder
        made.append(proof_of(ladder, f"run-{number}", None, 5000, arms, [], made[:number]))
    return made


def test_a_proof_with_more_seeds_finds_the_earlier_looks_at_them_and_says_so() -> None:
    first, second, again = followed(3, 5, 5)
    assert [len(look.seeds) for look in first.contrasts[0].looks] == [3]
    assert "first look" in first.verdict
    later = second.contrasts[0]
    assert [(look.run, look.seeds) for look in later.looks] == [("run-0", (0, 1, 2)), ("run-1", (0, 1, 2, 3, 4))]
    assert later.look == 2
    assert "look 2 of 2" in second.verdict
    alone = compared("digits", {"staged": replicates(0.935, 0.02), "direct": replicates(0.93)}).contrasts[0]
    assert later.gain.low is not None
    assert alone.gain.low is not None
    assert later.gain.mean == pytest.approx(alone.gain.mean)
    assert later.gain.low < alone.gain.low
    assert "1: 3 seeds in run-0; 2: 5 seeds in run-1" in " ".join(second.notes)
    same = again.contrasts[0]
    assert (same.look, same.gain, len(same.looks)) == (2, later.gain, 2), "the same seeds again are the same look"


def test_the_looks_outlive_the_first_run_and_other_students_are_none() -> None:
    _, second = followed(3, 5)
    arms: dict[Arm, list[Replicate]] = {"staged": replicates(0.935, 0.02), "direct": replicates(0.93)}
    found = proof_of(load("digits").ladder, "run-2", None, 5000, arms, [], [second]).contrasts[0]
    assert [look.run for look in found.looks] == ["run-0", "run-1"]
    others: dict[Arm, list[Replicate]] = {
        arm: [each.model_copy(update={"fingerprints": ("other",)}) for each in made] for arm, made in arms.items()
    }
    assert len(proof_of(load("digits").ladder, "run-2", None, 5000, others, [], [second]).contrasts[0].looks) == 1


def test_one_seed_more_is_no_look_and_fewer_seeds_than_before_are_one_more() -> None:
    _, one_more = followed(4, 5)
    assert (one_more.contrasts[0].gain.pairs, len(one_more.contrasts[0].gains), one_more.contrasts[0].look) == (4, 5, 1)
    assert "Add two at least." in " ".join(one_more.notes)
    _, fewer = followed(5, 3)
    assert (fewer.contrasts[0].gain.pairs, fewer.contrasts[0].look) == (3, 2)
    _, after_two = followed(2, 5)
    assert (after_two.contrasts[0].look, len(after_two.contrasts[0].looks)) == (1, 1)


def test_two_seeds_decide_nothing() -> None:
    proof = followed(2, own=0.0)[0]
    assert proof.contrasts[0].outcome == "undecided"
    assert proof.contrasts[0].looks == ()
    assert "Two seeds decide nothing" in " ".join(proof.notes)


def test_a_record_of_an_earlier_version_is_read_and_was_a_look(tmp_path: Path) -> None:
    record = record_in(tmp_path / "run")
    plain = json.loads(followed(3)[0].model_dump_json())
    for contrast in plain["contrasts"]:
        del contrast["looks"], contrast["look"]
        contrast["gain"]["method"] = "bootstrap"
    (tmp_path / "run" / "proof.json").write_text(json.dumps(plain))
    old = read_proof(record)
    assert old is not None
    assert page.section(record) is not None
    arms: dict[Arm, list[Replicate]] = {"staged": replicates(0.935, 0.02), "direct": replicates(0.93)}
    assert proof_of(load("digits").ladder, "new", None, 5000, arms, [], [old]).contrasts[0].look == 2


def test_an_end_that_no_flip_bounds_is_said_and_kept(tmp_path: Path) -> None:
    arms: dict[Arm, list[Replicate]] = {"staged": replicates(0.95), "direct": replicates(0.94)}
    proof = compared("digits", arms, "proof.interval=sign-flip", "proof.seeds=6")
    assert proof.contrasts[0].gain.low is None
    assert "interval -inf to +inf, sign-flip over 5 seeds" in proof.verdict
    record = record_in(tmp_path / "run")
    save_proof(record, proof)
    assert read_proof(record) == proof


def record_in(folder: Path) -> RunRecord:
    folder.mkdir()
    return run_record("r", ladder="digits", source="digits", folder=str(folder), proof=True)


def test_the_section_has_the_verdict_the_controls_and_a_picture_that_says_its_figures(tmp_path: Path) -> None:
    record = record_in(tmp_path / "run")
    assert page.section(record) is None
    proof = compared("digits", {"staged": replicates(0.95), "scratch": replicates(0.9), "pruned-only": replicates(0.1)})
    save_proof(record, proof.model_copy(update={"root": 0.97}))
    assert read_proof(record.model_copy(update={"proof": False})) is None
    section = page.section(record)
    assert section is not None
    assert section["verdict"] == proof.verdict
    assert [control.name for control in section["controls"]] == ["scratch", "pruned-only"]
    assert section["controls"][0].low < 0.9006 < section["controls"][0].high
    for layout, svg in section["plots"]:
        assert f'id="proof-{layout}' in svg
        label = re.search(r'aria-label="([^"]*)"', svg)
        assert label is not None
        assert "staged 95.06 % (94.80 to 95.32)" in label[1]
        assert "The root scores 97.00 %." in label[1]


def test_a_proof_of_another_version_is_no_reason_to_fail(tmp_path: Path) -> None:
    record = record_in(tmp_path / "run")
    (tmp_path / "run" / "proof.json").write_text('{"run": "r"}')
    assert read_proof(record) is None


def test_cleaning_keeps_what_a_kept_proof_compares(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    root = model(home, "root", "old")
    arm, other = model(home, "arm", "old", root), model(home, "other", "old", root, seed=1)
    ran(home, "old", [root, other])
    record = ran(home, "young", [root], moment=NEW, proof=True)
    save_proof(record, _with(arm))
    os.utime(home.runs / "young" / "record.json", (NEW, NEW))
    freed = names(clean(home, AGE))
    assert "stage/other" in freed
    assert not {"stage/arm", "evaluation/arm", "teacher/root"} & freed


def _with(arm: StageRecord) -> Proof:
    marked = [each.model_copy(update={"fingerprints": (arm.fingerprint,)}) for each in replicates(0.9)]
    return compared("digits", {"staged": marked, "direct": replicates(0.9)})


def test_seconds_and_price_of_an_arm_hold_the_cached_answers_that_it_needs() -> None:
    """As if the arm were run alone: answers that an earlier arm had stored cost it nothing, and count all the same."""
    forward = Forward(1000, 1000)
    forwards = ForwardFlops(root=forward, students=(forward,) * 3, direct=forward, scratch=forward, examples=TrainingExamples(1400))
    signals = ["defaults.signals={source: cached, kind: full}", "defaults.teachers=[root]", "economics.price_per_hour=36"]
    ladder = load("digits", signals).ladder
    figures = {"accuracy": 0.9}
    students = [
        model_record(stage.name, steps=stage.training.steps, seconds=10.0, signal_seconds=0.0, all_signal_seconds=7.0, metrics=figures)
        for stage in ladder.stages
    ]
    made = replicate_of("staged", ladder, students, students[-1], forwards)
    assert made.seconds == 3 * 10 + 7, "the three students share the root's answers"
    assert made.money == pytest.approx(37 / 3600 * 36)
    alone = replicate_of("direct", ladder.model_copy(update={"stages": ladder.stages[-1:]}), students[-1:], students[-1], forwards)
    assert alone.seconds == 10 + 7
    older = [student.model_copy(update={"all_signal_seconds": None, "signal_seconds": 2.0}) for student in students]
    assert replicate_of("staged", ladder, older, older[-1], forwards).seconds == 3 * 10 + 2
