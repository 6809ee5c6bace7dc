"""The other side of `benchmarks.peers`: TRL's GKDTrainer on the same pair and ids, in an environment of its own. Imports nothing of Ladder.

    python peers_trl.py TEACHER STUDENT STREAM.npy --length 256 --batch-size 4 --steps 8 --precision bf16

prints one JSON line: seconds of the timed steps, and the process's peak memory before training and at its end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl.experimental.gkd import GKDConfig, GKDTrainer

WARM = 3  # steps that do not count


class StepClock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Note the moment."""
        self.moments.append(time.perf_counter())


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Windows as they are: every position counts."""
    ids = torch.tensor([row["input_ids"] for row in rows])
    mask = torch.ones_like(ids)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.clone(), "prompts": ids[:, :1], "prompt_attention_mask": mask[:, :1]}


def peak_mib() -> float:
    """The process's peak resident memory so far, in MiB; `ru_maxrss` would begin with the peak of the process that started it."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Train a few steps, print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("teacher", type=Path)
    parser.add_argument("student", type=Path)
    parser.add_argument("stream", type=Path)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--precision", choices=["bf16", "fp32"], required=True)
    options = parser.parse_args()
    needed = (WARM + options.steps) * options.batch_size
    windows = np.load(options.stream)[: needed * options.length].reshape(needed, options.length)
    dataset = Dataset.from_dict({"input_ids": windows.astype(np.int64).tolist()})
    models = {
        name: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        for name, path in (("teacher", options.teacher), ("student", options.student))
    }
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        config = GKDConfig(
            output_dir=folder,
            per_device_train_batch_size=options.batch_size,
            max_steps=WARM + options.steps,
            lmbda=0.0,
            beta=0.0,
            temperature=1.0,
            bf16=options.precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            learning_rate=1e-4,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            gradient_checkpointing=False,
            dataloader_num_workers=0,
            disable_tqdm=True,
        )
        trainer = GKDTrainer(
            model=models["student"],
            teacher_model=models["teacher"],
            args=config,
            data_collator=collate,
            train_dataset=dataset,
            processing_class=_no_tokenizer(models["teacher"].config.vocab_size),
            callbacks=[clock],
        )
        before = peak_mib()
        trainer.train()
    print(
        json.dumps(
            {"seconds": options.steps * float(np.median(np.diff(clock.moments[WARM - 1 :]))), "before_mib": before, "peak_mib": peak_mib()}
        )
    )


def _no_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """The trainer asks for one; the windows are ids already."""
    from tokenizers import Tokenizer, models

    words = {f"t{index}": index for index in range(vocabulary)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t0")), pad_token="t0", eos_token="t0")


if __name__ == "__main__":
    main()
