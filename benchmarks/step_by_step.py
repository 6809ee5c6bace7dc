"""Rationales beside labels: exact match of answers, at fractions of the labels.

    python -m benchmarks.step_by_step [--labels 100 200 400 800] [--seeds 5] [--steps 150] [--kept FILE]

The shape of Hsieh et al. 2023, "Distilling Step-by-Step" (arXiv:2305.02301), on data made here: a word of nine letters is good or bad. Each
of 52 letters has a hidden sign, and the majority of a word's signs is its answer. The rationale spells the signs, letter by letter: it says
which parts of a prompt matter and how, as a rationale in words does. A test shows the plain prompt, and the student answers at once.

Arms, the same student from the same first weights, on the same rows in the same order:

    labels            answers alone
    labels, longer    answers alone, with the FLOPs of the arm with rationales: twice the steps
    rationales        both tasks, objective.rationale 1, as many steps as `labels`

A seed draws the rows, their order and the first weights; arms are paired by seed. An answer is right if greedy decoding writes exactly it
and ends, which holds where each of its ids is the most probable one after the true ids before; a few are decoded to confirm it.
Figures go to `--kept` as they come, and a later call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from benchmarks.common import fresh_model, machine
from conf.schema.ladder import Ladder
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.architectures.shapes import count
from models.base.statistics import Interval, interval
from models.data import tokenizers
from models.data.batches import IGNORE, TrainingBatches
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches
from models.evaluation.evaluation import collect
from models.training.loop import Plan, train
from tasks.data.build import build_corpus
from tasks.records.format import operations

LETTERS = 9  # of a word
ROWS, LENGTH, BATCH = 3000, 32, 32
TEST = 0.2  # share of the rows that are judged
DECODED = 5  # answers that are decoded, too
SHAPE = Shape.model_validate({"hidden_size": 48, "layers": 2, "heads": 4, "feed_forward": 96})
LABELS, LONGER, RATIONALES = ARMS = ("labels", "labels, longer", "rationales")


def written_rows(folder: Path) -> None:
    """Write `rows.jsonl`: words with answer and rationale, the same whatever the seed of a training."""
    generator = random.Random(1)
    signs = {letter: generator.choice((-1, 1)) for letter in string.ascii_letters}
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(ROWS):
            word = [generator.choice(string.ascii_letters) for _ in range(LETTERS)]
            spelled = "".join("+" if signs[letter] > 0 else "-" for letter in word)
            answer = "good" if sum(signs[letter] for letter in word) > 0 else "bad"
            print(json.dumps({"prompt": f"{''.join(word)}?", "answer": answer, "signs": spelled}), file=file)


def corpus_with(labels: int, seed: int, folder: Path) -> Corpus:
    """The corpus of a fraction of the training rows; valid and test stay."""
    columns = {"prompt": "prompt", "completion": "answer", "rationale": "signs", "rationale_prompt": "{prompt}why:"}
    limits = {"test_fraction": TEST, "valid_fraction": 0.01, "max_train_documents": labels, "seed": seed}
    student = {"shape": SHAPE.model_dump(exclude_none=True)}
    ladder = Ladder.model_validate(
        {
            "name": "step-by-step",
            "data": {"source": "files", "paths": ["rows.jsonl"], "columns": columns, "sequence_length": LENGTH, **limits},
            "teacher": {"source": "train", **student, "training": {"steps": 1}},
            "stages": [{"name": "student", "student": student, "training": {"steps": 1}}],
        }
    )
    made = folder / f"{labels}-{seed}"
    made.mkdir()
    build_corpus(ladder, folder, None, made, lambda line: None)
    return Corpus(made, "benchmark")


def exact_match(model: nn.Module, corpus: Corpus) -> float:
    """Share of the test split's answers that greedy decoding of the plain prompt writes exactly."""
    documents = len(corpus.split("test"))
    batches = list(evaluation_batches(corpus, "test", documents, 256))
    figures = collect(model, {}, batches, corpus.info.vocabulary, torch.device("cpu"), "fp32")
    ends = np.cumsum(corpus.split("test").predicted)
    right = np.array([figures.correct[end - ids : end].all() for end, ids in zip(ends, corpus.split("test").predicted, strict=True)])
    _confirm(model, corpus, batches[0], right)
    return float(right.mean())


