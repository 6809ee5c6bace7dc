"""Answers that explain themselves become rows with a rationale; what students learn to read is the plain prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.schema.generate import Generate
from models.generation.writers import WrittenAnswer
from tasks.data.prepare import prepare_data
from tasks.generation.generate import ROWS, generate_data, read_prompts, with_rows
from tasks.generation.prompts import Prompt
from tasks.generation.rules import parted
from tasks.generation.select import Selected, select
from tasks.records.run import StageRecord
from tests.endpoints import endpoint
from tests.factories import inputs_of, ladder_of_file
from tests.tasks.generation.conftest import SHAPE, STAGE

MARK = "Answer:"


def chosen(*answers: str, samples: int = 1, **changes: Any) -> Selected:
    rules = {"duplicates": None} | changes.pop("selection", {})
    settings = Generate.model_validate(
        {"prompts": {"paths": ["p"], "reference": "a"}, "selection": rules, "samples": samples, "rationale_before": MARK, **changes}
    )
    groups = [[WrittenAnswer(text, "stop") for text in answers[first : first + samples]] for first in range(0, len(answers), samples)]
    return select(settings, [Prompt(f"p{n}", (str(n),), "4") for n in range(len(groups))], groups)


@pytest.mark.parametrize(
    ("text", "rationale", "answer"),
    [
        ("2 and 2. Answer: 4\n", "2 and 2.", " 4"),
        ("Answer: is asked for. Answer: 4", "Answer: is asked for.", " 4"),
        ("Answer: 4", "", " 4"),
        ("4", "", "4"),
    ],
)
def test_the_last_mark_parts_a_text(text: str, rationale: str, answer: str) -> None:
    assert parted(text, MARK) == (rationale, answer)
    assert parted(text, None) == ("", text)


def test_answers_are_compared_without_their_rationale() -> None:
    made = chosen("two twos. Answer: 4", "4", "why not 4? Answer: 5", "nothing follows. Answer: ", selection={"reference": True})
    assert [row.text for row in made.rows] == ["two twos. Answer: 4"]
    assert made.counts == {"unparted": 2, "wrong": 1}
    agreed = chosen("so. Answer: 4", "thus. Answer: 4.0", "4 it is not. Answer: 5", samples=3, selection={"agreement": 0.6})
    assert [row.text for row in agreed.rows] == ["so. Answer: 4"]


def test_a_teacher_that_explains_itself_teaches_both_tasks(root: StageRecord, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is number {n} of the list of numbers?", "completion": f" It is {n}.", "why": ""} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "home").mkdir()
    (tmp_path / "asked.csv").write_text("word\n" + "".join(f"{letter * 3}\n" for letter in "abcdefghij"))
    teacher = {"source": "train", "shape": SHAPE, "training": {"steps": 1}}
    columns = {"prompt": "prompt", "completion": "completion", "rationale": "why"}

    def inputs(address: str, **changes: Any) -> Any:
        generate = {
            "prompts": {"paths": ["asked.csv"], "template": "Think step by step. Length of {word}?", "learned": "Length of {word}?"},
            "selection": {"duplicates": None},
            "rationale_before": MARK,
            "endpoint": {"url": address, "model": "m", "retries": 0},
            **changes,
        }
        data = {"source": "files", "paths": ["rows.jsonl"], "columns": columns, "sequence_length": 96, "generate": generate}
        data |= {"valid_fraction": 0.2, "test_fraction": 0.2}
        return inputs_of(ladder_of_file(workload="causal-lm", data=data, teacher=teacher, stages=[STAGE]), tmp_path)

    with endpoint(lambda prompt: f"{prompt[-2]} thrice. Answer: 3") as server:
        given = inputs(server.url)
        made = generate_data(root, given, read_prompts(given))
        assert set(server.asked) == {f"Think step by step. Length of {letter * 3}?" for letter in "abcdefghij"}
        found = [json.loads(line) for line in (Path(made.folder) / ROWS).read_text().splitlines()]
        assert {row["prompt"]: row["why"] for row in found} == {f"Length of {x * 3}?": f"{x} thrice." for x in "abcdefghij"}
        assert {row["completion"] for row in found} == {" 3"}
        corpus = prepare_data(with_rows(given.ladder, [made], given.data), given.context).corpus()
        assert corpus.info.rationales == 10 == corpus.info.documents["train"] - given.data.corpus().info.documents["train"]
        assert given.data.corpus().rationales is None
        with pytest.raises(UserError, match="unparted"):
            generate_data(root, other := inputs(server.url, rationale_before="So:"), read_prompts(other))
        assert server.tried == 10, "the same answers, parted in another way"


def test_a_mark_needs_a_column_of_rationales() -> None:
    generate = {"prompts": {"paths": ["p.txt"]}, "rationale_before": MARK}
    data = {"source": "files", "paths": ["r.jsonl"], "columns": {"prompt": "p", "completion": "c"}, "generate": generate}
    with pytest.raises(ValueError, match=r"data\.generate\.rationale_before: got 'Answer:'; allowed: with data\.columns\.rationale"):
        ladder_of_file(
            workload="causal-lm", data=data, teacher={"source": "train", "shape": SHAPE, "training": {"steps": 1}}, stages=[STAGE]
        )
