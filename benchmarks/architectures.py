"""Students of any architecture: size, operations, a training step, a reload.

    python -m benchmarks.architectures

For each configuration: parameters, operations by formula (where one is known) and by PyTorch's counter, seconds of a training step from
labels, whether the head is split off, the largest difference of a weight after a step in two micro-batches, and whether the saved folder
loads bit-equal. All offline, from configurations alone, with a synthetic corpus.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from benchmarks.common import machine
from conf.errors import UserError
from conf.schema.stage.training import Training
from models.architectures.checkpoint import load_model, save_model
from models.architectures.configs import build_from, fitted_config
from models.architectures.operations import WITH_FORMULA, by_counter, by_formula
from models.architectures.shapes import count
from models.base.interface import Interface
from models.data.batches import TrainingBatches
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.signals.sources import split_head
from models.training.loop import Plan, train

TEXT = Interface("causal-lm", 128, vocabulary=1000, end_id=0, pad_id=1)
SENTENCES = Interface("sequence-classification", 64, vocabulary=1000, end_id=0, pad_id=1, classes=4)
IMAGES = Interface("image-classification", 2, classes=4, image_shape=(3, 32, 32))
SIZES = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 32}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0, "pooler_hidden_size": 128}
CASES: list[tuple[str, Interface, dict[str, Any]]] = [
    ("llama", TEXT, GROUPED),
    ("qwen2", TEXT, SIZES),
    ("qwen3", TEXT, GROUPED),
    ("gemma2", TEXT, GROUPED),
    ("gemma3_text", TEXT, GROUPED),
    ("mistral", TEXT, GROUPED),
    ("phi3", TEXT, SIZES),
    ("olmo2", TEXT, SIZES),
    ("smollm3", TEXT, GROUPED),
    ("gpt_neox", TEXT, SIZES),
    ("gpt2", TEXT, {"n_embd": 128, "n_layer": 4, "n_head": 4}),
    ("opt", TEXT, {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "ffn_dim": 256, "word_embed_proj_dim": 128}),
    ("bert", SENTENCES, SIZES),
    ("distilbert", SENTENCES, {"dim": 128, "n_layers": 4, "n_heads": 4, "hidden_dim": 256}),
    ("roberta", SENTENCES, SIZES),
    ("electra", SENTENCES, {**SIZES, "embedding_size": 64}),
    ("albert", SENTENCES, {**SIZES, "embedding_size": 64}),
    ("modernbert", SENTENCES, SIZES),
    ("deberta-v2", SENTENCES, {**SIZES, **DEBERTA}),
    ("qwen3", SENTENCES, GROUPED),
    ("vit", IMAGES, {**SIZES, "patch_size": 4}),
    ("dinov2", IMAGES, {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "patch_size": 4}),
    ("convnext", IMAGES, {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1], "patch_size": 2}),
    ("convnextv2", IMAGES, {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1], "patch_size": 2}),
    ("resnet", IMAGES, {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1], "layer_type": "basic"}),
    ("swin", IMAGES, {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "patch_size": 2}),
]


class Tried(NamedTuple):
    """A line of the table."""

    name: str
    parameters: int
    formula: float | None
    counter: int
    step: float
    head: str
    micro: str
    reload: str


def synthetic(folder: Path, interface: Interface) -> Corpus:
    """A corpus of random examples with the interface's ids, classes or images."""
    generator, splits = np.random.default_rng(0), {}
    folder.mkdir()
    for name in SPLITS:
        rows = 64
        labels = generator.integers(0, max(interface.classes, 1), rows) if interface.classes else np.full(rows, -1)
        zeros = np.zeros(rows, dtype=np.int64)
        if interface.image_shape is not None:
            values: Any = generator.random((rows, *interface.image_shape), dtype=np.float32)
            offsets = np.arange(rows + 1)
        else:
            lengths = generator.integers(16, interface.sequence_length, rows)
            values = generator.integers(2, interface.vocabulary or 0, int(lengths.sum())).astype(np.uint16)
            offsets = np.concatenate([[0], np.cumsum(lengths)])
        splits[name] = Split(values, offsets, labels.astype(np.int64), zeros.astype(np.int32), zeros)
    classes = tuple(f"class {i}" for i in range(interface.classes))
    text = interface.vocabulary, interface.end_id, interface.pad_id
    counts = {name: len(splits[name]) for name in SPLITS}
    tokens = {name: len(splits[name].values) for name in SPLITS}
    info = CorpusInfo(interface.workload, interface.sequence_length, *text, classes, ("all",), interface.image_shape, counts, tokens)
    write_corpus(folder, info, splits)
    return Corpus(folder, "synthetic")


def trained(make: Callable[[], nn.Module], corpus: Corpus, interface: Interface, accumulation: int) -> tuple[nn.Module, float]:
    """A model after one step from labels, and the seconds of a later step."""
    moments: list[float] = []
    settings = Training(steps=1, batch_size=16, accumulation=accumulation, learning_rate=1e-3, precision="fp32")
    first = make()
    train(first, TrainingBatches(corpus, 16, 0), Plan(settings, None, 0, interface.output_ids))
    plan = Plan(settings.model_copy(update={"steps": 4}), None, 0, interface.output_ids)
    train(make(), TrainingBatches(corpus, 16, 0), plan, on_step=lambda step: moments.append(time.perf_counter()))
    return first, (moments[-1] - moments[0]) / 3


def tried(name: str, interface: Interface, sizes: dict[str, Any], corpus: Corpus, place: Path) -> Tried:
    """Measure one architecture."""
    config = fitted_config({"model_type": name, **sizes}, interface, "config")

    def make() -> nn.Module:
        torch.manual_seed(0)
        return build_from(config, interface.workload, "config")

    model, step = trained(make, corpus, interface, 1)
    try:
        parts, _ = trained(make, corpus, interface, 2)
        pairs = zip(model.state_dict().values(), parts.state_dict().values(), strict=True)
        furthest = max(float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel())
        micro = f"{furthest:.0e}"
    except UserError:
        micro = "refused"
    folder = place / f"{name}-{interface.workload}"
    save_model(model, folder, None)
    again = load_model(folder, interface.workload)
    equal = all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in model.state_dict().items())
    head = "-" if interface.workload != "causal-lm" else "chunked" if split_head(model) is not None else "whole"
    size = count(model, interface.sequence_length)
    formula = by_formula(model, interface.sequence_length) if name in WITH_FORMULA else None
    return Tried(
        f"{name} ({interface.workload})",
        size.parameters,
        formula,
        by_counter(model, interface.sequence_length),
        step,
        head,
        micro,
        "bit-equal" if equal else "differs",
    )


def main() -> None:
    """Print the table."""
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    print(f"{machine('cpu')}, transformers {transformers.__version__}\n")
    columns = ("architecture", "parameters", "MFLOP by formula", "by counter", "ratio", "step, ms", "logits", "micro-batches", "reload")
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        corpora = {each.workload: synthetic(place / each.workload, each) for each in (TEXT, SENTENCES, IMAGES)}
        for name, interface, sizes in CASES:
            found = tried(name, interface, sizes, corpora[interface.workload], place)
            by, ratio = ("-", "-") if found.formula is None else (f"{found.formula / 1e6:,.1f}", f"{found.formula / found.counter:.3f}")
            figures = f"{found.parameters:,} | {by} | {found.counter / 1e6:,.1f} | {ratio} | {1000 * found.step:.0f}"
            print(f"| {found.name} | {figures} | {cast(str, found.head)} | {found.micro} | {found.reload} |", flush=True)


if __name__ == "__main__":
    main()
