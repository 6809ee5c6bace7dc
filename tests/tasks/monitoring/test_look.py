"""Windows of a trained classifier: drift found, each row counted once, nothing stopped by a bad window."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.home import Home
from conf.schema.shipping.monitoring import Monitoring
from tasks.monitoring.history import read_history, write_entry
from tasks.monitoring.look import look
from tasks.monitoring.reference import Watched, find_or_compute_reference, find_or_compute_teacher_reference
from tasks.records.monitoring import WindowReport
from tests.tasks.monitoring.conftest import WORDS, reviews, write_rows

pytestmark = pytest.mark.thorough

OTHER = {"bad": ("trist", "kalt", "spaet", "oede"), "good": ("warm", "schoen", "leise", "rein")}
CYRILLIC = {"bad": ("холодно", "тускло"), "good": ("чисто", "тепло")}


def home_of(seen: Watched) -> Home:
    return Home(Path(seen.record.folder).parents[1])


def looked(seen: Watched, folder: Path, **changes: Any) -> list[WindowReport]:
    settings = Monitoring.model_validate({"shadow_rows": 0, **changes})
    return [entry.report for entry in look(home_of(seen), seen, str(folder), settings).entries]


def test_the_reference_is_measured_once_on_rows_that_chose_nothing(texts: Watched) -> None:
    first = find_or_compute_reference(home_of(texts), texts)
    corpus = texts.data.corpus()
    assert len(first.quality) == len(corpus.split("test"))
    assert first.value > 0.9
    assert len(first.estimate) == len(first.quality)
    assert abs(first.estimate.mean() - first.value) < 0.03
    assert set(first.described.numbers) == {"bytes", "ids", "rarity", "other letters"}
    again = find_or_compute_reference(home_of(texts), texts)
    assert np.array_equal(again.quality, first.quality)
    assert len(list((home_of(texts).store / "reference").iterdir())) == 1
    root = texts.root
    assert root is not None
    theirs = find_or_compute_teacher_reference(home_of(texts), texts, first, root)
    assert theirs["agreement"].mean() > 0.9


def test_drift_is_found_with_its_first_window_and_its_reason(texts: Watched, tmp_path: Path) -> None:
    for hour in range(6):
        write_rows(tmp_path / f"h{hour}.jsonl", reviews(120, hour, OTHER if hour > 2 else WORDS))
    reports = looked(texts, tmp_path, shadow_rows=40)
    assert [report.window for report in reports] == [f"h{hour}" for hour in range(6)]
    assert [report.trigger for report in reports] == [False, False, False, False, True, False]
    found = reports[4]
    assert (found.cause, found.diagnosis) == ("tiny/1:h3", "refresh the teacher")
    assert found.signals["quality"].value < 0.8
    assert set(found.signals) == {"quality", "agreement", "estimate", "teacher"}
    assert any(shift.feature == "rarity" and shift.shifted for shift in found.shifts)
    assert looked(texts, tmp_path, shadow_rows=40) == [], "each window once"


def test_another_language_shows_without_labels(texts: Watched, tmp_path: Path) -> None:
    for hour in range(3):
        rows = [{key: value for key, value in row.items() if key != "label"} for row in reviews(80, hour, CYRILLIC)]
        write_rows(tmp_path / f"h{hour}.jsonl", rows)
    last = looked(texts, tmp_path)[-1]
    assert last.labelled == 0
    assert last.changed
    assert last.diagnosis == "watch"
    shifted = {shift.feature for shift in last.shifts if shift.shifted}
    assert {"script", "other letters"} <= shifted


def test_windows_are_judged_by_time_and_late_labels_count_once(texts: Watched, tmp_path: Path) -> None:
    early, late = reviews(40, 1), reviews(40, 2)
    write_rows(tmp_path / "a-late.jsonl", late)
    write_rows(tmp_path / "b-early.jsonl", [{key: value for key, value in row.items() if key != "label"} for row in early])
    reports = looked(texts, tmp_path)
    assert [(report.window, report.rows, report.labelled) for report in reports] == [("b-early", 40, 0), ("a-late", 40, 40)]
    write_rows(tmp_path / "c-labels.jsonl", [*early, *reviews(5, 3)])
    (report,) = looked(texts, tmp_path)
    assert (report.rows, report.labelled, report.repeated) == (5, 45, 40)
    assert report.signals["estimate"].total == 85
    assert report.signals["quality"].total == 85
    assert report.problems == ("40 of 45 rows came in an earlier window; they are counted once.",)
    write_rows(tmp_path / "d-copy.jsonl", reviews(5, 3)[::-1])
    (copy,) = looked(texts, tmp_path)
    assert (copy.rows, copy.labelled, copy.signals) == (0, 0, {})
    (tmp_path / "e-same-bytes.jsonl").write_bytes((tmp_path / "a-late.jsonl").read_bytes())
    assert looked(texts, tmp_path) == []


def test_a_bad_window_never_stops_the_history(texts: Watched, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.jsonl").write_text('{"text": "no input here"}\n')
    write_rows(tmp_path / "c.jsonl", [{"input": 5}, {"input": ["a"]}, {"input": "room 1 was warm", "label": "purple"}])
    write_rows(tmp_path / "d.jsonl", reviews(30, 4))
    reports = {report.window: report for report in looked(texts, tmp_path)}
    assert [reports[name].unusable for name in "abcd"] == [True, True, False, False]
    assert reports["a"].why == "It is empty."
    assert reports["c"].rows == 1
    assert any("2 of 3 inputs cannot be given to the model" in sentence for sentence in reports["c"].problems)
    assert any("1 labels are none of the classes, such as purple" in sentence for sentence in reports["c"].problems)
    assert reports["d"].signals["quality"].rows == 30
    assert looked(texts, tmp_path) == [], "an unusable window is not read again and again"


def test_a_window_that_is_still_written_waits(texts: Watched, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl.part", reviews(30, 4))
    assert looked(texts, tmp_path) == []
    (tmp_path / "a.jsonl.part").rename(tmp_path / "a.jsonl")
    assert [report.rows for report in looked(texts, tmp_path)] == [30]


def test_windows_of_the_server_are_the_default_and_none_is_no_error(texts: Watched) -> None:
    home = home_of(texts)
    assert look(home, texts, None, Monitoring(shadow_rows=0)).entries == []
    write_rows(home.windows / "tiny" / "20260301T00.jsonl", reviews(10, 1))
    assert [entry.report.rows for entry in look(home, texts, None, Monitoring(shadow_rows=0)).entries] == [10]


def test_a_damaged_entry_is_left_out(texts: Watched, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", reviews(10, 1))
    write_rows(tmp_path / "b.jsonl", reviews(10, 2))
    looked(texts, tmp_path)
    home = home_of(texts)
    (home.monitoring / "tiny" / "windows" / "000001.json").write_text("{")
    assert [entry.report.window for entry in read_history(home, "tiny")] == ["b"]


@pytest.mark.slow
@pytest.mark.processes
def test_after_a_kill_the_next_run_goes_on_and_counts_nothing_twice(texts: Watched, tmp_path: Path) -> None:
    for hour in range(4):
        write_rows(tmp_path / f"h{hour}.jsonl", reviews(30, hour))
    home = home_of(texts)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.tasks.monitoring.conftest import reopened\n"
        "from conf.home import Home\n"
        "from conf.schema.shipping.monitoring import Monitoring\n"
        "from tasks.monitoring.look import look\n"
        "kill = lambda entry: entry.report.window == 'h1' and os.kill(os.getpid(), signal.SIGKILL)\n"
        "look(Home(Path(sys.argv[1])), reopened(Path(sys.argv[1])), sys.argv[2], Monitoring(shadow_rows=0), kill)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(home.root), str(tmp_path)], cwd=Path(__file__).parents[3], check=False)
    assert ran.returncode == -signal.SIGKILL
    assert [entry.report.window for entry in read_history(home, "tiny")] == ["h0", "h1"]
    assert [report.window for report in looked(texts, tmp_path)] == ["h2", "h3"]
    assert read_history(home, "tiny")[-1].report.signals["quality"].total == 120


def test_an_entry_is_kept_whole_or_not_at_all(texts: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "a.jsonl", reviews(10, 1))
    looked(texts, tmp_path)
    home = home_of(texts)
    (entry,) = read_history(home, "tiny")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("conf.atomic.fsync", full)
    from conf.errors import StoreError

    with pytest.raises(StoreError, match="No space left"):
        write_entry(home, entry.model_copy(update={"handled": True}))
    assert read_history(home, "tiny") == [entry]
