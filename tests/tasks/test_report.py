import json
import math
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from conf.errors import StoreError
from tasks import plot, report
from tasks.records import DataRecord, Retention, RunRecord, SampleRecord, StageRecord

SETTINGS = "name: python-stdlib\ndescription: A scale model\nstages:\n- name: 300k\n"
PACKAGES = ("accelerate", "datasets", "mlflow", "numpy", "omegaconf", "prefect", "pydantic", "safetensors", "tokenizers", "torch")
ENVIRONMENT = {
    "python": "3.11.9",
    "packages": {**{name: f"{i + 1}.{i}.0" for i, name in enumerate(PACKAGES)}, "absent": None},
    "git_commit": "4f0c2d1e9b",
    "git_dirty": False,
    "machine": "a-machine",
    "processor": "A Processor 9000",
    "cores": 2,
    "memory_gib": 7.8,
    "gpus": [],
    "argv": ["run", "python-stdlib"],
}
MODULES = ("asyncio", "collections", "concurrent", "ctypes", "dbm", "email", "encodings", "ensurepip", "html", "http", "idlelib")
MODULES += ("importlib", "json", "logging", "multiprocessing", "os.py")


def write_curve(folder: Path, seed: int, steps: int, start: float, end: float, student: bool) -> None:
    """A curve that looks like a training's: noisy, falling, one value lost to an overflow."""
    noise = random.Random(seed)

    def at(step: int) -> float:
        return end + (start - end) * math.exp(-6 * step / steps)

    train = [
        {
            "step": i,
            "loss": (at(i) - (0.9 * end if student else 0)) * noise.uniform(0.93, 1.07),
            "ce": at(i),
            "kd": at(i) - end,
            "teacher_ce": None,
        }
        | {"learning_rate": 4e-3, "alpha": 0.9, "temperature": 1.0, "grad_norm": 0.8, "tokens_per_second": 21000.0}
        for i in range(1, steps + 1)
    ]
    train[3]["loss"] = math.nan
    valid = [{"step": i, "nll": at(i) * noise.uniform(0.99, 1.02)} for i in range(steps // 8, steps + 1, steps // 8)]
    folder.mkdir(parents=True)
    (folder / "curve.json").write_text(json.dumps({"train": train, "valid": valid}))


def model(root: Path, name: str, parameters: int, teachers: tuple[str, ...] = (), **more: Any) -> StageRecord:
    fields: dict[str, Any] = {
        "steps": 400,
        "tokens": 2_457_600,
        "flops": 6.1 * parameters * 2_457_600,
        "seconds": 121.3,
        "reused": False,
    } | more
    return StageRecord(
        name=name,
        fingerprint=(f"{parameters:x}" * 20)[:64],
        identity={},
        folder=str(root / "store" / name),
        weights_sha256=(f"{parameters * 7:x}" * 20)[:64],
        parameters=parameters,
        non_embedding=int(parameters * 0.9),
        flops_per_token=2.0 * parameters,
        teachers=teachers,
        teacher_fingerprints=tuple("feed0123456789abcdef" for _ in teachers),
        mlflow_run_id=f"mlflow-{name}",
        prefect_run_id=f"prefect-{name}",
        **fields,
    )


def language_figures(nll: float, seed: int) -> dict[str, Any]:
    noise = random.Random(seed)
    slices = {}
    for i, name in enumerate(MODULES):
        own = nll * (1 + 0.02 * i) + noise.uniform(0, 0.05)
        slices[name] = {"count": 400.0 if name == "dbm" else 3000.0 + 10 * i, "nll": own, "bits_per_byte": own / math.log(2)}
    return {"metrics": {"nll": nll, "bits_per_byte": nll / math.log(2), "perplexity": math.exp(nll), "accuracy": 0.5}, "slices": slices}


def run(root: Path, **more: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "ladder": "python-stdlib",
        "status": "done",
        "environment": ENVIRONMENT,
        "planned": ("300k", "100k", "30k"),
    } | more
    return RunRecord(
        run="20260301-140500-ab12",
        settings_hash="5e77" * 16,
        source="python-stdlib",
        overrides=("stages.100k.objective.alpha=0.8",),
        started="2026-03-01T14:05:00+00:00",
        finished="2026-03-01T14:12:31+00:00",
        seconds=451.2,
        pid=1,
        folder=str(root / "runs" / "20260301-140500-ab12"),
        data=DataRecord(fingerprint="d" * 64, folder=str(root / "store/data"), content_hash="c0ffee" * 10, reused=True, seconds=6.4),
        mlflow_uri=f"sqlite:///{root}/mlflow.db",
        mlflow_run_id="mlflow-parent",
        prefect_run_id="prefect-parent",
        prefect_url="http://127.0.0.1:4200/runs/flow-run/prefect-parent",
        **fields,
    )


@pytest.fixture
def language(tmp_path: Path) -> RunRecord:
    """A finished causal-lm ladder of four models: a reused root, a resumed stage, a warning gate."""
    sizes = [("teacher", 1_007_104, 1.402), ("300k", 357_120, 1.470), ("100k", 111_040, 1.618), ("30k", 32_064, 2.014)]
    made: list[StageRecord] = []
    for i, (name, parameters, nll) in enumerate(sizes):
        more: dict[str, Any] = language_figures(nll, i)
        if i:
            more["retention"] = Retention(parent=math.exp(sizes[i - 1][2] - nll), root=math.exp(sizes[0][2] - nll))
            more |= {"teachers": (sizes[i - 1][0],), "gate": "passed"}
        more |= {"reused": True, "reused_from": "20260228-090000-cd34", "seconds": 402.0, "steps": 800} if not i else {}
        more |= {"resumed_at": 120} if name == "100k" else {}
        more |= {"gate": "warned", "gate_reasons": ("root retention 54.2 % is below 60.0 %",)} if name == "30k" else {}
        made.append(model(tmp_path, name, parameters, **more))
        write_curve(tmp_path / "store" / name, i, 800 if not i else 400, 5.5, nll, student=bool(i))
    return run(tmp_path, teacher=made[0], stages=tuple(made[1:]))


@pytest.fixture
def digits(tmp_path: Path) -> RunRecord:
    """A classification ladder whose first student was refused, so that the second was not run."""

    def figures(accuracy: float, off: float) -> dict[str, Any]:
        slices = {str(i): {"count": 9.0 + 4 * i, "accuracy": min(1.0, accuracy + off * (i - 5)), "nll": 0.2} for i in range(10)}
        return {"metrics": {"accuracy": accuracy, "macro_f1": accuracy - 0.01, "nll": 0.2, "ece": 0.02}, "slices": slices}

    root = model(tmp_path, "teacher", 26_570, steps=0, seconds=0.0, tokens=0, flops=0.0, **figures(0.9694, 0.005))
    reason = "root retention 87.1 % is below the 95.0 % that stages.small.gate.min_root_retention asks"
    small = figures(0.8444, 0.03) | {"retention": Retention(parent=0.871, root=0.871), "gate": "stopped", "gate_reasons": (reason,)}
    write_curve(tmp_path / "store" / "small", 1, 160, 2.4, 0.5, student=True)
    student = model(tmp_path, "small", 6_922, ("teacher",), steps=160, seconds=4.24, **small)
    more = {"ladder": "digits", "workload": "image-classification", "status": "stopped"}
    more |= {"error": f"small: {reason}", "planned": ("small", "tiny")}
    return run(tmp_path, teacher=root, stages=(student,), **more)


class Page(HTMLParser):
    """What a browser would make of the report: its words, its tags, and whatever it would fetch."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.remove(tag) if tag in self.open and self.open[-1] != tag else self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture
def page() -> Callable[..., Page]:
    """Write a report, read it back, and hold it to what every report must be."""

    def read(record: RunRecord, settings: str = SETTINGS) -> Page:
        path = report.write_report(record, settings, Path(record.folder))
        assert path == Path(record.folder) / "report.html"
        assert [file.name for file in path.parent.iterdir()] == ["report.html"]
        html = path.read_text(encoding="utf-8")
        parsed = Page()
        parsed.feed(html)
        parsed.close()
        assert parsed.open == []
        assert "script" not in parsed.tags
        assert len(parsed.ids) == len(set(parsed.ids))
        assert [link for link in parsed.links if not link.startswith(("#", "data:"))] == []
        assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
        assert re.findall(r"@import|url\((?!#)", html) == []
        return parsed

    return read


def test_a_finished_language_run_shows_every_models_figures(language: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(language)
    assert language.teacher
    for record in (language.teacher, *language.stages):
        for figure in (
            f"{record.metrics['bits_per_byte']:.3f}",
            record.fingerprint[:12],
            record.weights_sha256,
            record.folder,
            f"{record.parameters:,}",
        ):
            assert figure in shown.text, (record.name, figure)
        assert f"mlflow-{record.name}" in shown.text
        assert f"prefect-{record.name}" in shown.text
    assert "The root teacher has 1.01M parameters and scores 2.023 bits per byte." in shown.text
    assert "100k keeps 86.2 % of 300k and 80.6 % of the root (perplexity ratio) with 9.1x fewer parameters; its gate passed." in shown.text
    assert "300k keeps 93.4 % of the root (perplexity ratio) with 2.8x fewer parameters; its gate passed." in shown.text
    assert "root retention 54.2 % is below 60.0 %" in shown.text
    assert "One seed, and no control arm was run" in shown.text
    assert "2026-03-01 14:05 UTC to 2026-03-01 14:12 UTC on A Processor 9000, 2 cores, 7.8 GiB" in shown.text
    assert "stages.100k.objective.alpha=0.8" in shown.text
    assert all(name in shown.text for name in PACKAGES)


def test_reused_and_resumed_models_say_so_and_their_cost_is_kept_apart(language: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(language)
    assert "reused from run 20260228-090000-cd34" in shown.text
    assert "resumed at step 120" in shown.text
    sums = report.costs(language)[-2:]
    assert [(line["model"], line["steps"], line["time"]) for line in sums] == [
        ("Sum computed in this run", "1,200", "6 min 4 s"),
        ("Sum reused", "800", "6 min 48 s"),
    ]
    assert sums[0]["FLOPs"] == report.operations(sum(stage.flops for stage in language.stages)) == "7.5 TFLOP"


def test_slices_are_ordered_by_what_is_kept_and_small_ones_flagged(language: RunRecord, page: Callable[..., Page]) -> None:
    rows = report.slice_rows(language)
    kept = [row.retention for row in rows]
    assert kept == sorted(kept, key=lambda value: value or 0.0)
    assert language.teacher
    first = rows[0]
    expected = math.exp(language.teacher.slices[first.name]["nll"] - language.stages[-1].slices[first.name]["nll"])
    assert first.retention == pytest.approx(expected)
    assert [row.name for row in rows if row.few] == ["dbm"]
    shown = page(language)
    assert f"All {len(MODULES)} slices" in shown.text
    assert f"Fewer than 1,000 tokens (marked few) in 1 of {len(MODULES)} slices" in shown.text


def test_a_stopped_classification_run_tells_why_and_what_was_not_run(digits: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(digits)
    for words in (
        "stopped",
        "Why it stopped",
        "small keeps 87.1 % of the root (accuracy ratio) with 3.8x fewer parameters; its gate refused it.",
        "The root teacher has 26.6k parameters and scores 96.9 % accuracy.",
        "tiny: not run, a gate stopped the run.",
        "root retention 87.1 % is below the 95.0 %",
        "84.4 %",
        "Not trained here, hence no curve: teacher.",
        "Fewer than 30 examples (marked few) in 6 of 10 slices",
        "270 held-out examples",
        "accuracy in % (higher is better)",
        "small, refused",
    ):
        assert words in shown.text, words
    assert "bits per byte" not in shown.text


def test_a_failed_run_with_nothing_finished_still_reports(tmp_path: Path, page: Callable[..., Page]) -> None:
    error = "data.paths: got 'x'; allowed: <files & globs>. Name one."
    shown = page(run(tmp_path, status="failed", error=error, environment={}))
    assert error in shown.text
    assert "teacher, 300k, 100k, 30k: not finished, the run failed." in shown.text
    assert "an unrecorded machine" in shown.text
    assert "svg" not in shown.tags


def test_a_running_run_reports_what_there_is(language: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(language.model_copy(update={"status": "running", "finished": None, "seconds": None, "stages": language.stages[:1]}))
    assert "300k keeps 93.4 %" in shown.text
    assert "100k, 30k: not finished yet." in shown.text
    assert shown.tags.count("svg") == 4


def test_what_the_models_write_is_shown_side_by_side(language: RunRecord, page: Callable[..., Page]) -> None:
    assert "What the models write" not in page(language).text
    assert language.teacher
    said = [SampleRecord(prompt="def f(", text="<b>x"), SampleRecord(prompt="import ", text="")]
    teacher = language.teacher.model_copy(update={"samples": tuple(said)})
    student = language.stages[0].model_copy(update={"samples": (said[0].model_copy(update={"text": "y):"}), said[1])})
    text = page(language.model_copy(update={"teacher": teacher, "stages": (student, *language.stages[1:])})).text
    section = text[text.index("What the models write") :]
    for part in ("def f(", "<b>x", "y):", "import ", "(nothing)"):
        assert part in section


def test_hostile_text_stays_text(language: RunRecord, page: Callable[..., Page]) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    slices = {evil: {"count": 5000.0, "nll": 1.0, "bits_per_byte": 1.4}}
    stage = language.stages[-1].model_copy(update={"name": evil[:60], "gate_reasons": (evil,), "slices": slices})
    changed = {"ladder": evil, "error": evil, "status": "failed", "stages": (*language.stages[:-1], stage), "environment": {evil: evil}}
    shown = page(language.model_copy(update=changed), f"name: x\ndescription: {evil}\n")
    assert "img" not in shown.tags
    assert shown.text.count(evil) >= 5
    assert evil in "".join(shown.words[shown.words.index("Every setting") :])


def test_a_password_in_an_address_is_left_out(language: RunRecord, page: Callable[..., Page]) -> None:
    shown = page(language.model_copy(update={"mlflow_uri": "postgresql://ladder:s3cr@t@db:5432/mlflow"}))
    assert "postgresql://db:5432/mlflow" in shown.text
    assert "s3cr" not in shown.text


def test_a_report_is_replaced_whole_or_not_at_all(language: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(language.folder)
    path = report.write_report(language.model_copy(update={"status": "running"}), SETTINGS, folder)
    before = path.read_text()
    assert report.write_report(language, SETTINGS, folder) == path
    after = path.read_text()
    assert before != after

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        report.write_report(language.model_copy(update={"status": "failed"}), SETTINGS, folder)
    assert path.read_text() == after
    assert [file.name for file in folder.iterdir()] == ["report.html"]


def test_a_damaged_curve_is_named_and_the_rest_is_drawn(language: RunRecord, page: Callable[..., Page]) -> None:
    (Path(language.stages[0].folder) / "curve.json").write_text('{"train": [')
    shown = page(language)
    assert "The curve's file is damaged: 300k." in shown.text
    assert shown.tags.count("svg") == 4


def test_a_model_has_one_colour_and_the_pictures_follow_the_theme(language: RunRecord) -> None:
    quality = plot.quality_svg(language)
    assert quality
    for i, name in enumerate(("teacher", "300k", "100k", "30k")):
        assert f">{name}</text>" in quality
        assert f"var(--model-{i}, {plot.MODELS[i]})" in quality
    curve = plot.read_curve(Path(language.stages[1].folder))
    assert curve
    curves = plot.curves_svg({"100k": curve}, ["teacher", "300k", "100k", "30k"], "narrow")
    assert curves
    assert "var(--model-2," in curves
    assert "var(--model-0," not in curves
    template = (report.TEMPLATES / "report.html.j2").read_text()
    for colour, variable in plot.VARIABLES.items():
        assert f"{variable}: {colour};" in template, "the light theme and the drawn colours have parted"
        assert template.count(f"{variable}: #") == 2, "a colour lacks its light or its dark form"


def test_the_png_is_a_picture(language: RunRecord) -> None:
    png = plot.quality_png(language)
    assert png
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == 1840
    assert plot.quality_png(language.model_copy(update={"teacher": None, "stages": ()})) is None


def test_smoothing_keeps_the_mean_and_the_ends_in_place(language: RunRecord) -> None:
    curve = plot.read_curve(Path(language.stages[0].folder))
    assert curve
    assert len(curve.train) == 399  # the lost value is left out
    drawn = plot.smooth(curve.train)
    assert len(drawn) == plot.POINTS
    assert (drawn[0, 0], drawn[-1, 0]) == (1, 400)
    assert drawn[:, 1].min() > curve.train[:, 1].min()
    constant = curve.train.copy()
    constant[:, 1] = 2.5
    assert plot.smooth(constant)[:, 1] == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (4.24, "4.2 s"), (42, "42 s"), (99.7, "1 min 40 s"), (7199, "119 min 59 s"), (18_720, "5 h 12 min")],
)
def test_durations_read_well(value: float, text: str) -> None:
    assert report.duration(value) == text
