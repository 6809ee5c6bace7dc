"""The shipped ladder `sentiment`: its sentences from an archive, its plan without them, and its steps with a small encoder in a package."""

from __future__ import annotations

import csv
import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from conf.home import Home
from conf.loading.load import load
from docs.examples import sentiment
from models.base.files import weights_sha256
from tasks.planning.plan import make_plan
from tasks.teachers.teacher import prepare_teacher
from tasks.training.find_or_train import find_or_train
from tasks.training.student import student_work
from tests.factories import WORDS, inputs_of, save_with_words, write_good_and_bad


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def test_sentences_come_from_the_archive_within_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = io.BytesIO()
    with tarfile.open(fileobj=inside, mode="w:gz") as archive:
        for kind in sentiment.KINDS:
            rows = b'1_1\t-0.51\tdull, "very"  dull\n1_2\t0.5\tso\tso\n1_3\t0.501\tbien s\xc3\xbbr\n'
            add(archive, f"hutto_ICWSM_2014/{kind}_GroundTruth.txt", rows)
            add(archive, f"hutto_ICWSM_2014/{kind}_anonDataRatings.txt", b"1\t2\n")
    with tarfile.open(tmp_path / "package.tar.gz", "w:gz") as archive:
        add(archive, "vader-1/setup.py", b"raise RuntimeError('run')")
        add(archive, f"vader-1/{sentiment.INNER}", inside.getvalue())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sentiment.py", "package.tar.gz"])
    sentiment.main()
    with (tmp_path / "sentiment.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows[::3]] == list(sentiment.KINDS.values())
    assert [(row["text"], row["label"]) for row in rows[:3]] == [
        ('dull, "very" dull', "negative"),
        ("so so", "neutral"),
        ("bien sûr", "positive"),
    ]


def test_it_is_planned_before_it_is_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.teachers.teacher_source.find_spec", lambda name: None)
    plan = make_plan(load("sentiment").ladder, tmp_path, Home(tmp_path / "home"))
    sizes = [plan.teacher.parameters, *(stage.parameters for stage in plan.stages)]
    assert None not in sizes
    assert sizes == sorted(sizes, reverse=True)


def test_its_steps_run_with_a_small_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_good_and_bad(tmp_path)
    package: Any = tmp_path / "site" / "small_encoder"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(package.parent))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    save_with_words(BertModel(config), package / "model")
    shapes = ("hidden_size: 64, layers: 2, heads: 2", "hidden_size: 32, layers: 1, heads: 1")
    ladder = load(
        "sentiment",
        [
            "data.paths=[rows.csv]",
            "data.columns.slice=null",
            "data.max_train_documents=40",
            "data.max_labels=10",
            "data.valid_fraction=0.2",
            "teacher.path=package:small-encoder",
            "teacher.training.steps=4",
            "compute.at_once=null",
            *(f"stages[{place}].student.shape={{family: bert, {shape}, feed_forward: 64}}" for place, shape in enumerate(shapes)),
            *(f"stages[{place}].training.steps=4" for place in range(2)),
        ],
    ).ladder
    inputs = inputs_of(ladder, tmp_path)
    root = prepare_teacher(inputs)
    half = find_or_train(student_work(ladder.stages[0], root, ladder, inputs.data), inputs)
    small = find_or_train(student_work(ladder.stages[1], half, ladder, inputs.data), inputs)
    assert root.parameters > half.parameters > small.parameters
    assert weights_sha256(Path(root.folder)) != weights_sha256(package / "model")
    assert small.initial
    assert {"nll", "accuracy"} <= set(small.initial)
