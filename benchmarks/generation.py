"""Tokens a second that a teacher writes for `data.generate`, beside plain `transformers.generate`.

    python -m benchmarks.generation [FOLDER] [--prompts 64] [--tokens 64] [--batch 16] [--rounds 3] [--device auto]

FOLDER is a causal language model; without one, a random Llama of bytes with 3.4M parameters is made on the spot, whose end id is as
probable as any other, so that answers are of many lengths. Only tokens up to the end of an answer count. The candidates take turns:

    alone      transformers, a prompt at a time, its seed set before it: as here, no answer depends on those beside it
    batches    transformers, B prompts padded on the left, until the longest answer ends; one seed for a batch
    ladder     `ModelWriter`: seeds for each answer, and an answer that ends makes room for the next
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.common import machine, spread
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import load_model, save_model
from models.architectures.shapes import build, config_for
from models.base.device import resolve_device
from models.base.interface import Interface
from models.data import tokenizers
from models.engines.base import GenerationSettings
from models.engines.continuous import end_ids
from models.engines.torch_engine import TorchLanguageModel
from models.generation.writers import Ask, ModelWriter, WrittenAnswer

TEXT = "The library reads a file, line by line, and returns what it finds in a list. "


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    for name, value in (("prompts", 64), ("tokens", 64), ("batch", 16), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        _measure(given, given.folder or _random_model(Path(place)))


def _random_model(place: Path) -> Path:
    shape = Shape(family="llama", hidden_size=256, layers=4, heads=4, feed_forward=704)
    torch.manual_seed(0)
    (place / "tokenizer").mkdir()
    tokenizers.save(tokenizers.bytes_tokenizer(), place / "tokenizer")
    interface = Interface("causal-lm", 1024, vocabulary=258, end_id=256, pad_id=257, classes=0, image_shape=None)
    save_model(build(config_for(shape, interface), "causal-lm"), place / "model", place / "tokenizer")
    return place / "model"


def _measure(given: argparse.Namespace, folder: Path) -> None:
    device = resolve_device(given.device)
    model = load_model(folder, "causal-lm").to(device).eval().requires_grad_(False)
    tokenizer = tokenizers.load_teacher(folder)
    asks = [Ask(str(n), TEXT[: 8 + 4 * (n % 16)] + str(n), n) for n in range(given.prompts)]
    candidates: dict[str, Callable[[], int]] = {
        "alone": lambda: _plain(model, tokenizer, asks, given.tokens, 1, device),
        "batches": lambda: _plain(model, tokenizer, asks, given.tokens, given.batch, device),
        "ladder": lambda: _ladder(model, tokenizer, asks, given.tokens, given.batch),
    }
    speeds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(given.rounds + 1):
        for name, run in candidates.items():
            began = time.perf_counter()
            tokens = run()
            if number:  # the first round warms up
                speeds[name].append(tokens / (time.perf_counter() - began))
    size = sum(value.numel() for value in model.parameters())
    print(f"{size:,} parameters, {given.prompts} prompts, at most {given.tokens} tokens, batches of {given.batch}; {machine(device)}")
    for name, values in speeds.items():
        print(f"{name:<10}{spread(values)} tokens/s")


@torch.inference_mode()
def _plain(model: Any, tokenizer: Any, asks: list[Ask], most: int, batch: int, device: str) -> int:
    ends, written = end_ids(model, tokenizer), 0
    end, pad = tokenizers.special_ids(tokenizer)
    for first in range(0, len(asks), batch):
        part = asks[first : first + batch]
        rows = [cast(list[int], tokenizer(ask.prompt, add_special_tokens=False)["input_ids"]) for ask in part]
        width = max(map(len, rows))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        torch.manual_seed(part[0].seed)
        output = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=most, do_sample=True, top_k=0, eos_token_id=end, pad_token_id=pad
        )
        for row in output[:, width:].tolist():
            written += next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return written


def _ladder(model: Any, tokenizer: Any, asks: list[Ask], most: int, batch: int) -> int:
    written = 0

    def emit(ask: Ask, answer: WrittenAnswer) -> None:
        nonlocal written
        written += answer.written

    writer = ModelWriter(TorchLanguageModel(model, tokenizer, None, batch), GenerationSettings(most), batch, chat=False)
    for first in range(0, len(asks), writer.part):
        writer.write(asks[first : first + writer.part], emit, lambda: False)
    writer.close()
    return written


if __name__ == "__main__":
    main()
