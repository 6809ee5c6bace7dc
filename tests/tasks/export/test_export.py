"""Exports of a classifier: written, compared in a fresh process, reused, copied; nothing but the student is in them."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from conf.errors import StoreError, UserError
from conf.schema.shipping.exports import Export
from flows.cli.app import app
from flows.cli.show.runs import show_json, show_text
from models.engines.base import Classifier, EngineKind
from models.engines.load import load_engine
from tasks.export.export import export_identity
from tasks.export.find import stored_exports
from tasks.export.judge import outside
from tasks.export.run_exports import chosen_stage, export_run
from tasks.records.export import ExportDifference, read_exports
from tasks.report.sections.exports import section
from tests.factories import model_record, run_record
from tests.tasks.export.conftest import Made

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
SHIPPED = {"config.json", "tokenizer.json", "tokenizer_config.json", "README.md", "export.json"}


@pytest.fixture(scope="module")
def exported(texts: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two formats in a folder; each traced, or copied, and compared once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "none")
        to = tmp_path_factory.mktemp("shipped") / "out"
        kill_in_the_middle(texts)
        export_run(texts.home, texts.record, texts.ladder, [Export(format="onnx"), Export(format="onnx-int8")], None, to)
        return to


KILLED = """
import os, signal, sys
from pathlib import Path
from conf.home import Home
from conf.loading.load import load
from conf.schema.shipping.exports import Export
from tasks.export import export as exporting
from tasks.export.run_exports import export_run
from tasks.runtime.runs.run_registry import load_run

def die(name, student, workload, folder, earlier):
    (folder / "model.onnx").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

