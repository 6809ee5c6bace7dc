"""Find or compute a model's figures in tasks of lm-eval (`evaluation.tasks`).

A task is a name that lm-eval has, or YAML files of one's own. These are plain settings: a task that names code is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import TypeAdapter

from conf.errors import LadderError, UserError, foreign_errors
from conf.loading.path_policy import check_read
from conf.loading.yaml_text import read_yaml_text
from conf.schema.ladder import Ladder
from models.base.files import file_sha256
from models.base.numerics import NUMERICS
from models.base.task_figures import TaskFigures
from tasks.records.audit import AuditFigure
from tasks.records.format import percent
from tasks.records.run import StageRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.fingerprint import fingerprint

KEY = "evaluation.tasks"
METRICS = (
    "acc",
    "acc_all",
    "acc_bytes",
    "acc_mutual_info",
    "acc_norm",
    "bits_per_byte",
    "bleu",
    "brier_score",
    "bypass",
    "byte_perplexity",
    "chrf",
    "chrf++",
    "exact_match",
    "f1",
    "likelihood",
    "mcc",
    "perplexity",
    "ter",
    "word_perplexity",
)
LOADERS = ("json", "csv", "parquet", "text")  # of `datasets`, for local files
SHARES = ("acc", "acc_norm", "exact_match", "f1")
NORMAL = 1.959964  # standard errors on each side of a 95 % interval


class HarnessTask(NamedTuple):
    """A task: its name, and its settings and the hash of its files where they are local."""

    name: str
    settings: dict[str, Any] | None = None
    sha256: str | None = None


def harness_version() -> str:
    """Version of the installed lm-eval.

    Raises:
        UserError: It is not installed.
    """
    try:
        return version("lm-eval")
    except PackageNotFoundError:
        remedy = "Run `pip install '.[lm-eval]'` in the clone, or leave evaluation.tasks out."
        raise UserError.about(KEY, "a list of tasks", "with lm-eval installed, which it is not", remedy) from None


def read_tasks(asked: Sequence[str], base: Path) -> list[HarnessTask]:
    """The tasks that the settings ask for; of a folder all in its `.yaml` files.

    Args:
        asked: Names, and paths: those with a slash, or that end in `.yaml`.
        base: Folder that relative paths count from.

    Raises:
        UserError: A path is not there or holds no task, a file is no plain YAML of a task, data are missing, or a name comes twice.
    """
    tasks: list[HarnessTask] = []
    for place, each in enumerate(asked):
        key = f"{KEY}[{place}]"
        if not _is_path(each):
            tasks.append(HarnessTask(each))
            continue
        path = base / os.path.expanduser(each)
        files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path] if path.is_file() else []
        if not files:
            raise UserError.about(
                key, each, "a YAML file of a task, a folder of such files, or the name of a task of lm-eval", "Correct it."
            )
        tasks += [_read(file, key) for file in files]
    names = [task.name for task in tasks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError.about(KEY, ", ".join(twice), "tasks of different names", "Rename or remove one.")
    return tasks


def _is_path(asked: str) -> bool:
    return "/" in asked or asked.endswith((".yaml", ".yml"))


def _read(file: Path, key: str) -> HarnessTask:
    remedy = "Ladder runs no code of a task: write it with doc_to_text and its like, without !function and include."
    text = read_yaml_text(file, key, remedy)
    with foreign_errors(key, str(file), "plain YAML", remedy, "PyYAML"):
        settings = yaml.safe_load(text)
    if not isinstance(settings, dict) or not isinstance(settings.get("task"), str) or "include" in settings:
        raise UserError.about(key, str(file), "the settings of one task, with `task: NAME`", remedy)
    for name, value, allowed in _code(settings):
        raise UserError.about(key, f"{file} with {name}: {value}", allowed, "Ladder runs no code that a task names.")
    kwargs = dict(settings.get("dataset_kwargs") or {})
    data: list[Path] = []
    if "data_files" in kwargs:
        kwargs["data_files"] = _absolute(kwargs["data_files"], file.parent, data)
    for path in data:
        check_read(path, key)
    missing = [str(path) for path in data if not path.is_file()]
    if missing:
        raise UserError.about(
            key, ", ".join(missing), "data files that are there; relative ones count from the task's YAML file", "Correct it."
        )
    hashes = [file_sha256(path) for path in data]
    parts = {"settings": {**settings, "dataset_kwargs": {k: v for k, v in kwargs.items() if k != "data_files"}}, "data": hashes}
    return HarnessTask(settings["task"], {**settings, "dataset_kwargs": kwargs}, fingerprint(parts))


def _code(settings: dict[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Each setting through which lm-eval or `datasets` would run code, or read what the task does not name: with what is allowed.

    A metric that lm-eval does not have is loaded as a module, from the working directory too.
    """
    metrics = settings.get("metric_list") or []
    for each in metrics if isinstance(metrics, list) else [metrics]:
        metric = each.get("metric") if isinstance(each, dict) else each
        if metric not in METRICS:
            yield "metric", metric, f"metrics of lm-eval: {', '.join(METRICS)}"
        elif isinstance(each, dict) and each.get("hf_evaluate"):
            yield "hf_evaluate", each["hf_evaluate"], "false"
    kwargs, path = settings.get("dataset_kwargs") or {}, str(settings.get("dataset_path", LOADERS[0]))
    for name in kwargs if isinstance(kwargs, dict) else ():
        if name not in ("data_files", "field", "delimiter", "encoding"):
            yield "dataset_kwargs", name, "data_files, field, delimiter, encoding"
    if path not in LOADERS and not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", path):
        yield "dataset_path", path, f"{', '.join(LOADERS)} with data_files, or the id owner/name of a dataset on the hub"
    if "dataset_path" in settings and path in LOADERS and not (isinstance(kwargs, dict) and kwargs.get("data_files")):
        yield "dataset_path", path, "data_files in dataset_kwargs beside it"


