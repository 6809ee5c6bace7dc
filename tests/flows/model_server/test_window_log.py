"""Samples of requests as monitoring windows."""

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conf.errors import UserError
from flows.model_server.metrics import Metrics
from flows.model_server.window_log import WindowLog, finish_left_behind, redaction
from tasks.records.window import WindowRow
from tests.flows.model_server.conftest import Running, Serve


def rows_of(folder: Path) -> list[WindowRow]:
    return [WindowRow.model_validate_json(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_requests_and_answers_of_a_classifier_become_rows(serve: Serve, tmp_path: Path) -> None:
    running = serve("sequence-classification", share=1.0)
    answer = running.post("/predict", {"inputs": ["one", "zw\u00f6lf"]}).json()
    running.end()
    rows = rows_of(tmp_path / "windows")
    assert [row.input for row in rows] == ["one", "zw\u00f6lf"]
    assert [(row.prediction, row.confidence) for row in rows] == [(p["label"], p["probability"]) for p in answer["predictions"]]
    assert {row.model for row in rows} == {"tiny/1"}
    assert len({row.request for row in rows}) == 2
    assert not list((tmp_path / "windows").glob("*.part"))
    assert running.figure("ladder_window_rows_total", outcome="written") == 2


def test_answers_of_a_language_model_and_images_become_rows(serve: Serve, tmp_path: Path) -> None:
    running = serve("causal-lm", share=1.0)
    text = running.post("/v1/completions", {"model": "tiny", "prompt": "ab", "max_tokens": 3, "temperature": 0}).json()["choices"][0][
        "text"
    ]
    messages = [{"role": "user", "content": "hi"}]
    running.post("/v1/chat/completions", {"model": "tiny", "messages": messages, "max_tokens": 3})
    running.end()
    first, second = rows_of(tmp_path / "windows")
    assert (first.input, first.prediction) == ("ab", text)
    assert first.confidence is not None
    assert first.confidence < 0
    assert second.input == messages


def test_an_image_is_kept_as_a_file_beside_the_window(serve: Serve, tmp_path: Path) -> None:
    running = serve("image-classification", share=1.0)
    file = io.BytesIO()
    Image.new("L", (4, 4), 7).save(file, "PNG")
    running.post("/predict", {"inputs": [base64.b64encode(file.getvalue()).decode()]})
    running.end()
    (row,) = rows_of(tmp_path / "windows")
    assert (tmp_path / "windows" / row.input).read_bytes() == file.getvalue()


def test_nothing_is_written_unless_it_is_asked_for(serve: Serve, tmp_path: Path) -> None:
    running = serve("sequence-classification")
    running.post("/predict", {"inputs": ["one"]})
    running.end()
    assert not (tmp_path / "windows").exists()


def hide(row: dict[str, Any]) -> dict[str, Any] | None:
    if row["input"] == "drop":
        return None
    if row["input"] == "fail":
        raise ValueError("no")
    return {**row, "input": "***"}


def test_a_hook_changes_and_drops_rows_and_its_errors_never_let_one_through(tmp_path: Path) -> None:
    metrics = Metrics()
    windows = WindowLog(tmp_path, 1.0, hide, metrics)
    for text in ("secret", "drop", "fail", "other"):
        windows.add(WindowRow(time="2026-01-01T10:00:00+00:00", input=text))
    windows.close()
    assert [row.input for row in rows_of(tmp_path)] == ["***", "***"]
    values = {
        name: metrics.registry.get_sample_value("ladder_window_rows_total", {"outcome": name})
        for name in ("written", "redacted", "redaction_failed")
    }
    assert values == {"written": 2, "redacted": 1, "redaction_failed": 1}


def test_a_hook_is_named_by_package_and_function() -> None:
    assert redaction(None) is None
    assert redaction("json:loads") is json.loads
    for wrong in ("json", "json:nothing", "no_such_package:function", "json:__name__"):
        with pytest.raises(UserError, match="--redact"):
            redaction(wrong)


def test_hours_have_windows_of_their_own_and_a_second_server_its_own_file(tmp_path: Path) -> None:
    first, second = (WindowLog(tmp_path, 1.0, None, Metrics()) for _ in range(2))
    for log in (first, second):
        for hour in ("10", "11"):
            log.add(WindowRow(time=f"2026-01-01T{hour}:00:00+00:00", input=hour))
    first.close()
    second.close()
    assert len(list(tmp_path.glob("20260101T10*.jsonl"))) == len(list(tmp_path.glob("20260101T11*.jsonl"))) == 2
    assert sorted(row.input for row in rows_of(tmp_path)) == ["10", "10", "11", "11"]


def test_parts_of_a_killed_server_are_finished_without_their_half_line(tmp_path: Path) -> None:
    (tmp_path / "20260101T10.jsonl.part").write_text('{"time": "2026-01-01T10:00:00+00:00", "input": "a"}\n{"time": "20')
    (tmp_path / "20260101T11.jsonl.part").write_text("")
    finish_left_behind(tmp_path)
    assert [row.input for row in rows_of(tmp_path)] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["20260101T10.jsonl"]


def test_a_full_disk_costs_rows_and_no_request(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: Running = serve("sequence-classification", share=1.0)
    real, full = os.write, True

    def write(handle: int, data: bytes) -> int:
        if full and data.startswith(b'{"time"'):
            real(handle, data[:5])  # a part of the line fits
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr("flows.model_server.window_log.os.write", write)
    for _ in range(3):
        assert running.post("/predict", {"inputs": ["lost"]}).status_code == 200
    while running.figure("ladder_window_rows_total", outcome="write_failed") < 3:
        pass
    full = False
    assert running.post("/predict", {"inputs": ["kept"]}).status_code == 200
    running.end()
    assert [row.input for row in rows_of(tmp_path / "windows")] == ["kept"]
