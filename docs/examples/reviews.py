"""Stands for a team's own teacher and data: writes reviews.csv, and my-bert, a small BERT that was trained on such reviews."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

WORDS = {"bad": ["dull", "cold", "late", "broken", "noisy"], "good": ["warm", "superb", "quick", "quiet", "lovely"]}


def review(number: int) -> tuple[str, str]:
    """A review and its stars; two words say it, one of ten stars is wrong."""
    stars = random.choice(sorted(WORDS))
    said = f"room {number % 100} was {' and '.join(random.sample(WORDS[stars], 2))}"
    return said, random.choice(sorted(WORDS)) if random.random() < 0.2 else stars


def main() -> None:
    """Write the files in the working directory."""
    random.seed(0)
    torch.manual_seed(0)
    rows = [review(number) for number in range(1200)]
    with Path("reviews.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "stars", "country"])
        writer.writerows((*row, random.choice(["DE", "FR"])) for row in rows[:400])
    parts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "room", "was", "and", *WORDS["bad"], *WORDS["good"], *map(str, range(100))]
    tokenizer = BertTokenizer(vocab={part: index for index, part in enumerate(parts)})
    sizes: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    names = dict(enumerate(sorted(WORDS)))
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(parts), id2label=names, label2id={n: i for i, n in names.items()}, **sizes)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(40):
        batch = [rows[400 + index % 800] for index in range(32 * step, 32 * step + 32)]
        inputs = tokenizer([said for said, _ in batch], padding=True, return_tensors="pt")
        labels = torch.tensor([sorted(WORDS).index(stars) for _, stars in batch])
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained("my-bert")
    tokenizer.save_pretrained("my-bert")


if __name__ == "__main__":
    main()