def _absolute(files: Any, folder: Path, found: list[Path]) -> Any:
    """The paths of data files, from the folder of the task; each is added to `found`."""
    if isinstance(files, dict):
        return {split: _absolute(each, folder, found) for split, each in files.items()}
    if isinstance(files, list):
        return [_absolute(each, folder, found) for each in files]
    found.append(folder / str(files))
    return str(found[-1])


def check_tasks(ladder: Ladder, base: Path) -> list[HarnessTask]:
    """The tasks that a ladder asks for.

    Raises:
        UserError: lm-eval is not installed, or a task cannot be read.
    """
    if ladder.evaluation.tasks:
        harness_version()
    return read_tasks(ladder.evaluation.tasks, base)


def look_up_tasks(ladder: Ladder) -> None:
    """Load the tasks that are asked for by name, with their data sets, before anything is computed.

    Raises:
        UserError: lm-eval has no task of that name, or its data set cannot be had.
    """
    for place, name in enumerate(ladder.evaluation.tasks):
        if not _is_path(name):
            _look_up(name, f"{KEY}[{place}]")


@cache
def _look_up(name: str, key: str) -> None:
    from models.evaluation.harness import load_task

    log.info("evaluation: looking up %s in lm-eval", name)
    with _explained(name, key), redirect_stderr(StringIO()):
        load_task(name)


@contextmanager
def _explained(name: str, key: str) -> Iterator[None]:
    """Turn what lm-eval and its libraries raise about a task into one message."""
    try:
        yield
    except (LadderError, RuntimeError):  # ours, and torch's
        raise
    except Exception as error:  # of templates, data sets and settings: its libraries have no common class
        said = " ".join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, KeyError) and "not a registered" in said:
            remedy = "Correct it: `lm-eval ls tasks` lists them."
            raise UserError.about(key, name, "a task of lm-eval, or the path of a YAML file with a slash", remedy) from error
        if isinstance(error, OSError):
            remedy = f"Fetch it with HF_HUB_OFFLINE=0, or leave the task out (datasets says: {said})."
            raise UserError.about(key, name, "a task whose data set is on this machine or can be fetched", remedy) from error
        raise UserError.about(
            key, name, "a task that lm-eval can run here", f"Correct it, or leave it out (lm-eval says: {said})."
        ) from error


def task_identity(record: StageRecord, task: HarnessTask, inputs: StageInputs) -> dict[str, Any]:
    """Identity of a model's figures in a task: weights, the task's files or name, lm-eval's version, the examples."""
    return {
        "kind": "task",
        "numerics": NUMERICS,
        "weights": record.weights_sha256,
        "task": task.sha256 or task.name,
        "lm-eval": harness_version(),
        "length": inputs.data.corpus().info.sequence_length,
        "examples": inputs.ladder.evaluation.task_examples,
    }


def judge_by_tasks(record: StageRecord, inputs: StageInputs) -> dict[str, TaskFigures]:
    """The figures of a model in every task that the settings ask for, found in the store or computed.

    Raises:
        UserError: lm-eval is not installed, or a task cannot be read.
    """
    ladder, context, found = inputs.ladder, inputs.context, {}
    for task in check_tasks(ladder, Path(context.base)):

        def compute(task: HarnessTask = task) -> Write:
            from tasks.evaluation.evaluator import measure_task  # torch is imported where something is computed

            with _explained(task.name, KEY):
                figures = measure_task(record, task.settings or task.name, inputs)
            return lambda folder: (folder / "task.json").write_text(json.dumps(asdict(figures)), encoding="utf-8")

        entry = Entry("task", record.name, task_identity(record, task, inputs), _read_figures)
        stored = find_or_compute(store_of(context), entry, context.made, compute, fresh=context.is_fresh(record.name))
        found[task.name] = _read_figures(stored.folder)
        log.info("%s in %s: %s %s", record.name, task.name, found[task.name].main, shown(found[task.name]))
    return found


def _read_figures(folder: Path) -> TaskFigures:
    return TypeAdapter(TaskFigures).validate_json((folder / "task.json").read_bytes())


def shown(task: TaskFigures, value: float | None = None) -> str:
    """The main figure, or another one in its unit, for readers: shares in per cent."""
    value = task.metrics[task.main] if value is None else value
    return percent(value) if task.main.partition(",")[0] in SHARES else f"{value:.3f}"


def task_drops(record: StageRecord, teacher: StageRecord) -> dict[str, AuditFigure]:
    """By how much a student's main figure is worse than its teacher's in each task, with the interval of both standard errors.

    Both are judged on the same examples, so the interval is wider than that of a paired difference.
    """
    found = {}
    for name, own in record.tasks.items():
        theirs = teacher.tasks.get(name)
        if theirs is None or own.main not in theirs.metrics:
            continue
        drop = (theirs.metrics[own.main] - own.metrics[own.main]) * (1 if own.higher else -1)
        errors = [each.errors.get(own.main) for each in (own, theirs)]
        width = None if None in errors else NORMAL * sum(error**2 for error in errors if error is not None) ** 0.5
        ends = {} if width is None else {"low": drop - width, "high": drop + width}
        found[name] = AuditFigure(value=drop, rows=own.examples, documents=own.examples, **ends)
    return found
