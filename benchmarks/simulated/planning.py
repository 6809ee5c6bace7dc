"""`ladder plan` of ladders of many stages: the real code on a small file of text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.simulated.curves import Point, measure
from conf.home import Home
from conf.schema.ladder import Ladder
from tasks.planning.plan import make_plan


def ladder_of(stages: int) -> Ladder:
    """A ladder of so many stages over `text.jsonl`, each a little smaller than the one before."""

    def shape(feed_forward: int) -> dict[str, object]:
        return {"family": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": feed_forward}

    training = {"steps": 10, "batch_size": 4}
    return Ladder.model_validate(
        {
            "name": "simulated",
            "workload": "causal-lm",
            "data": {"source": "files", "paths": ["text.jsonl"], "sequence_length": 32},
            "tokenizer": {"kind": "bytes"},
            "teacher": {"source": "train", "shape": shape(16 + 4 * stages), "training": training},
            "stages": [
                {
                    "name": f"s{i:03d}",
                    "student": {"shape": shape(16 + 4 * (stages - 1 - i)), "initialisation": "random"},
                    "training": training,
                }
                for i in range(stages)
            ],
        }
    )


def write_text(base: Path) -> None:
    """Write the text of the ladders."""
    lines = [json.dumps({"text": f"Line {i} of a text that is long enough for a window or two. " * 3}) for i in range(60)]
    (base / "text.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def plans(base: Path, sizes: Sequence[int]) -> dict[str, list[Point]]:
    """Plans of ladders of `sizes` stages in an empty home."""
    write_text(base)
    home = Home(base / "home")
    make_plan(ladder_of(1), base, home)  # imports, and the machine's speed
    return {"plan a ladder of n stages": [measure(n, [lambda n=n: make_plan(ladder_of(n), base, home)]) for n in sizes]}
