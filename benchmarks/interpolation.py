"""Is a size between two rungs to be had without training, by interpolating their weights? Chain-based distillation, arXiv:2605.07783.

    python -m benchmarks.interpolation [--seeds 3] [--pairs NAME ...]

A rung whose first weights were cut out of its teacher's has a place in the teacher for each of its own. It is written into the shape of a
size between: a width gets zeros for the channels, heads and units that the smaller one lacks (and its norms the scale for that), a depth
gets layers whose branches end in zeros. That is the smaller model, to the last digits, in the shape of the size between; and the teacher
is cut to the same shape, by the same importance. Between these two lie the weights `(1 - t) larger + t smaller`.

For each pair and seed: both rungs; the larger one pruned to the size between, and the weights at the best of `SHARES`, chosen on the
validation split in favour of interpolation; each at once, and after a few steps of the stage's own training from the larger rung. Figures
are of the test split. Models are kept in the store under LADDER_HOME. Prints Markdown.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from benchmarks.common import machine
from conf.home import home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.stage import Stage
from conf.schema.teacher import TrainedTeacher
from flows.serving.environment import prepare_environment
from models.architectures.checkpoint import load_model
from models.architectures.shapes import count
from models.base.statistics import interval
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus, SplitName
from models.data.held_out import evaluation_batches
from models.evaluation.evaluation import collect, quality
from models.signals.sources import live
from models.students.importance import Importance
from models.students.initialise import evenly_spaced
from models.students.pruning import LAYER, KeptIndices, _best, _head_dim, _indices, axes_of, choose, narrow, pruned_config, shorten
from models.training.loop import Plan, train
from tasks.data.prepare import prepare_data
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.initialise import IMPORTANCE
from tasks.training.student import train_student

NAME = "benchmark-interpolation"
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)  # t
BRANCH_END = re.compile(r"\.(o_proj|down_proj|fc2)\.(weight|bias)$")
STDLIB = (
    "data.sequence_length=64",
    "teacher.shape={hidden_size: 64, layers: 4, heads: 4, feed_forward: 176}",
    "defaults.student.initialisation=prune",
    "defaults.training={steps: 150, batch_size: 16, learning_rate: 4e-3, warmup: 0.1, precision: fp32, validate_every: 150}",
    "evaluation.examples=128",
)
# Pair -> ladder, overrides, name of its first stage, and the shape of the size between.
PAIRS: dict[str, tuple[str, tuple[str, ...], str, dict[str, int]]] = {
    "digits, depth 4 > 3 > 2": ("digits", (), "half", {"layers": 3}),
    "stdlib, width 64 > 48 > 32": (
        "python-stdlib",
        (*STDLIB, "stages.300k.student.shape={hidden_size: 32, layers: 4, heads: 2, feed_forward: 88}"),
        "300k",
        {"hidden_size": 48, "heads": 3, "feed_forward": 128},
    ),
    "stdlib, depth 4 > 3 > 2": (
        "python-stdlib",
        (*STDLIB, "stages.300k.student.shape={hidden_size: 64, layers: 2, heads: 4, feed_forward: 176}"),
        "300k",
        {"layers": 3},
    ),
}


class Ends(NamedTuple):
    """The larger rung cut to the size between, and the smaller one in the same shape."""

    pruned: nn.Module
    padded: nn.Module


def padded_width(small: nn.Module, shape: nn.Module, own: KeptIndices, wide: KeptIndices) -> nn.Module:
    """The small model in a wider shape; all that it lacks is 0."""
    model, state = copy.deepcopy(shape), small.state_dict()
    config = cast(Any, small).config
    scale = math.sqrt(len(own.hidden) / len(wide.hidden))
    padded = {}
    for name, target in model.state_dict().items():
        grown, tensor = torch.zeros_like(target), state[name]
        places = [torch.arange(size) for size in tensor.shape]
        for axis, meaning in enumerate(axes_of(name, config.model_type)[: tensor.ndim]):
            mine, theirs = (_indices(meaning, name, kept, _head_dim(config)) for kept in (own, wide))
            if mine is not None and theirs is not None and meaning != "ids":
                places[axis] = torch.searchsorted(theirs, mine)
                assert torch.equal(theirs[places[axis]], mine), "one choice by one importance is within the other"
        grown[torch.meshgrid(*places, indexing="ij")] = tensor * (scale if name.endswith("norm.weight") else 1.0)
        padded[name] = grown
    model.load_state_dict(padded)
    return model


def padded_depth(small: nn.Module, shape: nn.Module, own: Sequence[int], deep: Sequence[int]) -> nn.Module:
    """The small model with more layers, which add nothing: those of `shape`, with branches that end in zeros."""
    model, state = copy.deepcopy(shape), small.state_dict()
    padded = {}
    for name, target in model.state_dict().items():
        match = LAYER.match(name)
        if match is None:
            padded[name] = state[name]
        elif deep[int(match[2])] in own:
            padded[name] = state[f"{match[1]}.{own.index(deep[int(match[2])])}.{match[3]}"]
        else:
            padded[name] = torch.zeros_like(target) if BRANCH_END.search(name) else target
    model.load_state_dict(padded)
    return model


def ends(large: nn.Module, small: nn.Module, stage: Stage, between: dict[str, int], corpus: Corpus, folder: Path) -> Ends:
    """Both ends of the line for a size between two rungs."""
    assert stage.student.shape is not None
    workload, shape = corpus.interface.workload, stage.student.shape.model_copy(update=between)
    layers = cast(Any, large).config.num_hidden_layers
    if "layers" in between:
        if stage.student.initialisation == "layers":
            own, deep = evenly_spaced(layers, stage.student.shape.layers), evenly_spaced(layers, shape.layers)
        else:
            blocks = Importance.from_json((folder / IMPORTANCE).read_text(encoding="utf-8")).blocks
            own, deep = (_best(blocks, number).tolist() for number in (stage.student.shape.layers, shape.layers))
        pruned = shorten(large, deep, workload)
        return Ends(pruned, padded_depth(small, pruned, own, deep))
    importance = Importance.from_json((folder / IMPORTANCE).read_text(encoding="utf-8"))
    config = pruned_config(shape, cast(Any, large).config, corpus.interface)
    own, wide = (choose(importance, cast(Any, large).config, each) for each in (cast(Any, small).config, config))
    pruned = narrow(large, config, wide, importance, workload)
    return Ends(pruned, padded_width(small, pruned, own, wide))


def between(line: Ends, t: float) -> nn.Module:
    """The model at `t` between the ends, 0 for the larger."""
    model, first, second = copy.deepcopy(line.pruned), line.pruned.state_dict(), line.padded.state_dict()
    model.load_state_dict({name: torch.lerp(value.float(), second[name].float(), t) for name, value in first.items()})
    return model


def seed_figures(pair: str, seed: int, few: Sequence[int], context: Context) -> dict[str, float]:
    """Negative log-likelihood on the test split of every model of a pair, with one seed for data, rungs and training."""
    name, overrides, first, shape = PAIRS[pair]
    ladder, base = load(name, (*overrides, f"seed={seed}", "compute.at_once=null"))
    assert isinstance(ladder.teacher, TrainedTeacher)
    stage = next(each for each in ladder.stages if each.name == first)
    ladder = ladder.model_copy(update={"stages": (stage,)})
    context = context.model_copy(update={"ladder": ladder.name, "base": str(base)})
    data = prepare_data(ladder, context)
    inputs, corpus = StageInputs(ladder, data, context), data.corpus()
    root = prepare_teacher(inputs)
    rung = train_student(stage, [root], inputs)
    large, small = (load_model(Path(each.folder), ladder.workload) for each in (root, rung))
    line = ends(large, small, stage, shape, corpus, Path(rung.folder))
    judge = judged(ladder, corpus)
    found = {"larger rung": judge(large, "test"), "smaller rung": judge(small, "test"), "t = 1": judge(between(line, 1.0), "test")}
    assert abs(found["t = 1"] - found["smaller rung"]) < 1e-3, "the smaller rung in another shape"
    best = min(SHARES, key=lambda t: judge(between(line, t), "valid"))
    found["t"] = best
    for steps in few:
        for how, t in (("pruned", 0.0), ("interpolated", best), ("smaller rung, padded", 1.0)):
            found[f"{how}, {steps} steps"] = judge(trained(between(line, t), large, stage, steps, seed, corpus), "test")
    found["parameters"] = count(line.pruned, corpus.interface.sequence_length).parameters
    return found


def judged(ladder: Ladder, corpus: Corpus) -> Callable[[nn.Module, SplitName], float]:
    """Negative log-likelihood of a model on a split, in nats."""

    def judge(model: nn.Module, split: SplitName) -> float:
        batches = evaluation_batches(corpus, split, ladder.evaluation.examples, ladder.evaluation.batch_size)
        columns = collect(model.eval(), {}, batches, corpus.interface.output_ids, torch.device("cpu"), "fp32")
        return quality(columns, corpus, split).metrics["nll"]

    return judge


def trained(model: nn.Module, teacher: nn.Module, stage: Stage, steps: int, seed: int, corpus: Corpus) -> nn.Module:
    """The model after a few steps of a stage's training, with a schedule of that length and a fifth of its learning rate."""
    if steps:
        shorter = {"steps": steps, "learning_rate": stage.training.learning_rate / 5, "validate_every": steps, "patience": None}
        training = stage.training.model_copy(update=shorter)
        plan = Plan(training, stage.objective, seed, corpus.interface.output_ids)
        train(model, TrainingBatches(corpus, training.batch_size, seed), plan, signals=live(teacher, corpus.interface.output_ids))
    return model


