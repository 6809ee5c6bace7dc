"""Measurements of real models: kept by what they depend on, found again without torch, shown in a table, a report and MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from typer.testing import CliRunner

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from conf.loading.yaml_output import to_yaml
from conf.schema.ladder import Ladder
from conf.schema.stage.student import Shape
from flows.cli.app import app
from flows.cli.show.bench import bench_text
from models.architectures.checkpoint import save_model
from models.architectures.shapes import config_for
from models.base.device import hardware
from models.base.files import weights_sha256
from models.base.interface import Interface
from models.speed.latency import RequestTimes
from models.students.initialise import random_model
from tasks.bench.bench import KIND, bench_identity, bench_model, bench_run
from tasks.bench.measure import case_of, spread
from tasks.records.bench import RunBench
from tasks.records.run import RunRecord, StageRecord
from tasks.records.speeds import FILE, model_benches, read_bench
from tasks.report.page import render
from tasks.runtime.runs.run_registry import Context, save
from tasks.runtime.training_slots import training_slot
from tasks.store.cached import reuse_noted
from tasks.tracking.figures import metrics_of
from tests.factories import model_record, run_record

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
QUICK = ["bench.start=false", "bench.batch_sizes=[1,3]", "bench.repeats=3", "bench.warmup=1", "bench.prompt_tokens=6", "bench.new_tokens=4"]
SIZES = {"teacher": (16, 3), "one": (12, 2), "two": (8, 1)}  # width and layers
SILENT = {"after_stage": False}


class Ran(NamedTuple):
    """A home with a run of three untrained models."""

    home: Home
    record: RunRecord
    ladder: Ladder
    context: Context


def make_run(home: Home, workload: str, family: str, source: str, status: str = "done") -> Ran:
    ladder = load(source, QUICK).ladder
    interface = Interface(workload, 16, 40, 1, 0, 0 if workload == "causal-lm" else 3, (1, 8, 8))
    models = []
    for name, (width, layers) in SIZES.items():
        shape = Shape.model_validate({"family": family, "hidden_size": width, "layers": layers, "heads": 2, "feed_forward": width})
        network, folder = random_model(config_for(shape, interface), workload, 0), home.root / "models" / name
        save_model(network, folder, None)
        size = sum(p.numel() for p in network.parameters())
        measured = {"weights_sha256": weights_sha256(folder), "metrics": {"accuracy": 0.9, "nll": 1.0, "bits_per_byte": 2.0}}
        models.append(model_record(name, folder=str(folder), parameters=size, seconds=3600.0, **measured))
    place = {"source": source, "folder": str(home.runs / "made")}
    record = run_record("made", *models, ladder=ladder.name, workload=workload, status=status, **place)
    save(home, record)
    (home.runs / "made" / "ladder.yaml").write_text(to_yaml(ladder))
    return Ran(home, record, ladder, Context(run="made", ladder=ladder.name, home=str(home.root), base=str(home.root)))


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    hardware.cache_clear()  # each home remembers for itself what torch said
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(tmp_path: Path) -> Ran:
    return make_run(Home(tmp_path / "home"), "image-classification", "vit", "digits")


@pytest.fixture
def texts(tmp_path: Path) -> Ran:
    return make_run(Home(tmp_path / "home"), "causal-lm", "llama", "python-stdlib")


def without_starts(result: RunBench) -> list[str]:
    return [model.name for model in result.models if model.loading is None]


class TestAfterAStage:
    def test_it_is_measured_once(self, images: Ran) -> None:
        model = images.record.stages[0]
        first = bench_model(model, images.ladder, images.context)
        assert isinstance(first, StageRecord)
        assert first.bench is not None
        assert [case.batch_size for case in first.bench.cases] == [1, 3]
        assert first.bench.rounds == 3
        assert (first.bench.weights_sha256, first.bench.parameters) == (model.weights_sha256, model.parameters)
        assert first.bench.loading is None
        again = bench_model(model.model_copy(update={"name": "another"}), images.ladder, images.context)
        assert reuse_noted() is not None
        assert again.bench == first.bench.model_copy(update={"name": "another"})

    def test_it_can_be_off(self, images: Ran) -> None:
        ladder = images.ladder.model_copy(update={"bench": images.ladder.bench.model_copy(update=SILENT)})
        assert bench_model(images.record.stages[0], ladder, images.context) == images.record.stages[0]
        assert not (images.home.store / KIND).exists()

    def test_it_waits_for_no_training_of_another_run(self, images: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        model = images.record.stages[0]
        ladder = images.ladder.model_copy(update={"compute": images.ladder.compute.model_copy(update={"at_once": 1})})
        with training_slot(1, "another"):
            assert bench_model(model, ladder, images.context) == model
        assert not (images.home.store / KIND).exists(), "nothing is kept that was not measured"
        assert bench_model(model, ladder, images.context).bench is not None

    def test_a_request_that_does_not_fit_stops_no_run(self, texts: Ran, caplog: pytest.LogCaptureFixture) -> None:
        ladder = load("python-stdlib", [*QUICK, "bench.prompt_tokens=5000"]).ladder
        model = texts.record.stages[0]
        assert bench_model(model, ladder, texts.context) == model

    def test_finding_it_imports_no_torch(self, images: Ran) -> None:
        bench_model(images.record.stages[0], images.ladder, images.context)
        code = (
            "import sys; from conf.loading.load import load; from tasks.bench.bench import bench_model;"
            "from tasks.runtime.runs.run_registry import Context, load_run; from tasks.store.cached import reuse_noted;"
            "from conf.home import home; record = load_run(home());"
            f"bench_model(record.stages[0], load({str(Path(images.record.folder) / 'ladder.yaml')!r}).ladder,"
            f"Context.model_validate_json({images.context.model_dump_json()!r}));"
            "print('found' if reuse_noted() else 'measured', sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.split(maxsplit=1)[0] == "found"
        if (images.home.root / "hardware.json").exists():  # else there may be a GPU, which torch is asked about each time
            assert done.stdout.strip() == "found []"

    def test_mlflow_gets_the_figures(self, texts: Ran) -> None:
        measured = bench_model(texts.record.stages[0], texts.ladder, texts.context)
        assert isinstance(measured, StageRecord)
        figures = metrics_of(measured)
        names = {
            f"latency/batch_{size}/{part}_{name}_ms"
            for size in (1, 3)
            for part in ("whole", "prefill", "decode")
            for name in ("p50", "p99")
        }
        assert names <= set(figures)
        assert {"latency/batch_3/requests_per_second", "latency/batch_3/tokens_per_second", "latency/file_mib"} <= set(figures)
        assert measured.bench is not None
        assert figures["latency/batch_1/whole_p50_ms"] == pytest.approx(1000 * measured.bench.cases[0].whole.p50)


class TestOfARun:
    @pytest.mark.slow
    def test_all_models_in_turn_with_roofline_start_and_memory(self, texts: Ran) -> None:
        two = texts.record.model_copy(update={"stages": texts.record.stages[:1]})
        result = bench_run(two, load("python-stdlib", [*QUICK, "bench.start=true"]).ladder)
        assert [model.name for model in result.models] == ["teacher", "one"]
        assert without_starts(result) == []
        for model in result.models:
            assert model.beside == ("teacher", "one")
            assert (model.rounds, model.tokens, model.new_tokens) == (3, 6, 4)
            assert [limit.batch_size for limit in model.limits] == [1, 3]
            for case in model.cases:
                assert case.prefill is not None
                assert case.decode is not None
                assert (case.whole.count, case.prefill.count, case.decode.count) == (3, 3, 9)
                assert case.whole.p50 <= case.whole.p95 <= case.whole.p99
                assert case.whole.p50 > case.prefill.p50
            assert model.loading is not None
            assert model.loading.peak_bytes > model.loading.library_bytes > model.file_bytes
            assert model.machine.dtype == "fp32"
            assert model.bandwidth
            assert model.machine.flops
        assert read_bench(texts.record) == result
        assert model_benches(texts.record) == result.models

    def test_it_is_not_measured_twice_unless_asked(self, images: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
        known = bench_run(images.record, images.ladder)
        monkeypatch.setattr("tasks.bench.measure.measure_run", lambda *_: pytest.fail("measured again"))
        assert bench_run(images.record, images.ladder) == known
        for changed in (["bench.repeats=4"], ["bench.batch_sizes=[1]"], ["bench.dtype=bf16"], ["bench.threads=2"]):
            with pytest.raises(pytest.fail.Exception):
                bench_run(images.record, load("digits", [*QUICK, *changed]).ladder)
        with pytest.raises(pytest.fail.Exception):
            bench_run(images.record, images.ladder, fresh=True)

    def test_without_a_model(self, images: Ran) -> None:
        empty = images.record.model_copy(update={"teacher": None, "stages": ()})
        with pytest.raises(UserError, match="a run with a finished model"):
            bench_run(empty, images.ladder)

    def test_whose_models_were_cleaned_away(self, images: Ran) -> None:
        (Path(images.record.stages[1].folder) / "config.json").unlink()
        with pytest.raises(UserError, match="whose models are in the store; two is not"):
            bench_run(images.record, images.ladder)


def test_what_a_measurement_depends_on() -> None:
    def same(*overrides: str, workload: str = "digits", weights: str | list[str] = "w") -> bool:
        return bench_identity(load(workload, overrides).ladder, weights) == bench_identity(load(workload).ladder, "w")

    assert same()
    assert same("bench.after_stage=false", "bench.start=false", "bench.prompt_tokens=7", "bench.new_tokens=7")  # an image has its own size
    assert not same(weights="v")
    for change in ("batch_sizes=[2]", "repeats=7", "warmup=7", "threads=7", "dtype=bf16", "stage_seconds=7"):
        assert not same(f"bench.{change}")
    assert not same("bench.prompt_tokens=7", workload="python-stdlib")
    assert not same("bench.new_tokens=7", workload="python-stdlib")


def test_percentiles_and_throughput_by_hand() -> None:
    case = case_of(4, RequestTimes([1.0, 3.0], [0.5, 0.5], [0.1] * 99 + [1.1]))
    assert (case.whole.p50, case.whole.mean, case.requests_per_second) == (2.0, 2.0, 2.0)
    assert case.decode is not None
    assert (case.decode.p50, case.decode.p95, case.decode.count) == pytest.approx((0.1, 0.1, 100))
    assert case.decode.p99 == pytest.approx(0.11)
    assert case.tokens_per_second == pytest.approx(4 / 0.11)
    assert spread([]) is None


class TestCommands:
    def run(self, *words: str) -> Any:
        return CliRunner().invoke(app, list(words))

    def test_bench_and_economics_of_a_finished_run(self, images: Ran) -> None:
        shown = self.run("bench", "made", "repeats=2")
        assert shown.exit_code == 0, shown.output
        assert max(map(len, shown.output.splitlines())) <= 80
        for words in ("p50 ms", "A whole request, 3 at once", "own MiB", "a model a tenth the size is", "roofline"):
            assert words in " ".join(shown.output.split())
        measured = json.loads((Path(images.record.folder) / FILE).read_text())
        assert measured["models"][0]["rounds"] == 2
        money = self.run("economics", "price_per_hour=2", "economics.requests_per_day=5e6", "--json")
        assert money.exit_code == 0, money.output
        report = json.loads(money.output)
        assert report["main"]["costs"]["training"] == pytest.approx(2 * 2)  # two stages of an hour each, at 2 an hour
        best = [max(case["requests_per_second"] for case in model["cases"]) for model in measured["models"]]
        assert report["main"]["inputs"]["teacher_price"] == pytest.approx(1000 / best[0] / 3600 * 2)
        assert report["main"]["inputs"]["student_price"] == pytest.approx(1000 / best[-1] / 3600 * 2)
        text = self.run("economics", "made", "teacher_price=1", "student_price=2")
        assert "two never pays" in text.output
        assert max(map(len, text.output.splitlines())) <= 80

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["economics", "requests_per_day=0"], "economics.requests_per_day: got 0; allowed: a number in (0, 1e+15]"),
            (["economics", "price_per_hour=-1"], "economics.price_per_hour: got -1; allowed: a number in [0, 1e+15]"),
            (["economics", "gone"], "RUN: got 'gone'; allowed: a run of this home"),
            (["economics", "made", "other"], "RUN: got 'made other'; allowed: one run"),
            (["economics", "made"], "economics.teacher_price: got None"),
            (["bench", "batch_sizes=[0]"], "bench.batch_sizes: got [0]"),
            (["bench", "batch_sizes=[1,1]"], "bench.batch_sizes: got [1, 1]"),
            (["bench", "repeats=0"], "bench.repeats: got 0"),
            (["bench", "foo=0"], "bench.foo: unknown key"),
        ],
    )
    def test_bad_input_is_one_clear_message(self, images: Ran, words: list[str], said: str) -> None:
        failed = self.run(*words)
        assert isinstance(failed.exception, UserError)
        assert failed.exception.exit_code == 2
        assert said in str(failed.exception)

    def test_a_run_that_was_stopped_in_the_middle_has_what_it_finished(self, tmp_path: Path) -> None:
        ran = make_run(Home(tmp_path / "home"), "image-classification", "vit", "digits", status="interrupted")
        half = ran.record.model_copy(update={"stages": ran.record.stages[:1]})
        save(ran.home, half)
        assert self.run("economics", "teacher_price=1", "student_price=0.5", "--json").exit_code == 0
        save(ran.home, half.model_copy(update={"stages": ()}))
        failed = self.run("economics", "teacher_price=1", "student_price=0.5")
        assert "a run with a finished student" in str(failed.exception)


class TestReport:
    def test_speed_and_break_even_have_their_sections(self, images: Ran) -> None:
        ladder = load(
            "digits", [*QUICK, "economics.teacher_price=0.01", "economics.student_price=0", "economics.requests_per_day=1e7"]
        ).ladder
        (Path(images.record.folder) / "ladder.yaml").write_text(to_yaml(ladder))
        bench_run(images.record, images.ladder)
        page = render(images.record, to_yaml(ladder))
        for words in ("Latency and memory", "Speed-up against size for a whole request, 1 at once: one", "roofline leaves"):
            assert words in page
        for words in ("Break-even", "two pays back its 2.00 USD after 28.8 minutes", "Payback of two", "Net saving of a cycle"):
            assert words.replace("28.8", "29") in page
        for name in ("speed", "payback", "tornado"):
            assert page.count(f'id="{name}-wide-figure_1"') == page.count(f'id="{name}-narrow-figure_1"') == 1

    def test_what_nobody_stated_is_no_finding(self, images: Ran) -> None:
        bench_run(images.record, images.ladder)
        page = render(images.record, to_yaml(images.ladder))
        assert "Latency and memory" in page
        assert "Break-even" not in page

    def test_nothing_measured_nothing_shown(self, images: Ran) -> None:
        assert "Latency and memory" not in render(images.record, to_yaml(images.ladder))


def test_long_names_and_one_model_alone(texts: Ran) -> None:
    long = texts.record.teacher
    assert long is not None
    alone = texts.record.model_copy(
        update={"teacher": long.model_copy(update={"name": "a-name-as-long-as-names-may-be-" + "x" * 33}), "stages": ()}
    )
    text = bench_text(bench_run(alone, texts.ladder))
    assert max(map(len, text.splitlines())) <= 80
    assert "nothing is said about how speed goes with size" in " ".join(text.split())
