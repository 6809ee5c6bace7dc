"""Teacher and student of different architectures: a few steps, a reload.

    python -m benchmarks.pairs

For each pair of configurations: parameters, the loss at the first and at the last of a few steps of distillation on one batch, with a
live teacher, whether the saved student gives the same answers in plain transformers, and what the student's architecture cannot have. All
offline, with random teachers and a synthetic corpus: a loss says that the student learns from this teacher, not how well it would.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from benchmarks.architectures import GROUPED, IMAGES, SENTENCES, SIZES, TEXT, synthetic
from benchmarks.common import machine
from conf.errors import UserError
from conf.schema.stage.objective import Objective
from conf.schema.stage.student import Student
from conf.schema.stage.training import Training
from models.architectures.checkpoint import load_model, save_model
from models.architectures.configs import build_from, fitted_config
from models.architectures.packing import check_packing
from models.architectures.shapes import AUTO_CLASSES
from models.base.interface import Interface
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches
from models.signals.sources import live, split_head
from models.students.initialise import make_student
from models.training.loop import Plan, Step, train
from models.training.step import check_batch_statistics

LANGUAGE = replace(TEXT, sequence_length=32)
EMBEDDINGS = Interface("embedding", 64, vocabulary=1000, end_id=0, pad_id=1)
SPREAD = 0.15  # standard deviation of a teacher's weights: with the usual one its answers would be all but even
STEPS, BATCH = 8, 8
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
FEW = {**SMALL, "num_key_value_heads": 2, "head_dim": 16}
MAMBA = {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "conv_kernel": 4}
DISTIL = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}
STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "patch_size": 2}
RESNET = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}


class Pair(NamedTuple):
    """A teacher and a student, each with the settings of its `config.json`."""

    teacher: str
    above: dict[str, Any]
    student: str
    below: dict[str, Any]
    interface: Interface
    kind: str = "forward-kl"

    @property
    def name(self) -> str:
        """In words, with the objective where it is not the usual one."""
        return f"{self.teacher} -> {self.student}" + ("" if self.kind == "forward-kl" else f", {self.kind}")


PAIRS: list[Pair] = [
    *(
        Pair("llama", GROUPED, student, settings, LANGUAGE)
        for student, settings in (
            ("qwen2", {**SMALL, "num_key_value_heads": 2}),
            ("qwen3", FEW),
            ("mistral", FEW),
            ("gemma2", FEW),
            ("gpt_neox", SMALL),
            ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4}),
            ("mamba", MAMBA),
        )
    ),
    Pair("mamba", {**MAMBA, "hidden_size": 128}, "llama", FEW, LANGUAGE),
    *(
        Pair("bert", SIZES, student, settings, interface, kind)
        for interface, kind in ((SENTENCES, "forward-kl"), (EMBEDDINGS, "cosine"), (EMBEDDINGS, "similarity-kl"))
        for student, settings in (("distilbert", DISTIL), ("modernbert", SMALL))
    ),
    Pair("bert", SIZES, "qwen3", FEW, SENTENCES),
    Pair("bert", SIZES, "llama", FEW, EMBEDDINGS, "mse"),
    Pair("vit", {**SIZES, "patch_size": 4}, "convnext", STAGES, IMAGES),
    Pair("vit", {**SIZES, "patch_size": 4}, "resnet", RESNET, IMAGES),
    Pair("convnext", {**STAGES, "hidden_sizes": [32, 64]}, "vit", {**SMALL, "patch_size": 4}, IMAGES),
]


class OneBatch(TrainingBatches):
    """The same examples at every step, on which the loss of a pair that learns falls."""

    def at(self, step: int) -> Batch:
        """That of the first step."""
        return super().at(0)


class PairResult(NamedTuple):
    """A line of the table.

    Attributes:
        name: Of the pair.
        workload: Its task.
        teacher: Parameters.
        student: Parameters.
        first: Loss of the first step.
        last: Loss of the last one.
        difference: Largest difference of the saved student's answers, loaded by plain transformers, from those in memory.
        refused: What the student's architecture cannot have, each with the first words of the message.
    """

    name: str
    workload: str
    teacher: int
    student: int
    first: float
    last: float
    difference: float
    refused: tuple[str, ...]


def tried(pair: Pair, corpus: Corpus, folder: Path) -> PairResult:
    """Distil a pair for a few steps, save the student, and load it again."""
    interface = pair.interface
    config = fitted_config({"model_type": pair.teacher, **pair.above}, interface, "teacher")
    config.initializer_range = SPREAD
    torch.manual_seed(0)
    teacher = build_from(config, interface.workload, "teacher").eval()
    settings = Student(config={"model_type": pair.student, **pair.below})
    student = make_student(settings, teacher, interface, 1, "student").model
    steps: list[Step] = []
    plan = Plan(
        Training(steps=STEPS, batch_size=BATCH, learning_rate=3e-3, precision="fp32"),
        Objective.model_validate({"kind": pair.kind, "alpha": 1.0, "temperature": 0.1 if pair.kind == "similarity-kl" else 1.0}),
        0,
        interface.output_ids,
    )
    train(student, OneBatch(corpus, BATCH, 0), plan, signals=live(teacher, interface.output_ids), on_step=steps.append)
    save_model(student, folder, None)
    batch = next(iter(evaluation_batches(corpus, "valid", BATCH, BATCH)))
    with torch.no_grad():
        own, other = (each.eval()(**batch.inputs).logits for each in (cast(Any, student), reloaded(folder, interface.workload)))
    return PairResult(
        pair.name,
        interface.workload,
        parameters(teacher),
        parameters(student),
        steps[0].loss,
        steps[-1].loss,
        float((own - other).abs().max()),
        tuple(limits(student, interface)),
    )


def reloaded(folder: Path, workload: str) -> Any:
    """The saved student in plain transformers; a sentence encoder's pooling is ours."""
    import transformers

    if workload == "embedding":
        return load_model(folder, workload)
    return getattr(transformers, AUTO_CLASSES[workload]).from_pretrained(folder, dtype=torch.float32)


