"""Prompts from lines and rows; those that hold held-out documents are left out, and refused above a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from tasks.generation.check import check_generation
from tasks.generation.prompts import AskedPrompts, filled, read_prompts, seed_of
from tests.tasks.generation.conftest import Made


def read(inputs: Made, path: str = "prompts.txt", prompts: dict[str, Any] | None = None, **generate: object) -> AskedPrompts:
    given = inputs(prompts={"paths": [path]} | (prompts or {}), **generate)
    assert given.ladder.data.generate is not None
    return read_prompts(given.ladder.data.generate, Path(given.context.base), given.data.corpus())


def test_lines_and_rows(inputs: Made, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\n\ntwo\none\n  \n")
    asked = read(inputs)
    assert {prompt.text for prompt in asked.prompts} == {"one", "two"}
    assert asked.left_out == {"equal": 1, "empty": 2}
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,\n")
    asked = read(inputs, "rows.csv", prompts={"template": "{a} and {b}? {{really}}", "reference": "b"})
    assert sorted((p.text, p.values, p.reference) for p in asked.prompts) == [
        ("1 and 2? {really}", ("1", "2"), "2"),
        ("3 and ? {really}", ("3", ""), ""),
    ]


def test_values_with_braces_stay_as_they_are() -> None:
    assert filled("{a}", {"a": "{b} {0.__class__}"}) == ("{b} {0.__class__}", ("{b} {0.__class__}",))


def test_fewer_prompts_are_among_more(inputs: Made) -> None:
    few, more = ({p.text for p in read(inputs, prompts={"most": most}).prompts} for most in (3, 6))
    assert len(few) == 3
    assert few < more
    other = {p.text for p in read(inputs, prompts={"most": 3}, seed=5).prompts}
    assert other != few


def test_a_seed_depends_on_prompt_and_sample() -> None:
    assert len({seed_of(seed, prompt, sample) for seed in (0, 1) for prompt in "ab" for sample in range(3)}) == 12
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1) < 2**31


def test_held_out_questions_are_left_out_and_refused_above_the_bound(inputs: Made, tmp_path: Path) -> None:
    questions = [f"What is number {n} of the list of numbers?" for n in range(20)]
    fresh = [f"What is the name of the thing with the number {n}?" for n in range(80)]
    (tmp_path / "prompts.txt").write_text("\n".join([*questions, *fresh]))
    corpus = inputs().data.corpus()
    held = len(corpus.split("valid")) + len(corpus.split("test"))
    assert held >= 4
    asked = read(inputs, max_held_out=0.5)
    assert asked.left_out == {"held-out": held}
    assert len(asked.prompts) == 100 - held
    with pytest.raises(UserError, match=rf"max_held_out|{held} of 100"):
        read(inputs)


@pytest.mark.parametrize(
    ("path", "prompts", "message"),
    [
        ("nothing.txt", {}, r"data\.generate\.prompts\.paths\[0\]: got 'nothing\.txt'"),
        ("prompts.txt", {"template": "{question}"}, "tables with the columns question"),
        ("rows.csv", {"template": "{question}"}, r"data\.generate\.prompts\.template.*the columns of rows\.csv: a, b"),
        ("rows.csv", {"template": "{a}", "reference": "c"}, r"data\.generate\.prompts\.reference: got 'c'"),
        ("empty.txt", {}, "files with prompts"),
    ],
)
def test_bad_prompts_are_refused_before_anything_runs(
    inputs: Made, tmp_path: Path, path: str, prompts: dict[str, str], message: str
) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    given = inputs(prompts={"paths": [path], **prompts}).ladder.data.generate
    assert given is not None
    with pytest.raises(UserError, match=message):
        check_generation(given, tmp_path)