def main() -> None:
    """Train the rungs that the store lacks, and print a table for each pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--few", type=int, nargs="*", default=[0, 20], help="steps of training, each from the beginning")
    parser.add_argument("--pairs", nargs="*", choices=PAIRS, default=list(PAIRS))
    asked = parser.parse_args()
    if asked.seeds < 2:
        parser.error("--seeds: an interval needs at least two")
    prepare_environment(home())
    context, began = Context(run=NAME, ladder=NAME, home=str(home().root), base="."), time.monotonic()
    for pair in asked.pairs:
        seeds = list[dict[str, float]]()
        for seed in range(asked.seeds):
            seeds.append(seed_figures(pair, seed, asked.few, context))
            print(f"seed {seed}: {seeds[-1]}", file=sys.stderr, flush=True)
        print(f"\n{pair}: {seeds[0]['parameters']:,.0f} parameters between; t = {', '.join(str(each['t']) for each in seeds)}\n")
        print("| model | nats, mean of seeds (95 %) |\n|---|---|")
        for name in seeds[0]:
            if name not in ("t", "t = 1", "parameters"):
                found = interval([each[name] for each in seeds])
                print(f"| {name} | {found.mean:.3f} ({found.low:.3f} to {found.high:.3f}) |", flush=True)
    print(f"\n{asked.seeds} seeds; {machine('cpu')}; {time.monotonic() - began:.0f} s, models found in the store not made again.")


if __name__ == "__main__":
    main()
