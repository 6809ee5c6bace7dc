"""Few labels, many unlabelled rows: a taught ladder against labels alone.

    python -m benchmarks.few_labels [KEY=VALUE ...] [--labels 50 100 200] [--seeds 5]

The digits, 30 % of them as test split. A root teacher is trained on every label of the training part, as an existing model of somebody else
stands for: nothing of the test split is in it. Then all labels but a few are hidden. Arms, with the same student at the end:

    staged          the ladder below, taught on labelled and unlabelled rows
    direct          the root teaches the last student at once, on the same rows, with the ladder's FLOPs
    labelled rows   the same without the unlabelled rows: as many rows, all labelled, of another draw
    labels alone    the last student from random weights on the labelled rows, with the ladder's FLOPs
    labels, short   the same with the steps of the last student alone: more steps on few labels need not be better

A seed draws the kept labels, the order of the data and the first weights, so an interval covers all three. Arms are paired by seed.
Everything is kept in the store under LADDER_HOME: a second call computes only what is missing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import machine
from conf.home import home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from flows.serving.environment import prepare_environment
from models.base.device import precision_of
from models.base.statistics import Interval, interval
from tasks.data.prepare import prepare_data
from tasks.evaluation.evaluate import evaluate_model
from tasks.planning.matching import with_stages
from tasks.proof.arms import scratch
from tasks.proof.prepare_arms import arms_of
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.logs import show_logs
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student

NAME = "benchmark-few-labels"
STAGED, DIRECT, TAUGHT, ALONE, SHORT = ARMS = ("staged", "direct", "labelled rows", "labels alone", "labels, short")
LADDER = """
name: few-labels
workload: image-classification
data: {source: digits, valid_fraction: 0.1, test_fraction: 0.3}
tracking: "off"
evaluation: {examples: 1000}
defaults:
  objective: {alpha: 0.7, temperature: 2.0, standardize: true}
  signals: {source: cached, kind: full}
  training: {steps: 300, batch_size: 64, learning_rate: 3e-3, warmup: 0.1, precision: fp32}
teacher:
  source: train
  shape: {family: vit, hidden_size: 48, layers: 4, heads: 4, feed_forward: 96}
  training: {steps: 600, batch_size: 64, learning_rate: 3e-3, warmup: 0.1, precision: fp32}
stages:
  - name: half
    student: {shape: {family: vit, hidden_size: 32, layers: 2, heads: 4, feed_forward: 64}}
  - name: quarter
    student: {shape: {family: vit, hidden_size: 24, layers: 2, heads: 4, feed_forward: 48}}
proof: {arms: [staged, direct-matched, scratch]}
"""


def climbed(ladder: Ladder, root: StageRecord, data: DataRecord, context: Context) -> float:
    """Accuracy on the test split of the last student of a ladder."""
    inputs, lineage = StageInputs(ladder, data, context), [root]
    for stage in ladder.stages:
        lineage.append(train_student(stage, lineage, inputs))
    return tested(lineage[-1], inputs)


def tested(model: StageRecord, inputs: StageInputs) -> float:
    """Accuracy on the test split."""
    return evaluate_model(model, [], inputs, precision_of(inputs.ladder, inputs.ladder.stages[0].training), "test").metrics["accuracy"]


def one_seed(ladder: Ladder, context: Context) -> dict[str, float]:
    """Accuracy of every arm with the labels, order and weights of one seed."""
    limits = {"max_train_documents": ladder.data.max_labels, "max_labels": None}
    labelled = ladder.model_copy(update={"data": ladder.data.model_copy(update=limits)})
    data, less = prepare_data(ladder, context), prepare_data(labelled, context)
    root = prepare_teacher(StageInputs(ladder, data, context))
    arms = arms_of(ladder, data, context)
    ladders = {STAGED: arms.ladders["staged"], DIRECT: arms.ladders["direct-matched"], ALONE: arms.ladders["scratch"]}
    short = scratch(arms.base)
    ladders[SHORT] = with_stages(short, short.stages[0])
    scores = {arm: climbed(each, root, data, context) for arm, each in ladders.items()}
    alone = arms.ladders["direct-matched"].model_copy(update={"data": labelled.data})
    return scores | {TAUGHT: climbed(alone, root, less, context)}


def points(found: Interval, signed: bool = False) -> str:
    """A mean and its interval in per cent."""
    form = "{:+.1f} ({:+.1f} to {:+.1f})" if signed else "{:.1f} ({:.1f} to {:.1f})"
    return form.format(*(100 * value for value in (found.mean, found.low, found.high)))


def row(labels: int, rows: int, results: Sequence[dict[str, float]], resolution: float) -> str:
    """One line of the table: each arm, and the ladder's gain over the better of both arms without teacher."""
    arms = [points(interval([result[arm] for result in results], resolution=resolution)) for arm in ARMS]
    best = max((ALONE, SHORT), key=lambda arm: sum(result[arm] for result in results))
    gains = [points(interval([r[arm] - r[best] for r in results], resolution=resolution), signed=True) for arm in (STAGED, DIRECT)]
    return f"| {labels} of {rows} | {' | '.join([*arms, *gains])} |"


def main() -> None:
    """Compute what the store does not hold, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100, 200], help="labels that are kept")
    parser.add_argument("--seeds", type=int, default=5, help="draws of labels, order and weights: 0, 1, ...")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change, such as defaults.training.steps=10")
    options = parser.parse_args()
    prepare_environment(home())
    show_logs()
    began, table = time.monotonic(), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "few-labels.yaml")
        file.write_text(LADDER, encoding="utf-8")
        whole, base = load(str(file), options.overrides)
        context = Context(run=NAME, ladder=NAME, home=str(home().root), base=str(base))
        everything = StageInputs(whole, prepare_data(whole, context), context)
        root = prepare_teacher(everything)
        reached, info = tested(root, everything), everything.data.corpus().info
        for labels in options.labels:
            results = []
            for seed in range(options.seeds):
                change = [
                    f"data.max_labels={labels}",
                    f"data.seed={seed}",
                    f"seed={seed}",
                    f"teacher={{source: checkpoint, path: {root.folder}}}",
                ]
                results.append(one_seed(load(str(file), [*options.overrides, *change]).ladder, context))
            table.append(row(labels, info.documents["train"], results, 1 / info.documents["test"]))
    print(f"\nAccuracy in per cent on {info.documents['test']} test digits, mean and 95 % interval over {options.seeds} seeds")
    print(f"{machine('cpu')}; root, trained on all {info.documents['train']} labels: {100 * reached:.1f} %\n")
    print(f"| labels | {' | '.join(ARMS)} | staged gains | direct gains |\n|{'---|' * (len(ARMS) + 3)}")
    print("\n".join(table))
    print(f"\nGains: over the better of both arms without teacher, paired by seed. {time.monotonic() - began:.0f} s in all.")


if __name__ == "__main__":
    main()
