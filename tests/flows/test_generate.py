"""`data.generate` through `ladder run`: killed and continued, nothing is asked or written twice; rounds end in the report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints import endpoint
from tests.flows.driver import Cli, clean_environment, wait_for

LADDER = """
name: sums
workload: causal-lm
data:
  source: files
  paths: [sums.jsonl]
  columns: {prompt: prompt, completion: completion}
  sequence_length: 32
  valid_fraction: 0.2
  test_fraction: 0.2
  generate:
    prompts: {paths: [questions.csv], template: "Question: {question}\\nAnswer:", reference: answer}
    max_tokens: 8
    batch_size: 4
    selection: {duplicates: null, unfinished: keep, max_repeated: 1.0}
    GENERATE
teacher:
  source: train
  shape: &shape {hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}
  training: &training {steps: 20, batch_size: 8, precision: fp32}
stages:
  - {name: small, student: {shape: *shape}, training: *training, gate: {policy: warn}}
audit: {enabled: false}
compute: {at_once: null}
"""


def write_ladder(folder: Path, generate: str, questions: int) -> str:
    rows = [{"prompt": f"Question: {n}+{n}\nAnswer:", "completion": f" {2 * n}"} for n in range(40)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "questions.csv").write_text("question,answer\n" + "".join(f"{n}+{n + 1},{2 * n + 1}\n" for n in range(questions)))
    (folder / "sums.yaml").write_text(LADDER.replace("GENERATE", generate))
    return str(folder / "sums.yaml")


def rows_in(home: Path) -> list[str]:
    return sorted(path.read_text() for path in (home / "store" / "generated").glob("*/rows.jsonl"))


def spooled(home: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (home / "store" / "checkpoints").glob("*/answers.jsonl"))


def generation(shown: dict[str, Any]) -> list[dict[str, Any]]:
    return shown["generation"]


@pytest.mark.slow
def test_an_endpoint_is_asked_nothing_twice_though_the_run_is_killed(bare, tmp_path):
    def answer(prompt: str) -> str:
        time.sleep(0.05)
        return f" it is {prompt[10:14]}"

    with endpoint(answer) as server:
        path = write_ladder(tmp_path, f"endpoint: {{url: '{server.url}', model: m, concurrency: 2}}", 60)
        process = bare.start_logged(tmp_path / "log", "run", path)
        wait_for(lambda: spooled(bare.home) > 10 or process.poll() is not None, "ten answers")
        process.kill()
        process.wait()
        before = spooled(bare.home)
        assert 10 < before < 60
        bare("run", path)
        asked = sum(server.asked.values())
        assert asked <= 60 + 2  # two were on their way when it was killed
        assert len(server.asked) == 60
        shown = bare.json("show")
        assert (generation(shown)[0]["answers"], generation(shown)[0]["written"]) == (60, 60 - before)
        bare("run", path)
        assert sum(server.asked.values()) == asked
    assert generation(shown)[0]["kept"] == 60


@pytest.mark.slow
def test_rounds_of_the_root_go_on_after_a_kill_with_the_same_rows(bare, tmp_path):
    path = write_ladder(tmp_path, "{rounds: 2, held: 40, samples: 40, least_gain: 0}"[1:-1].replace(", ", "\n    "), 120)
    process = bare.start_logged(tmp_path / "log", "run", path)
    wait_for(lambda: spooled(bare.home) > 100 or process.poll() is not None, "a hundred answers")
    process.kill()
    process.wait()
    assert spooled(bare.home) > 100
    bare("run", path)
    undisturbed = Cli(tmp_path / "other-home")
    undisturbed("run", path)
    assert len(rows_in(bare.home)) == 2
    assert rows_in(bare.home) == rows_in(undisturbed.home)
    shown = bare.json("show")
    first = generation(shown)[0]
    assert first["score"] is not None
    assert "held prompts" in first["decision"]
    assert "Generated rows" in Path(shown["report"]).read_text()


STAGE = """
import sys
from conf.home import home
from flows.serving.environment import prepare_environment
prepare_environment(home())
from flows.one_stage import one_stage
one_stage(sys.argv[1], "least", return_state=True)
"""


@pytest.mark.slow
def test_a_stage_by_itself_is_taught_by_the_rows_that_the_ladders_first_student_chose(cli, tmp_path):
    path = write_ladder(tmp_path, "{rounds: 2, held: 20, least_gain: 0}"[1:-1].replace(", ", "\n    "), 60)
    text = Path(path).read_text()
    last = "  - {name: small, student: {shape: *shape}, training: *training, gate: {policy: warn}}\n"
    Path(path).write_text(text.replace(last, last + last.replace("small", "least")))
    cli("run", path)
    whole = cli.json("show")
    env = clean_environment(LADDER_HOME=str(cli.home), LADDER_ROOTS=str(tmp_path), **cli.env)
    subprocess.run([sys.executable, "-c", STAGE, path], env=env, check=True, timeout=300)
    alone = cli.json("show")
    assert (alone["status"], alone["error"]) == ("done", None)
    assert alone["run"] != whole["run"]
    assert [made["student"] for made in generation(alone)] == [made["student"] for made in generation(whole)]
    assert {made["corpus"] for made in generation(alone)} == {made["corpus"] for made in generation(whole)}
    assert [each["fingerprint"] for each in alone["stages"]] == [each["fingerprint"] for each in whole["stages"]]
