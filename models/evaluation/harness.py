"""Run a task of EleutherAI's lm-eval on a language model."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from torch import nn

from models.base.task_figures import TaskFigures
from models.data import tokenizers

FIRST_OF = ("acc_norm", "acc", "exact_match", "f1", "mcc", "bits_per_byte", "byte_perplexity", "word_perplexity")  # to be the main figure
FEW_SHOT_SEED = 1234  # lm-eval's own


def run_task(
    model: nn.Module, tokenizer_folder: Path, task: str | Mapping[str, Any], *, batch_size: int, length: int, device: str, limit: int | None
) -> TaskFigures:
    """Judge a model by a task, in the precision of its weights.

    Args:
        model: A causal LM on `device`.
        tokenizer_folder: Of its tokenizer; its end id begins a text that has no context, as in training.
        task: Name of a task that lm-eval has, or the settings of one, its data as absolute paths.
        batch_size: Requests at once.
        length: Longest sequence; longer ones are cut on the left.
        device: `cpu` or `cuda`.
        limit: Judge at most so many examples, the first ones; None: all.
    """
    # An extra, which need not be there.
    from lm_eval.evaluator import evaluate  # pyright: ignore[reportMissingImports]
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]

    _confine_templates()
    tokenizer = tokenizers.load(tokenizer_folder)
    model.eval()
    with _quiet(), tempfile.TemporaryDirectory() as cache:
        own: Any = task if isinstance(task, str) else _cached_in(task, cache)
        language_model = cast(Any, HFLM)(
            pretrained=cast(Any, model),
            tokenizer=tokenizer,
            backend="causal",
            batch_size=batch_size,
            max_length=length,
            device=device,
            prefix_token_id=tokenizers.special_ids(tokenizer)[0],
        )
        # As lm-eval's `simple_evaluate`, without its programs for the commit and the machine, and the process's seeds.
        loaded = load_task(own)
        for each in loaded["tasks"].values():
            if each.get_config("num_fewshot") is None:
                each.set_config(key="num_fewshot", value=0)
            each.set_fewshot_seed(seed=FEW_SHOT_SEED)
        found = evaluate(lm=language_model, task_dict=loaded, limit=limit, bootstrap_iters=1000, log_samples=False, verbosity="ERROR")
    return figures_of(cast(Any, found), task if isinstance(task, str) else str(task["task"]))


def load_task(task: str | Mapping[str, Any]) -> Any:
    """A task and its data set, as lm-eval loads them."""
    return _manager(named=isinstance(task, str)).load([cast(Any, task)])


@cache
def _manager(named: bool) -> Any:
    """Loads tasks; to know their names, lm-eval reads some ten thousand files."""
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    return TaskManager(include_defaults=named)


def figures_of(found: Mapping[str, Any], name: str) -> TaskFigures:
    """The figures of a task, or of a group of tasks, among lm-eval's results."""
    raw = found["results"][name]
    metrics: dict[str, float] = {}
    errors: dict[str, float] = {}
    for key, value in raw.items():
        metric, _, choice = key.partition(",")
        if not choice or isinstance(value, bool | str) or not math.isfinite(value):
            continue
        into, metric = (errors, metric.removesuffix("_stderr")) if metric.endswith("_stderr") else (metrics, metric)
        into[metric if choice == "none" else f"{metric},{choice}"] = float(value)
    names = sorted(metrics, key=lambda each: FIRST_OF.index(base) if (base := each.partition(",")[0]) in FIRST_OF else len(FIRST_OF))
    if not names:
        raise ValueError(f"lm-eval gave no figure for {name}")
    higher = found.get("higher_is_better", {}).get(name, {}).get(names[0].partition(",")[0])
    counts = found.get("n-samples", {})
    members = [name] if name in counts else found.get("group_subtasks", {}).get(name, [])
    return TaskFigures(
        metrics, errors, names[0], higher is not False, sum(int(counts[each]["effective"]) for each in members if each in counts)
    )


def _confine_templates() -> None:
    """Have the templates of tasks rendered in Jinja's sandbox: lm-eval's own environment would let them reach Python."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils  # pyright: ignore[reportMissingImports]

    if not isinstance(utils.env, ImmutableSandboxedEnvironment):
        sandbox = ImmutableSandboxedEnvironment(loader=utils.env.loader, undefined=utils.env.undefined, keep_trailing_newline=True)
        sandbox.filters.update(utils.env.filters)
        utils.env = sandbox


def _cached_in(task: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The task with a cache of its own, so that nothing is left in the user's."""
    return {**task, "dataset_kwargs": {**(task.get("dataset_kwargs") or {}), "cache_dir": folder}}


@contextlib.contextmanager
def _quiet() -> Any:
    """Without lm-eval's log, its progress bars, and warnings of its imports."""
    log, level = logging.getLogger("lm_eval"), logging.getLogger("lm_eval").level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
