"""Ladders with teacher signals cached on disk, through the command line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.flows.ladders import TINY

CACHED = TINY.partition("  - name: three")[0].replace("\ndefaults:\n", "\ndefaults:\n  signals: {source: cached, kind: full}\n")
WORDS = ["def", "return", "import", "for", "in", "while", "class", "self", "value", "index", "data", "model", "teacher", "student"]
TEXT = """
name: tiny-text
workload: causal-lm
data: {source: files, paths: ["text/*.txt"], sequence_length: 32, valid_fraction: 0.2, test_fraction: 0.1}
tokenizer: {kind: bytes}
evaluation: {examples: 32}
defaults:
  signals: {source: cached}
  training: {steps: 60, batch_size: 16, learning_rate: 3e-3, precision: fp32, validate_every: 60, checkpoint_every: 20}
teacher:
  source: train
  shape: {hidden_size: 32, layers: 2, heads: 4, feed_forward: 64}
  training: {steps: 100, batch_size: 16, learning_rate: 3e-3, precision: fp32, validate_every: 100, checkpoint_every: 20}
stages:
  - name: one
    student: {shape: {hidden_size: 24, layers: 2, heads: 2, feed_forward: 48}}
  - name: two
    teachers: [root]
    signals: {kind: top-k, k: 12}
    student: {shape: {hidden_size: 16, layers: 1, heads: 2, feed_forward: 32}}
  - name: three
    teachers: [root]
    objective: {alpha: 0.5}
    student: {shape: {hidden_size: 16, layers: 1, heads: 2, feed_forward: 32}}
"""


def signals(home: Path) -> dict[str, str]:
    """Stage -> how its teacher was asked, as its record in the store says."""
    records = [json.loads(path.read_text()) for path in (home / "store" / "stage").glob("*/record.json")]
    return {record["name"]: record["signals"] for record in records}


@pytest.mark.slow
def test_digits_learn_from_full_signals(cli, tmp_path: Path) -> None:
    path = tmp_path / "cached.yaml"
    path.write_text(CACHED)
    assert "one: signals cached (as set): full, about 20 bytes each" in cli("plan", path).out
    cli("run", path)
    assert all(text.startswith("full, 20.0 bytes each, ") for text in signals(cli.home).values())
    assert len(list((cli.home / "store" / "signals").glob("*/manifest.json"))) == 2  # each student's teacher is the one above it


@pytest.mark.slow
def test_answers_asked_anew_teach_the_same(cli, tmp_path: Path) -> None:
    path = tmp_path / "cached.yaml"
    path.write_text(CACHED)
    cli("run", path)
    first = cli.hashes()
    cli("run", path, "--fresh", "--start-at", "one")
    assert cli.hashes() == first


@pytest.mark.slow
def test_a_language_model_learns_from_draws_and_from_the_most_probable_ids(cli, tmp_path: Path) -> None:
    generator = random.Random(0)
    (tmp_path / "text").mkdir()
    for i in range(60):
        (tmp_path / "text" / f"{i}.txt").write_text(" ".join(generator.choice(WORDS) for _ in range(60)))
    path = tmp_path / "text.yaml"
    path.write_text(TEXT)
    said = cli("run", path).err
    asked = signals(cli.home)
    assert asked["one"].startswith("sampled, 50 draws, ")
    assert asked["two"].startswith("top-k, 12 ids, ")
    assert ", 0 examples computed in 0.0 s" in asked["three"]  # the same teacher and draws as stage one, another alpha
    assert "three: signals of teacher found in the store" in said
    refused = cli("plan", path, "stages.two.signals.k=300", code=2).err
    assert "stages[1].signals.k: got 300; allowed: at most the 258 ids or classes of the data." in refused
