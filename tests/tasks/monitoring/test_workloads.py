"""Windows of pictures and of texts of a language model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from conf.home import Home
from conf.schema.shipping.monitoring import Monitoring
from tasks.monitoring.look import look
from tasks.monitoring.reference import Watched
from tasks.records.monitoring import WindowReport
from tests.tasks.monitoring.conftest import LLAMA, VIT, promote, write_rows

pytestmark = pytest.mark.thorough

SHADOW = Monitoring(shadow_rows=20)


def looked(seen: Watched, folder: Path, settings: Monitoring = SHADOW) -> list[WindowReport]:
    home = Home(Path(seen.record.folder).parents[1])
    return [entry.report for entry in look(home, seen, str(folder), settings).entries]


def picture_rows(folder: Path, hour: int, places: range, turned: bool = False, side: int = 8) -> None:
    """A window of digits, as files beside it."""
    digits, rows = load_digits(), []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for place in places:
        grey = Image.fromarray((digits.images[place] / 16 * 255).round().astype(np.uint8)).resize((side, side))
        name = f"images/{hour}-{place}.png"
        (grey.rotate(90) if turned else grey).save(folder / name)
        rows.append({"time": f"2026-03-01T{hour:02d}:00:00+00:00", "input": name, "label": int(digits.target[place]), "request": name})
    write_rows(folder / f"h{hour}.jsonl", rows)


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    data = {"source": "digits", "test_fraction": 0.4}
    seen = promote(tmp_path, workload="image-classification", data=data, shape=VIT)
    windows = tmp_path / "windows"
    for hour in range(2):
        picture_rows(windows, hour, range(100 * hour, 100 * hour + 80))
    for hour in range(2, 5):
        picture_rows(windows, hour, range(100 * hour, 100 * hour + 80), turned=True)
    picture_rows(windows, 5, range(500, 510), side=16)
    (windows / "images" / "5-500.png").write_bytes(b"no picture")
    reports = looked(seen, windows)
    calm, turned, large = reports[0], reports[4], reports[5]
    assert abs(calm.signals["quality"].value - calm.signals["quality"].reference) < 0.12
    assert turned.cause == "tiny/1:h2"
    assert any(report.trigger for report in reports[2:5])
    assert large.rows == 9
    assert any("1 of 10 inputs cannot be given to the model" in sentence for sentence in large.problems)
    assert any("9 of 9 pictures have another size than the 8 x 8" in sentence and "16 x 16" in sentence for sentence in large.problems)


def test_texts_of_a_language_model_need_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "again"]
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"text": " ".join(rng.choice(words, 12))}) + "\n" for _ in range(400)),
    )
    data = {"source": "files", "paths": ["texts.jsonl"], "sequence_length": 32, "test_fraction": 0.4}
    seen = promote(tmp_path, workload="causal-lm", data=data, shape=LLAMA, tokenizer={"kind": "bytes"})
    windows = tmp_path / "windows"
    for hour in range(5):
        shown = words if hour < 2 else ["Ein", "GANZ", "anderer", "TEXT", "0815", "4711", "?!", "XYZ"]
        rows = [
            {"time": f"2026-03-01T{hour:02d}:00:{n:02d}+00:00", "input": " ".join(rng.choice(shown, 12)), "request": f"{hour}-{n}"}
            for n in range(40)
        ]
        write_rows(windows / f"h{hour}.jsonl", rows)
    reports = looked(seen, windows)
    assert [report.labelled for report in reports] == [0] * 5
    calm, other = reports[1].signals["quality"], reports[4].signals["quality"]
    assert calm.unit == "bits_per_byte"
    assert abs(calm.drop) < 0.1
    assert other.value > 1.3 * other.reference
    assert any(report.trigger for report in reports[2:])
    assert reports[4].cause == "tiny/1:h2"
    assert reports[4].diagnosis == "refresh the teacher", "the root does not know such texts either"
    assert reports[4].why.startswith("Bits per byte has risen by ")
    assert {"bytes", "ids", "rarity", "other letters", "script"} >= {shift.feature for shift in reports[4].shifts}
