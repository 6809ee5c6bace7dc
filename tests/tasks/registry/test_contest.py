"""Two small models that were trained here, judged on the validation split and on fresh rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.errors import UserError
from conf.home import Home
from conf.loading.yaml_output import to_yaml
from tasks.records.run import StageRecord
from tasks.registry.judge import Contest, contest, judge
from tasks.registry.versions import Version
from tasks.runtime.runs.run_registry import save
from tasks.teachers.teacher import prepare_teacher
from tests.factories import inputs_of, ladder_of_file, run_record

pytestmark = pytest.mark.thorough

SHAPE = {"family": "bert", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 16}
COMMON = {"batch_size": 16, "learning_rate": 1e-2, "precision": "fp32"}


def write_rows(path: Path, seed: int, count: int) -> None:
    """Different texts whose class is the letter that they begin with."""
    generator = np.random.default_rng(seed)
    words = ["".join(generator.choice(list("cdefgh"), 6)) for _ in range(count)]
    rows = "".join(f"{'a' if i % 2 else 'b'} {word},{'first' if i % 2 else 'second'}\n" for i, word in enumerate(words))
    path.write_text(f"text,label\n{rows}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("contest")
    write_rows(made / "rows.csv", 0, 200)
    write_rows(made / "fresh.csv", 1, 400)
    (made / "home").mkdir()
    return made


def trained(folder: Path, run: str, steps: int, **rules: Any) -> Version:
    """A model of a run, which has its settings and its data."""
    ladder = ladder_of_file(
        str(folder / "rows.csv"),
        teacher={"source": "train", "shape": SHAPE, "training": {"steps": steps, **COMMON}},
        stages=[{"name": "small", "student": {"shape": SHAPE}, "training": {"steps": 1, **COMMON}}],
        promotion=rules,
    )
    inputs = inputs_of(ladder, folder)
    model: StageRecord = prepare_teacher(inputs).model_copy(update={"gate": "passed"})
    home = Home(folder / "home")
    save(home, run_record(run, model, workload=ladder.workload, data=inputs.data, folder=str(home.runs / run)))
    (home.runs / run / "ladder.yaml").write_text(to_yaml(ladder))
    known = (model.name, model.fingerprint, model.weights_sha256, Path(model.folder), ladder.workload)
    return Version("tiny", "1" if run == "good" else "2", (), run, *known, {})


@pytest.fixture(scope="module")
def good(folder: Path) -> Version:
    return trained(folder, "good", 60)


@pytest.fixture(scope="module")
def poor(folder: Path) -> Version:
    return trained(folder, "poor", 1, max_slower=1000.0)


def asked(folder: Path, challenger: Version, champion: Version | None, delta: float | None = None) -> Contest:
    return contest(Home(folder / "home"), challenger, champion, delta)


def test_fresh_rows_decide_between_two_models(folder: Path, good: Version, poor: Version) -> None:
    won = judge(asked(folder, good, poor), str(folder / "fresh.csv"))
    assert (won.rows, won.documents, won.seen) == (400, 400, None)
    assert won.challenger > 0.95
    assert won.difference is not None
    assert won.low is not None
    assert 0 < won.low < won.difference == pytest.approx(won.challenger - (won.champion or 0))
    assert won.passed, won.reasons
    lost = judge(asked(folder, poor, good), str(folder / "fresh.csv"))
    assert lost.difference == pytest.approx(-won.difference)
    assert len(lost.reasons) == 1
    assert "promotion.delta allows 1.00 %" in lost.reasons[0]
    assert set(lost.latency_ms) == {"champion", "challenger"}  # a limit on their ratio has them measured in turn
    assert judge(asked(folder, poor, good, delta=0.9), str(folder / "fresh.csv")).passed


def test_the_validation_split_is_said_and_may_be_too_small(folder: Path, good: Version, poor: Version) -> None:
    found = judge(asked(folder, good, poor))
    assert found.data == "the validation split of good"
    assert str(found.seen).startswith("tiny/1 and tiny/2 were validated on these rows in training")
    assert "too few examples" in found.reasons[0]
    assert found.latency_ms == {}  # nothing asks for it


def test_rows_that_a_model_was_trained_on_are_left_out(folder: Path, good: Version, poor: Version) -> None:
    both = folder / "both.csv"
    both.write_text((folder / "fresh.csv").read_text() + "".join((folder / "rows.csv").read_text().splitlines(keepends=True)[1:]))
    found = judge(asked(folder, good, poor), str(both))
    own = Home(folder / "home").store.glob("data/*/corpus.json")
    assert any(own)
    assert 400 < found.rows < 600
    assert [note.split(" documents left out")[0] for note in found.notes] == [str(600 - found.rows)] * 2


def test_data_that_cannot_be_read_are_refused(folder: Path, good: Version, poor: Version) -> None:
    with pytest.raises(UserError, match="a file, or a pattern that matches files"):
        judge(asked(folder, good, poor), str(folder / "nix.csv"))
    (folder / "other.csv").write_text("text,label\n" + "a x,third\nb y,first\na z,second\n" * 5)
    with pytest.raises(UserError, match="rows with the classes of the ladder's data: first, second"):
        judge(asked(folder, good, poor), str(folder / "other.csv"))


def test_a_champion_of_another_home_is_judged_and_that_is_said(folder: Path, good: Version, poor: Version) -> None:
    from dataclasses import replace

    elsewhere = replace(poor, run="of-another-home")
    found = judge(asked(folder, good, elsewhere), str(folder / "fresh.csv"))
    assert found.passed
    assert any("is not known: its run is not in this home" in note for note in found.notes)
    with pytest.raises(UserError, match="a version whose run and data are in this home"):
        asked(folder, elsewhere, good)


def test_language_models_are_judged_by_bits_per_byte(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    for number in range(40):
        (tmp_path / f"text-{number}.txt").write_text(f"the number {number} is {'even' if number % 2 == 0 else 'odd'}\n" * 4)
    (tmp_path / "fresh.jsonl").write_text("".join(f'{{"text": "the number {n} is here"}}\n' for n in range(100, 140)))
    shape = {**SHAPE, "family": "llama"}
    ladder = ladder_of_file(
        str(tmp_path / "text-*.txt"),
        workload="causal-lm",
        teacher={"source": "train", "shape": shape, "training": {"steps": 2, **COMMON}},
        stages=[{"name": "small", "student": {"shape": shape}, "training": {"steps": 1, **COMMON}}],
    )
    inputs, home = inputs_of(ladder, tmp_path), Home(tmp_path / "home")
    model = prepare_teacher(inputs)
    save(home, run_record("lm", model, workload="causal-lm", data=inputs.data, folder=str(home.runs / "lm")))
    (home.runs / "lm" / "ladder.yaml").write_text(to_yaml(ladder))
    version = Version("tiny", "1", (), "lm", model.name, model.fingerprint, model.weights_sha256, Path(model.folder), "causal-lm", {})
    found = judge(asked(tmp_path, version, None), str(tmp_path / "fresh.jsonl"))
    assert (found.metric, found.documents, found.champion) == ("bits_per_byte", 40, None)
    assert 2 < found.challenger < 10
    assert found.passed
