"""Which engine runs a model."""

from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.home import Home
from flows.model_server.engines import choose_engine
from tasks.export.find import KIND
from tasks.records.bench import Spread
from tasks.records.export import CHECK, ExportDifference, ExportRecord, FormatFigures
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Store

SPREAD = Spread(p50=1.0, p95=1.0, p99=1.0, mean=1.0, count=1)
FIGURES = FormatFigures(quality={}, request=SPREAD, load_seconds=1.0, peak_bytes=1, library_bytes=1, bytes=1)


def export(home: Home, name: str, weights: str) -> Path:
    identity = {"kind": KIND, "format": name, "weights": weights}
    record = ExportRecord(
        name=name,
        stage="small",
        weights_sha256=weights,
        fingerprint=fingerprint(identity),
        files={},
        student=FIGURES,
        export=FIGURES,
        difference=ExportDifference(examples=1, rows=1, largest=0.0, agreement=1.0, kl=0.0),
        machine="",
        made="2026-01-01T00:00:00+00:00",
        seconds=1.0,
    )

    def write(folder: Path) -> None:
        (folder / CHECK).write_text(record.model_dump_json())

    made: dict[str, Any] = {"run": "run-1", "ladder": "tiny"}
    return Store(home).publish(KIND, f"small-{name}", identity, record.fingerprint, made, write).folder


def test_an_export_is_taken_where_there_is_one_the_nearest_to_the_student_first(tmp_path: Path) -> None:
    home, student = Home(tmp_path), tmp_path / "student"
    assert choose_engine(home, student, "w", "causal-lm", None) == ("torch", student)
    rough = export(home, "gguf-q8_0", "w")
    (home.store / KIND / "of-another-version").mkdir()
    (home.store / KIND / "of-another-version" / CHECK).write_text("{}")
    assert choose_engine(home, student, "w", "causal-lm", None) == ("llamacpp", rough)
    near = export(home, "gguf-f16", "w")
    assert choose_engine(home, student, "w", "causal-lm", None) == ("llamacpp", near)
    assert choose_engine(home, student, "w", "causal-lm", "torch") == ("torch", student)
    assert choose_engine(home, student, "other", "causal-lm", None) == ("torch", student)
    graph = export(home, "onnx", "w")
    assert choose_engine(home, student, "w", "sequence-classification", None) == ("onnx", graph)
    assert choose_engine(home, student, "w", "causal-lm", None) == ("llamacpp", near)


def test_an_engine_without_an_export_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(UserError, match="ladder export --format gguf"):
        choose_engine(home, tmp_path, "w", "causal-lm", "llamacpp")