def _confirm(model: nn.Module, corpus: Corpus, batch: Any, right: np.ndarray) -> None:
    """Decode a few answers token by token."""
    assert corpus.tokenizer_folder is not None
    end_id, pad_id = tokenizers.special_ids(tokenizers.load(corpus.tokenizer_folder))
    for ids, targets, is_right in zip(batch.inputs["input_ids"][:DECODED], batch.targets[:DECODED], right[:DECODED], strict=True):
        answer = targets[targets != IGNORE].tolist()
        first = int((targets != IGNORE).int().argmax()) + 1
        written = cast(Any, model).generate(
            input_ids=ids[None, :first], max_new_tokens=len(answer), do_sample=False, eos_token_id=end_id, pad_token_id=pad_id
        )
        assert (written[0, first:].tolist() == answer) == bool(is_right), "decoding and the most probable ids disagree"


def one(labels: int, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Exact match, FLOPs and learned ids of every arm with one seed."""
    corpus, found = corpus_with(labels, seed, folder), dict[str, Any]()
    for arm in ARMS:
        own = steps * (2 if arm == LONGER else 1)
        model = fresh_model(SHAPE, corpus.interface, seed)
        training = Training.model_validate({"steps": own, "batch_size": BATCH, "learning_rate": 5e-3, "precision": "fp32"})
        batches = TrainingBatches(corpus, BATCH, seed, rationales=arm == RATIONALES)
        trained = train(model, batches, Plan(training, None, seed, corpus.info.vocabulary))
        examples = own * BATCH * (2 if arm == RATIONALES else 1)
        flops = 3 * count(model, LENGTH).forward_flops * examples
        found[arm] = {"match": exact_match(model, corpus), "flops": flops, "ids": trained.tokens, "seconds": trained.seconds}
    return found


def points(found: Interval, signed: bool = False) -> str:
    """A mean and its interval in per cent."""
    form = "{:+.1f} ({:+.1f} to {:+.1f})" if signed else "{:.1f} ({:.1f} to {:.1f})"
    return form.format(*(100 * value for value in (found.mean, found.low, found.high)))


def row(labels: int, results: Sequence[dict[str, Any]], resolution: float) -> str:
    """One line of the table: each arm, and what rationales gain over both arms of labels."""
    match = {arm: [result[arm]["match"] for result in results] for arm in ARMS}
    arms = [points(interval(match[arm], resolution=resolution)) for arm in ARMS]
    gains = [[own - other for own, other in zip(match[RATIONALES], match[arm], strict=True)] for arm in (LABELS, LONGER)]
    return f"| {labels} | {' | '.join([*arms, *(points(interval(gain, resolution=resolution), signed=True) for gain in gains)])} |"


def main() -> None:
    """Compute what is not kept, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 200, 400, 800], help="training rows")
    parser.add_argument("--seeds", type=int, default=5, help="draws of rows, order and weights: 0, 1, ...")
    parser.add_argument("--steps", type=int, default=150, help="steps of `labels` and `rationales`")
    parser.add_argument("--kept", type=Path, help="file of figures, read and added to; none: nothing is kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    kept: dict[str, Any] = json.loads(options.kept.read_text(encoding="utf-8")) if options.kept and options.kept.is_file() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written_rows(folder)
        for seed in range(options.seeds):
            for labels in options.labels:
                key = f"{labels} labels, {options.steps} steps, seed {seed}"
                if key in kept:
                    continue
                kept[key] = one(labels, seed, options.steps, folder)
                print(key, {arm: f"{100 * figures['match']:.1f} %" for arm, figures in kept[key].items()}, flush=True)
                if options.kept:
                    options.kept.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    every, seeds = f"{options.steps} steps, seed", range(options.seeds)
    table = {labels: [kept[f"{labels} labels, {every} {seed}"] for seed in seeds] for labels in options.labels}
    judged = f"on {TEST:.0%} of {ROWS:,} rows, mean and 95 % interval over {options.seeds} seeds"
    print(f"\nExact match in per cent {judged}; {machine('cpu')}\n")
    print(f"| labels | {' | '.join(ARMS)} | gain over labels | gain at equal FLOPs |\n|{'---|' * (len(ARMS) + 3)}")
    for labels, results in table.items():
        print(row(labels, results, 1 / (TEST * ROWS)))
    first = table[options.labels[0]][0]
    costs = [f"{arm}: {operations(f['flops'])}, {f['ids']:,} learned ids, {f['seconds']:.1f} s" for arm, f in first.items()]
    print(f"\nA training costs, {'; '.join(costs)}. {time.process_time() - began:.0f} s of one core in all.")


if __name__ == "__main__":
    main()
