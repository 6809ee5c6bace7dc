"""`ladder monitor` on a finished run: judged once, kept, in MLflow and in Prefect."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.flows.driver import Cli, ask_prefect


def write_windows(folder: Path, number: int) -> None:
    """Windows of 20 digits each, labelled, as pictures beside them."""
    digits = load_digits()
    (folder / "images").mkdir(parents=True)
    for hour in range(number):
        rows = []
        for place in range(20 * hour, 20 * hour + 20):
            Image.fromarray((digits.images[place] / 16 * 255).round().astype(np.uint8)).save(folder / f"images/{place}.png")
            time = f"2026-03-01T{hour:02d}:00:{place % 20:02d}+00:00"
            rows.append({"time": time, "input": f"images/{place}.png", "label": int(digits.target[place])})
        (folder / f"h{hour}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_windows_are_judged_once_recorded_and_shown(finished: Cli, tmp_path: Path):
    write_windows(tmp_path / "windows", 2)
    (tmp_path / "windows" / "empty.jsonl").write_text("")
    run = finished.json("runs")[0]["run"]
    reports = finished.json("monitor", run, "--windows", tmp_path / "windows")
    assert [(report["window"], report["rows"], report["unusable"]) for report in reports] == [
        ("empty", 0, True),
        ("h0", 20, False),
        ("h1", 20, False),
    ]
    assert reports[1]["signals"]["quality"]["unit"] == "accuracy"
    assert finished("monitor", run, "--windows", tmp_path / "windows").out.strip() == "no new windows"
    history = finished.json("monitor", "--history")
    assert [report["window"] for report in history] == ["empty", "h0", "h1"]
    page = finished.home / "monitoring" / history[0]["name"] / "monitoring.html"
    assert "Windows over time" in page.read_text()
    assert str(page) in finished("monitor", "--history").out
    with sqlite3.connect(finished.home / "mlflow" / "mlflow.db") as database:
        query = "SELECT r.name, r.status FROM runs r JOIN experiments e USING (experiment_id) WHERE e.name = ? ORDER BY r.name"
        assert database.execute(query, (f"{history[0]['name']}-monitoring",)).fetchall() == [
            ("empty", "FINISHED"),
            ("h0", "FINISHED"),
            ("h1", "FINISHED"),
        ]
    assert all(report["mlflow_run_id"] for report in history)
    wanted = {"artifacts": {"key": {"like_": "monitoring-%"}}}
    artifacts = ask_prefect("POST", f"{finished.env['PREFECT_API_URL']}/artifacts/filter", json=wanted).json()
    assert len(artifacts) >= 3


@pytest.mark.slow
def test_what_cannot_be_watched_is_one_sentence(finished: Cli, tmp_path: Path):
    assert finished("monitor", code=2).err.splitlines()[-1].startswith("error: MODEL: got 'none'; allowed: a promoted model.")
    assert "allowed: NAME@ALIAS, NAME/VERSION, RUN or RUN:STAGE" in finished("monitor", "nix", code=2).err
    assert "a model with a history: there is none yet" in finished("monitor", "nix", "--history", code=2).err
    run = finished.json("runs")[0]["run"]
    assert "error: --windows: got " in finished("monitor", run, "--windows", tmp_path / "nowhere", code=2).err
    finished.env["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    assert finished("monitor", code=2).err.splitlines()[-1].startswith("error: MLFLOW_TRACKING_URI: got 'http://127.0.0.1:9'; allowed: ")


def test_without_mlflow_the_history_is_kept_here(finished: Cli, tmp_path: Path):
    write_windows(tmp_path / "windows", 1)
    finished.env["MLFLOW_TRACKING_URI"] = "none"
    (report,) = finished.json("monitor", "--windows", tmp_path / "windows")
    assert report["mlflow_run_id"] is None
    assert [entry["window"] for entry in finished.json("monitor", "--history")] == ["h0"]