exporting.write_files = die
home = Home(Path(sys.argv[1]))
record = load_run(home, "made")
export_run(home, record, load(str(Path(record.folder) / "ladder.yaml")).ladder, [Export(format="onnx")], None, Path(sys.argv[2]))
"""


def kill_in_the_middle(texts: Made) -> None:
    """An export that is killed while it writes leaves nothing that counts; the next one makes it."""
    to = texts.home.root / "killed"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, str(texts.home.root), str(to)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not to.exists()
    assert not list((texts.home.store / "export").glob("*"))
    assert len(list((texts.home.store / "writing").glob("*"))) == 1


@pytest.mark.slow
def test_a_killed_export_leaves_nothing_behind_the_next_one(texts: Made, exported: Path) -> None:
    assert list((texts.home.store / "writing").glob("*")) == []
    assert stored_exports(texts.home, texts.student.weights_sha256).keys() == {"onnx", "onnx-int8"}
    assert stored_exports(texts.home, "other weights") == {}


def test_a_full_disk_is_said_and_leaves_nothing(texts: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(name: str, student: Path, workload: str, folder: Path, earlier: Path | None) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tasks.export.export.write_files", full)
    with pytest.raises(StoreError, match=r"LADDER_HOME: cannot write to .*No space left on device"):
        export_run(texts.home, texts.record, texts.ladder, [Export(format="hf")], None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list((texts.home.store / "writing").glob("*"))
    assert "hf" not in {each.name for each in read_exports(texts.record)}


@pytest.mark.slow
def test_the_engine_of_an_export_answers_as_the_students(texts: Made, exported: Path) -> None:
    rows = ["good day", "bad", "daydayday good bad"]
    own, other = (load_engine(place, "sequence-classification", kind) for place, kind in engines_of(texts, exported))
    assert isinstance(own, Classifier)
    assert isinstance(other, Classifier)
    assert (other.labels, other.max_length, other.lengths(rows)) == (own.labels, own.max_length, own.lengths(rows))
    for mine, theirs in zip(own.predict(rows), other.predict(rows), strict=True):
        assert theirs.label == mine.label
        assert theirs.probabilities == pytest.approx(mine.probabilities, abs=1e-5)
    other.warm()


def engines_of(texts: Made, exported: Path) -> tuple[tuple[Path, EngineKind], tuple[Path, EngineKind]]:
    return (Path(texts.student.folder), "torch"), (exported / "onnx", "onnx")


def test_the_report_and_the_terminal_have_the_table(texts: Made, exported: Path) -> None:
    found = section(texts.record)
    assert found is not None
    (table,) = found["tables"]
    assert [row[0] for row in table["rows"]] == ["torch", "onnx", "onnx-int8"]
    assert all(len(row) == len(table["headers"]) for row in table["rows"])
    assert section(texts.record.model_copy(update={"folder": "/nowhere"})) is None
    shown = show_text(texts.record)
    assert "exports of one" in shown
    assert shown.count("within tolerance") == 2
    assert [each["name"] for each in show_json(texts.record)["exports"]] == ["onnx", "onnx-int8"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "onxx"], "--format: got 'onxx'; allowed: hf, onnx, onnx-int8, gguf, gguf-f32, gguf-f16, gguf-q8_0."),
        (["--format", "gguf"], "--format: got 'gguf-f16'; allowed: hf, onnx and onnx-int8 for sequence-classification"),
        (["--format", "hf", "--dtype", "f16"], "--dtype: got 'f16'; allowed: with --format gguf alone."),
        (["--format", "gguf", "--dtype", "q4"], "--dtype: got 'q4'; allowed: f32, f16, q8_0."),
        (["--format", "hf", "--format", "hf"], "--format: got 'hf'; allowed: each format once."),
        (["--stage", "two"], "--stage: got 'two'; allowed: a finished stage of made: one."),
        (["--to", "ladder.yaml"], "This is a file."),
    ],
)
def test_bad_input_is_refused_before_any_work(texts: Made, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.setenv("LADDER_HOME", str(texts.home.root))
    monkeypatch.chdir(texts.record.folder)
    result = CliRunner().invoke(app, ["export", "made", *words])
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)


def test_the_command_copies_what_is_stored(texts: Made, exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LADDER_HOME", str(texts.home.root))
    result = CliRunner().invoke(app, ["export", "--to", str(tmp_path / "out"), "--format", "onnx", "--json"])
    assert result.exit_code == 0, result.output
    (made,) = json.loads(result.stdout)["exports"]
    assert (made["name"], made["reused"], made["refused"]) == ("onnx", True, None)
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (exported / "onnx" / "model.onnx").read_bytes()


def test_a_folder_holds_the_student_and_nothing_else(texts: Made, exported: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for name in ("onnx", "onnx-int8"):
        assert {path.name for path in (exported / name).rglob("*")} == SHIPPED | {"model.onnx"}
    graph = onnx.load(exported / "onnx" / "model.onnx").graph
    with safe_open(Path(texts.student.folder) / "model.safetensors", framework="np") as file:
        own = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    learned = [onnx.numpy_helper.to_array(each) for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    for values in (each for each in learned if each.size > 16):
        assert any(each.size == values.size and np.array_equal(np.sort(each.ravel()), np.sort(values.ravel())) for each in own)
    assert sum(values.size for values in learned) < 1.02 * sum(values.size for values in own), "constants of the graph, and no more"
    whole = b"".join(path.read_bytes() for path in exported.rglob("*") if path.is_file())
    assert b"secret" not in whole
    assert str(Path.cwd()).encode() not in whole, "no place on this machine"


def test_differences_speed_and_size_are_recorded(texts: Made, exported: Path) -> None:
    whole, small = read_exports(texts.record)
    assert [whole.name, small.name] == ["onnx", "onnx-int8"]
    assert whole.difference.rows == whole.difference.examples == 40
    assert whole.difference.largest < 1e-4
    assert small.difference.largest > whole.difference.largest, "its weights are rounded"
    for each in (whole, small):
        assert each.export.quality.keys() == {"accuracy", "nll"}
        assert each.export.request.count == 3
        assert 0 < each.export.library_bytes < each.export.peak_bytes < each.student.peak_bytes, "without torch"
        assert each.files["model.onnx"] == (exported / each.name / "model.onnx").stat().st_size == each.export.bytes
    assert json.loads((exported / "onnx" / "export.json").read_text())["folder"] == ""


def test_the_second_export_finds_the_first(texts: Made, exported: Path) -> None:
    (again,) = export_run(texts.home, texts.record, texts.ladder, [Export(format="onnx")], None, exported / "onnx")
    assert again.reused


def test_a_stored_export_is_judged_by_the_tolerance_of_today(texts: Made, exported: Path, tmp_path: Path) -> None:
    strict = Export(format="onnx-int8", max_kl=1e-12)
    (found,) = export_run(texts.home, texts.record, texts.ladder, [strict], None, tmp_path / "out")
    assert found.refused == f"a mean KL divergence of {found.difference.kl:.3g} nats, more than max_kl 1e-12"
    assert not (tmp_path / "out").exists()
    export_run(texts.home, texts.record, texts.ladder, [Export(format="onnx-int8")])  # for the other tests


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kl": 2e-6}, "a mean KL divergence of 2e-06 nats, more than max_kl 1e-06"),
        ({"agreement": 0.99}, "the same answer on 99.00 % of 40 rows, less than min_agreement 99.9 %"),
        ({"largest": float("inf")}, "a log-probability that differs by inf nats, more than max_difference 0.01"),
        ({"texts": 9, "other_ids": 2}, "other ids for 2 of 9 held-out texts"),
        ({"kl": float("nan")}, "a mean KL divergence of nan nats, more than max_kl 1e-06"),
    ],
)
def test_each_bound_refuses(changes: dict[str, float], words: str) -> None:
    inside = {"examples": 40, "rows": 40, "largest": 1e-5, "agreement": 1.0, "kl": 1e-9}
    assert outside(Export(format="onnx"), ExportDifference.model_validate(inside)) is None
    assert outside(Export(format="onnx"), ExportDifference.model_validate(inside | changes)) == words


def test_only_students_are_exported(texts: Made) -> None:
    assert chosen_stage(texts.home, texts.record, None)[0].name == "one"
    with pytest.raises(UserError, match=r"--stage: got 'teacher'; allowed: a finished stage of made: one\..*Only students are exported"):
        chosen_stage(texts.home, texts.record, "teacher")
    with pytest.raises(UserError, match="a run with a finished student"):
        chosen_stage(texts.home, run_record("new", model_record("teacher")), None)


def test_other_weights_formats_rows_and_packages_are_other_exports(texts: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert texts.record.data is not None
    data = texts.record.data

    def identity(**changes: object) -> str:
        return json.dumps(export_identity(Export.model_validate({"format": "onnx", **changes}), texts.student, data))

    assert len({identity(), identity(format="hf"), identity(examples=9)}) == 3
    assert identity(max_kl=0.5) == identity(), "a tolerance judges, and makes nothing"
    before = identity()
    monkeypatch.setattr("tasks.export.write.version", lambda package: "0")
    assert identity() != before
