"""Small runs for the tests of reports, and a parser that checks a page."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tasks.records.run import DataRecord, Retention, RunRecord, SampleRecord, StageRecord
from tasks.report.page import write_report
from tasks.report.plots.kept import keeping
from tests.factories import model_record, run_record

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
    return model_record(
        name,
        fingerprint=(f"{parameters:x}" * 20)[:64],
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
    return run_record(
        "20260301-140500-ab12",
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


def long_ladder(root: Path, number: int) -> RunRecord:
    """A finished ladder of so many students, each with a curve, a gate's reason, samples and slices."""
    made: list[StageRecord] = []
    for i in range(number + 1):
        nll, name = 1.4 + 0.01 * i, f"stage-{i:03}" if i else "teacher"
        more: dict[str, Any] = language_figures(nll, i) | {
            "samples": tuple(SampleRecord(prompt=f"def f{k}(", text="x" * 200) for k in range(2))
        }
        if i:
            more |= {"retention": Retention(parent=math.exp(-0.01), root=math.exp(-0.01 * i)), "teachers": (made[-1].name,)}
            more |= {"gate": "warned", "gate_reasons": (f"root retention is below {i} %",)}
        made.append(model(root, name, int(1e9 * 0.93**i), **more))
        write_curve(root / "store" / name, i, 800, 5.5, nll, student=bool(i))
    return run(root, teacher=made[0], stages=tuple(made[1:]), planned=tuple(stage.name for stage in made[1:]))


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
    """A page of a report, parsed: its words, tags, ids, labels and links."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.labels: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "aria-label":
                self.labels.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if tag == "a" and name == "href" and re.match(r"https?://|file:///|[a-z]+\.(yaml|json)$", value or ""):
                continue  # opened by a reader's click, fetched by nothing
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


def check(html: str) -> Page:
    """Parse a page, and check what holds for every page: closed tags, no script, nothing to fetch, a label for each picture."""
    parsed = Page()
    parsed.feed(html)
    parsed.close()
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert len(parsed.ids) == len(set(parsed.ids))
    assert [link for link in parsed.links if not link.startswith(("#", "data:"))] == []
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert re.findall(r"@import|url\((?!#)", html) == []
    assert len(parsed.labels) == parsed.tags.count("svg"), "a picture without words"
    return parsed


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the figures that several tests show; drawing them takes most of the time of a page."""
    return tmp_path_factory.mktemp("figures")


@pytest.fixture
def page(figures: Path) -> Callable[..., Page]:
    """Write a report, read it back and check it."""

    def read(record: RunRecord, settings: str = SETTINGS) -> Page:
        with keeping(figures):
            path = write_report(record, settings, Path(record.folder))
        assert path == Path(record.folder) / "report.html"
        assert [file.name for file in path.parent.iterdir()] == ["report.html"]
        return check(path.read_text(encoding="utf-8"))

    return read