def parameters(model: nn.Module) -> int:
    """Parameters, a tied matrix once."""
    return sum(parameter.numel() for parameter in model.parameters())


def limits(student: nn.Module, interface: Interface) -> list[str]:
    """Unsupported features of a student: micro-batches, parted documents, a head that is split off."""
    asked: dict[str, Callable[[], object]] = {
        "accumulation": lambda: check_batch_statistics(student, Training(steps=1, batch_size=2, accumulation=2)),
    }
    if interface.workload == "causal-lm":
        asked["parted documents"] = lambda: check_packing(student)
    found = []
    for name, ask in asked.items():
        try:
            ask()
        except UserError:
            found.append(name)
    if interface.workload == "causal-lm" and split_head(student) is None:
        found.append("chunked logits")
    return found


def main() -> None:
    """Print the table."""
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    print(f"{machine('cpu')}, transformers {transformers.__version__}\n")
    columns = ("pair", "workload", "teacher", "student", "first loss", f"after {STEPS} steps", "answers after reload", "cannot have")
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---:|---:|---:|---:|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        place, corpora = Path(folder), dict[str, Corpus]()
        for number, pair in enumerate(PAIRS):
            workload = pair.interface.workload
            if workload not in corpora:
                corpora[workload] = synthetic(place / workload, pair.interface)
            found = tried(pair, corpora[workload], place / str(number))
            same = "equal" if found.difference == 0 else f"differ by {found.difference:.0e}"
            figures = f"{found.teacher:,} | {found.student:,} | {found.first:.3f} | {found.last:.3f}"
            print(f"| {found.name} | {found.workload} | {figures} | {same} | {', '.join(found.refused) or '-'} |", flush=True)


if __name__ == "__main__":
    main()
