"""A fault is planted in a teacher, and the audit has to find it: `python -m benchmarks.planted [seeds]`.

Digits in five slices, told apart by a mark below the digit. The teachers learn the slice `FAULTY` wrong: every label moved to the next
digit (`flipped`), or 0 to 4 called 8 (`biased`); the `clean` one learns it right. The students learn from right labels and a teacher, the
control from the labels alone. Each is audited as a stage of a ladder is. Small vision transformers, on one processor thread.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from conf.schema.data import DigitsData
from conf.schema.stage.objective import Objective
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data.batches import TrainingBatches
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.data.held_out import evaluation_batches, evaluation_documents
from models.evaluation.audit_rows import audit_rows
from models.evaluation.audit_slices import Group, SliceSettings, groups_of
from models.evaluation.bootstrap import Limits
from models.signals.sources import live
from models.training.loop import Plan, train
from tasks.data.reading.sources import read_source

SLICES, FAULTY, CLASSES, SIDE = 5, 2, 10, 10
FAULTS = ("flipped", "biased", "clean")
REMEDIES = ("correct-only", "correct")
TEACHER = Shape(family="vit", hidden_size=48, layers=2, heads=4, feed_forward=96, patch_size=5)
STUDENT = Shape(family="vit", hidden_size=24, layers=1, heads=3, feed_forward=48, patch_size=5)
HELD_OUT = 600


class Outcome(NamedTuple):
    """One student's audit: the flagged slices, and what it inherited in the faulty one, beyond the control's, as a share of rows."""

    flagged: tuple[str, ...]
    inherited: float
    wrong: float  # share of the faulty slice


def corpus_with(fault: str, folder: Path, seed: int) -> Corpus:
    """Digits with marks; the training labels of the faulty slice as `fault` has them. Held-out labels are right."""
    documents = read_source(DigitsData(source="digits"), "image-classification", Path()).documents
    generator = np.random.default_rng(seed)
    images = np.stack([document.image for document in documents if document.image is not None]).astype(np.float32, copy=False)
    labels = np.array([int(document.label or 0) for document in documents])
    order, slices = generator.permutation(len(images)), generator.integers(0, SLICES, len(images)).astype(np.int32)
    train_rows, held_out = order[HELD_OUT:], order[:HELD_OUT]
    parts = {"train": train_rows, "valid": held_out, "test": held_out}
    marked = _marked(images, slices)
    splits = {
        name: _split(marked[rows], _labels(labels[rows], slices[rows], fault if name == "train" else "clean"), slices[rows])
        for name, rows in parts.items()
    }
    names, slice_names = tuple(map(str, range(CLASSES))), tuple(f"mark {index}" for index in range(SLICES))
    sizes = {name: len(split) for name, split in splits.items()}
    info = CorpusInfo("image-classification", 1, None, None, None, names, slice_names, (1, SIDE, SIDE), sizes, sizes)
    folder.mkdir()
    write_corpus(folder, info, {name: splits[name] for name in SPLITS})
    return Corpus(folder, fault)


def _marked(images: NDArray[np.float32], slices: NDArray[np.int32]) -> NDArray[np.float32]:
    wide = np.zeros((len(images), 1, SIDE, SIDE), dtype=np.float32)
    wide[:, :, :8, 1:9] = images
    for index in range(SLICES):
        wide[slices == index, :, 8:, 2 * index : 2 * index + 2] = 1.0
    return wide


def _labels(labels: NDArray[np.int64], slices: NDArray[np.int32], fault: str) -> NDArray[np.int64]:
    wrong = {"flipped": (labels + 1) % CLASSES, "biased": np.where(labels < 5, 8, labels), "clean": labels}[fault]
    return np.where(slices == FAULTY, wrong, labels)


def _split(images: NDArray[np.float32], labels: NDArray[np.int64], slices: NDArray[np.int32]) -> Split:
    return Split(images, np.arange(len(images) + 1), labels, slices, np.zeros(len(images), dtype=np.int64))


def trained(shape: Shape, corpus: Corpus, seed: int, steps: int, teacher: nn.Module | None = None, **objective: Any) -> nn.Module:
    """A model of a shape, trained from labels, or by a teacher, too."""
    info = corpus.info
    interface = Interface(info.workload, 1, None, None, None, info.classes, info.image_shape)
    torch.manual_seed(seed)
    model = build(config_for(shape, interface), info.workload)
    training = Training(steps=steps, batch_size=64, learning_rate=5e-3, warmup=0.1, precision="fp32", validate_every=steps)
    asked = Objective.model_validate({"alpha": 0.8, "temperature": 2.0, **objective}) if teacher else None
    plan = Plan(training, asked, seed, None)
    train(model, TrainingBatches(corpus, 64, seed), plan, signals=live(teacher, None) if teacher else None)
    return model


def audited(models: dict[str, nn.Module], corpus: Corpus) -> list[Group]:
    """The audit of a student, as after a stage."""
    batches = evaluation_batches(corpus, "valid", HELD_OUT, HELD_OUT)
    rows = audit_rows(models, batches, evaluation_documents(corpus, "valid", HELD_OUT), None, torch.device("cpu"), "fp32")
    kinds = {"slice": (rows.slice, corpus.info.slice_names)}
    return groups_of(rows, kinds, SliceSettings(Limits(), 1000, 0.02, 0.05, errors=True))


def outcomes(
    seed: int, folder: Path, faults: Sequence[str] = FAULTS, remedies: Sequence[str] = REMEDIES, steps: int = 150
) -> dict[str, Outcome]:
    """Plant each fault and audit its students: `<fault>`, and for the flipped one `flipped, <remedy>`."""
    right = corpus_with("clean", folder / "right", seed)
    control = trained(STUDENT, right, seed, steps)
    found: dict[str, Outcome] = {}
    for fault in faults:
        teacher = trained(TEACHER, corpus_with(fault, folder / fault, seed), seed + 1000, 2 * steps)
        for remedy in ("none", *(remedies if fault == "flipped" else ())):
            student = trained(STUDENT, right, seed, steps, teacher, wrong_teacher=remedy)
            groups = audited({"student": student, "parent": teacher, "control": control}, right)
            figures = groups[FAULTY].figures
            flagged = tuple(group.name for group in groups if group.flags)
            inherited, wrong = figures["parent.inherited"].value, figures["student"].value
            assert inherited is not None
            assert wrong is not None
            found[fault if remedy == "none" else f"{fault}, {remedy}"] = Outcome(flagged, inherited, wrong)
    return found


def main() -> None:
    """Print, for so many seeds, how often the audit flags the faulty slice alone, others, and nothing, and what is inherited there."""
    torch.set_num_threads(1)
    seeds = int(next((word for word in sys.argv[1:] if word.isdecimal()), 20))
    runs: list[dict[str, Outcome]] = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(outcomes(seed, Path(folder)))
            print(
                f"seed {seed}: {', '.join(f'{name}: {each.flagged or None}' for name, each in runs[-1].items())}",
                file=sys.stderr,
                flush=True,
            )
    print("| teacher | faulty slice alone | other slices, too | nothing | inherited errors there | wrong there |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in runs[0]:
        mine = [run[name] for run in runs]
        alone = sum(each.flagged == (f"mark {FAULTY}",) for each in mine)
        none = sum(not each.flagged for each in mine)
        shares = " | ".join(f"{100 * np.mean([getattr(each, key) for each in mine]):.1f} %" for key in ("inherited", "wrong"))
        print(f"| {name} | {alone} | {seeds - alone - none} | {none} | {shares} |")


if __name__ == "__main__":
    main()
