"""Section of the rows that a teacher wrote: counts, and samples of both kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.records.choice.generation import GenerationRecord, KeptSample
from tasks.records.format import duration, money, rate
from tasks.records.run import RunRecord

HEADERS = ["round", "teacher", "prompts", "answers", "kept", "tokens", "tokens/s", "time", "price"]
LETTERS = 200  # of each text on the page


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """Every round of `data.generate`; None where the ladder has none."""
    rounds = record.generation
    if not rounds:
        return None
    rules = [[str(made.number), rule, f"{count:,}"] for made in rounds for rule, count in _reasons(made).items()]
    samples = [_sample(made.number, each) for made in rounds for each in made.samples]
    tables: list[dict[str, Any]] = [{"headers": HEADERS, "rows": [_row(made) for made in rounds], "words": ["teacher"]}]
    if any(made.score is not None for made in rounds):
        tables[0]["headers"] = [*HEADERS, "score"]
        tables[0]["rows"] = [
            [*row, "" if made.score is None else f"{made.score:.4f}"] for row, made in zip(tables[0]["rows"], rounds, strict=True)
        ]
    if rules:
        tables.append({"title": "Left out", "headers": ["round", "reason", "number"], "rows": rules, "words": ["reason"]})
    words = ["outcome", "prompt", "answer"]
    tables.append({"title": "Samples", "headers": ["round", *words], "rows": samples, "words": words})
    note = (
        "Tokens as the teacher counts them; time and price of all attempts. All rows, with those dropped and why, are in store/generated."
    )
    return {"heading": "Generated rows", "tables": tables, "note": note}


def _reasons(made: GenerationRecord) -> dict[str, int]:
    return {**{f"prompts: {reason}": count for reason, count in made.left_out.items()}, **made.dropped}


def _row(made: GenerationRecord) -> list[str]:
    speed = rate(made.tokens / made.seconds) if made.seconds else ""
    numbers = [f"{number:,}" for number in (made.prompts, made.answers, made.kept, made.tokens)]
    return [str(made.number), made.teacher, *numbers, speed, duration(made.seconds), money(made.price, made.currency) if made.price else ""]


def _sample(number: int, sample: KeptSample) -> list[str]:
    outcome = "kept" if sample.rule is None else f"dropped: {sample.rule}"
    return [str(number), outcome, _cut(sample.prompt), _cut(sample.text)]


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"
