"""SmolLM2-135M above a student of bytes, with little text: the same student with and without the teacher's answers.

    python -m benchmarks.tokenizer_pairs TEACHER [--windows 96] [--steps 150] [--seeds 2] [--alpha 0.7]

TEACHER is a Hugging Face folder, such as the one in `store/converted/` that a run of the ladder `smollm2` leaves. Text is the standard
library's source, in windows of 256 bytes that begin anywhere in a file; files of the held-out windows are others. The teacher answers each
window once, by `alignment: bytes`; its own bits per byte are those of its tokens.
"""

from __future__ import annotations

import argparse
import math
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from conf.schema.stage.objective import Objective
from models.alignment.byte_tokens import ByteTokens
from models.alignment.teacher import AlignedTeacher
from models.architectures.checkpoint import load_model
from models.data import tokenizers
from models.data.batches import Batch, next_token_batch
from models.losses.loss import StepObjective, TeacherSignal, distillation_loss

LENGTH, AT_ONCE, FILES, HELD_OUT = 256, 8, 120, 100  # bytes of a window, windows of a step, files, the first of the held-out ones
RATE, WARMUP = 2e-3, 20


def windows(texts: Sequence[bytes], count: int, draw: np.random.Generator, end: int) -> NDArray[np.int64]:
    """Windows (n, 1 + L) of bytes after the end id, padded with it."""
    found = []
    for _ in range(count):
        text = texts[int(draw.integers(len(texts)))]
        begin = int(draw.integers(max(len(text) - LENGTH - 1, 1)))
        window = [end, *text[begin : begin + LENGTH]]
        found.append([*window, *[end] * (LENGTH + 1 - len(window))])
    return np.array(found)


def batch_of(some: NDArray[np.int64]) -> Batch:
    """A batch of these windows."""
    return next_token_batch(some, np.full(len(some), LENGTH + 1), np.zeros(len(some), dtype=np.int32))


def answered(teacher: AlignedTeacher, some: NDArray[np.int64]) -> tuple[Tensor, float, float]:
    """Answers (n, L, V) to windows, the teacher's bits per byte, and the share of bytes with which a span begins."""
    found = []
    for at in range(0, len(some), AT_ONCE):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found.append(teacher.answers(batch_of(some[at : at + AT_ONCE])))
    log_p, nll, begins = (torch.cat(parts) for parts in zip(*found, strict=True))
    return log_p.view(len(some), LENGTH, -1), float(nll.mean()) / math.log(2), float(begins.float().mean())


def bits_of_student(train: NDArray[np.int64], log_p: Tensor, valid: NDArray[np.int64], alpha: float, seed: int, steps: int) -> float:
    """Bits per byte of a student of 0.38M parameters on the held-out windows after its training."""
    torch.manual_seed(seed)
    size: dict[str, Any] = {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }
    model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=log_p.shape[-1], max_position_embeddings=512, **size))
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.1)
    draw, at = np.random.default_rng(seed), StepObjective(Objective(), alpha, 1.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP) * (1 - step / steps)
        chosen = draw.choice(len(train), min(AT_ONCE, len(train)), replace=False)
        batch = batch_of(train[chosen])
        signals = [TeacherSignal(log_p[chosen].flatten(0, 1))] if alpha else []
        logits = model(input_ids=batch.inputs["input_ids"]).logits.flatten(0, 1)
        (distillation_loss(logits, signals, batch.targets.flatten(), at).total / batch.valid).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    batch = batch_of(valid)
    with torch.no_grad():
        logits = model(input_ids=batch.inputs["input_ids"]).logits.flatten(0, 1)
    return float(torch.nn.functional.cross_entropy(logits, batch.targets.flatten())) / math.log(2)


def main() -> None:
    """Print a line for the teacher and for each student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--windows", type=int, default=96)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--alpha", type=float, default=0.7)
    asked = parser.parse_args()
    own, students = ByteTokens(tokenizers.load(asked.teacher)), ByteTokens(tokenizers.bytes_tokenizer())
    teacher = AlignedTeacher(load_model(asked.teacher, "causal-lm").eval(), own, students, students.count)
    texts = [file.read_bytes() for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:FILES]]
    draw = np.random.default_rng(0)
    train, valid = (windows(part, asked.windows, draw, students.end) for part in (texts[:HELD_OUT], texts[HELD_OUT:]))
    _, bits, _ = answered(teacher, valid[:16])
    began = time.process_time()
    log_p, train_bits, begins = answered(teacher, train)
    seconds = time.process_time() - began
    print(
        f"teacher: {bits:.3f} bits/byte held out, {train_bits:.3f} on the training windows, answered in {seconds:.1f} s of processor time"
    )
    print(f"a span begins with {100 * begins:.1f} % of the bytes")
    for seed in range(asked.seeds):
        alone, taught = (bits_of_student(train, log_p, valid, alpha, seed, asked.steps) for alpha in (0.0, asked.alpha))
        print(f"seed {seed}: labels alone {alone:.3f}, bytes at alpha {asked.alpha:g} {taught:.3f} bits/byte")


if __name__ == "__main__":
    main()
