"""A ladder whose teacher knows two dialects, its data one; its requests.

Each class has words of its own in each dialect; a request is in one of them. The student is distilled on texts of the first dialect, so
that requests in the second one are a drift which the teacher handles and the student does not.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

CLASSES = ("calm", "glad", "sad")
DIALECTS = ("north", "south")
WORDS, FILLERS = 12, 20  # of each class in each dialect; shared by all
NOISE = 0.03  # share of wrong labels
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

LADDER = """
name: dialects
workload: sequence-classification
teacher: my-teacher
data: {source: files, paths: [north.csv], columns: {text: text, label: label}, sequence_length: 12, valid_fraction: 0.1, test_fraction: 0.4}
compute: {at_once: null}
system_metrics: false
defaults:
  signals: {source: cached, kind: full}
  objective: {alpha: 0.9}
  training: {steps: STEPS, batch_size: 32, learning_rate: 3e-3, precision: fp32, validate_every: STEPS}
stages:
  - {name: half, student: {shape: {family: bert, hidden_size: 32, layers: 2, heads: 2, feed_forward: 64}}}
  - {name: small, student: {shape: {family: bert, hidden_size: 24, layers: 1, heads: 2, feed_forward: 48}}}
promotion: {delta: 0.02, min_rows: 100}
monitoring: {drop: 0.03, shadow_rows: 60, k: 2, n: 3}
redistill: {policy: POLICY, mix: 0.5, per_week: 5}
"""


def words_of(kind: str, dialect: str) -> list[str]:
    """Words of a class in a dialect."""
    return [f"{dialect[0]}{kind}{number}" for number in range(WORDS)]


def request(generator: random.Random, dialect: str) -> tuple[str, str]:
    """A text of six words, and its class: two words tell it, one may tell of another class."""
    kind = generator.choice(CLASSES)
    said = generator.sample(words_of(kind, dialect), 2) + [f"and{generator.randrange(FILLERS)}" for _ in range(4)]
    generator.shuffle(said)
    wrong = generator.random() < NOISE
    return " ".join(said), generator.choice(CLASSES) if wrong else kind


def write(folder: Path, rows: int = 2400, steps: int = 160, policy: str = "auto") -> Path:
    """Write the teacher, data of the first dialect, and the ladder; returns the ladder's file."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(0)
    with (folder / "north.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(request(generator, "north") for _ in range(rows))
    _write_teacher(folder / "my-teacher")
    path = folder / "dialects.yaml"
    path.write_text(LADDER.replace("STEPS", str(steps)).replace("POLICY", policy), encoding="utf-8")
    return path


def _write_teacher(folder: Path, steps: int = 150) -> None:
    """A BERT that was trained on both dialects, elsewhere."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    generator = random.Random(1)
    parts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"and{number}" for number in range(FILLERS))]
    parts += [word for dialect in DIALECTS for kind in CLASSES for word in words_of(kind, dialect)]
    tokenizer = BertTokenizer(vocab={part: index for index, part in enumerate(parts)})
    sizes: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    names: dict[int, str] = dict(enumerate(CLASSES))
    config = BertConfig(vocab_size=len(parts), id2label=names, label2id={name: index for index, name in names.items()}, **sizes)
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        rows = [request(generator, DIALECTS[step % 2]) for _ in range(64)]
        inputs = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
        model(**inputs, labels=torch.tensor([CLASSES.index(label) for _, label in rows])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def requests(number: int, rows: int, south: float, labelled: float = 1.0) -> Iterator[dict[str, Any]]:
    """Requests of one window: text, class (None where nobody labelled it), and time.

    Args:
        number: Of the window, which begins at its own hour; also the seed.
        rows: How many.
        south: Share of requests in the second dialect.
        labelled: Share of requests with a label.
    """
    generator = random.Random(1000 + number)
    for place in range(rows):
        text, label = request(generator, DIALECTS[generator.random() < south])
        moment = BEGAN + timedelta(hours=number, seconds=place)
        known = label if generator.random() < labelled else None
        yield {"time": moment.isoformat(), "input": text, "label": known, "request": f"{number}-{place}"}


def write_window(folder: Path, number: int, rows: int, south: float, labelled: float = 1.0) -> Path:
    """Write a window file of requests."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{BEGAN + timedelta(hours=number):%Y%m%dT%H}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in requests(number, rows, south, labelled)), encoding="utf-8")
    return path


def accuracy(answers: Mapping[str, str], number: int, rows: int, south: float) -> float:
    """Share of a window's requests whose answer is the class that the words tell."""
    wanted = list(requests(number, rows, south))
    return sum(answers[row["input"]] == row["label"] for row in wanted) / len(wanted)
