"""The other side of `benchmarks.on_policy`: TRL's trainers on text that the student writes. Imports nothing of Ladder.

    python on_policy_trl.py gkd TEACHER STUDENT STREAM.npy --length 256 --prompt 128 --batch-size 4 --accumulation 1 --steps 8 \
        --precision bf16 --beta 1

prints one JSON line: seconds of the timed steps, by the clock and of the processor, and the process's peak memory. `golden` in place of
a trainer's name writes loss and gradient of TRL's GKD on a tiny pair, with text that TRL let the student write, for
tests/models/training/test_gkd.py:

    python on_policy_trl.py golden tests/models/training/golden/gkd.safetensors
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

WARM = 2  # steps that do not count, as in on_policy.py
END, PAD = 0, 18
GOLDEN = {"vocab_size": 19, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
GOLDEN |= {"eos_token_id": END, "pad_token_id": PAD}
BETAS = (0.0, 0.3, 1.0)
PROMPTS = ([3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 9], [3])
TOKENS = 12


class StepClock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.moments: list[tuple[float, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Note the moment."""
        self.moments.append((time.perf_counter(), time.process_time()))


def left_padded(prompts: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of prompts, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Prompts of one length; the labels are those of the given text, which TRL counts before the student writes."""
    ids, prompts = torch.tensor([row["input_ids"] for row in rows]), torch.tensor([row["prompts"] for row in rows])
    labels = ids.clone()
    labels[:, : prompts.shape[1]] = -100
    masks = {"attention_mask": torch.ones_like(ids), "prompt_attention_mask": torch.ones_like(prompts)}
    return {"input_ids": ids, "labels": labels, "prompts": prompts, **masks}


def peak_mib() -> float:
    """The process's peak resident memory so far, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def tokenizer_of(vocabulary: int, end: int, pad: int) -> PreTrainedTokenizerFast:
    """A tokenizer of the words t0, t1, ..."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"t{index}": index for index in range(vocabulary)}, unk_token="t1"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=f"t{pad}", eos_token=f"t{end}", padding_side="left")


def common(folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of both trainers."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": options.batch_size // options.accumulation,
        "gradient_accumulation_steps": options.accumulation,
        "max_steps": WARM + options.steps,
        "beta": options.beta,
        "temperature": 1.0,
        "bf16": options.precision == "bf16",
        "use_cpu": not torch.cuda.is_available(),
        "learning_rate": 1e-4,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


def gkd_trainer(models: dict[str, Any], options: argparse.Namespace, folder: str, windows: np.ndarray, clock: StepClock) -> Any:
    """TRL's GKDTrainer, on-policy in every step; no end id ends a text."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    rows = {"input_ids": windows.tolist(), "prompts": windows[:, : options.prompt].tolist()}
    return GKDTrainer(
        model=models["student"],
        teacher_model=models["teacher"],
        args=GKDConfig(lmbda=1.0, max_new_tokens=options.length - options.prompt, **common(folder, options)),
        data_collator=collate,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer_of(models["teacher"].config.vocab_size, 0, 0),
        callbacks=[clock],
    )


def distillation_trainer(models: dict[str, Any], options: argparse.Namespace, folder: str, windows: np.ndarray, clock: StepClock) -> Any:
    """TRL's DistillationTrainer; the end id is kept from ending a text."""
    from trl import DistillationConfig, DistillationTrainer

    tokens = options.length - options.prompt
    config = DistillationConfig(
        max_completion_length=tokens, top_k=0, top_p=1.0, generation_kwargs={"min_new_tokens": tokens}, **common(folder, options)
    )
    return DistillationTrainer(
        model=models["student"],
        teacher_model=models["teacher"],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [" ".join(f"t{i}" for i in row) for row in windows[:, : options.prompt].tolist()]}),
        processing_class=tokenizer_of(models["teacher"].config.vocab_size, 0, 0),
        callbacks=[clock],
    )


def timed(options: argparse.Namespace) -> dict[str, float]:
    """Train a few steps."""
    needed = (WARM + options.steps) * options.batch_size
    windows = np.load(options.stream)[: needed * options.length].reshape(needed, options.length).astype(np.int64)
    paths = {"teacher": options.teacher, "student": options.student}
    models = {name: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for name, path in paths.items()}
    models["student"].generation_config.eos_token_id = None
    clock, make = StepClock(), gkd_trainer if options.trainer == "gkd" else distillation_trainer
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(models, options, folder, windows, clock)
        before = peak_mib()
        trainer.train()
    seconds, busy = (options.steps * np.median(np.diff(clock.moments[WARM - 1 :], axis=0), axis=0)).tolist()
    return {"seconds": seconds, "busy": busy, "before_mib": before, "peak_mib": peak_mib()}


def golden(place: Path) -> None:
    """Losses and gradients of TRL's GKD on a tiny pair, with all that makes them."""
    import trl
    from safetensors.torch import save_file
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    tensors, losses = dict[str, torch.Tensor](), dict[str, float]()
    for beta in BETAS:
        models = {}
        for seed, name in enumerate(("teacher", "student")):
            torch.manual_seed(seed)
            models[name] = LlamaForCausalLM(LlamaConfig(**GOLDEN, initializer_range=0.5)).float()
            tensors |= {f"{name}.{key}": value.clone() for key, value in models[name].state_dict().items()}
        with tempfile.TemporaryDirectory() as folder:
            trainer = GKDTrainer(
                model=models["student"],
                teacher_model=models["teacher"],
                args=GKDConfig(output_dir=folder, lmbda=1.0, beta=beta, max_new_tokens=TOKENS, temperature=1.0, bf16=False, use_cpu=True),
                data_collator=collate,
                train_dataset=Dataset.from_dict({"input_ids": [[0]], "prompts": [[0]]}),
                processing_class=tokenizer_of(GOLDEN["vocab_size"], END, PAD),
            )
            prompts, mask = left_padded([list(prompt) for prompt in PROMPTS], PAD)
            inputs = {"input_ids": prompts, "labels": prompts.clone(), "prompts": prompts}
            inputs |= {"attention_mask": mask, "prompt_attention_mask": mask}
            trainer.current_gradient_accumulation_steps = 1  # which `train` sets before its steps
            torch.manual_seed(11)
            losses[str(beta)] = float(trainer.training_step(trainer.model, inputs, None))
        tensors |= {"ids": inputs["input_ids"].clone(), "mask": inputs["attention_mask"].clone(), "labels": inputs["labels"].clone()}
        for key, parameter in models["student"].named_parameters():
            assert parameter.grad is not None
            tensors[f"gradient.{beta}.{key}"] = parameter.grad.clone()
    command = "python benchmarks/on_policy_trl.py golden tests/models/training/golden/gkd.safetensors"
    save_file(tensors, place, {"trl": trl.__version__, "losses": json.dumps(losses), "config": json.dumps(GOLDEN), "command": command})
    print(losses)


def main() -> None:
    """Train a few steps and print the figures, or write the golden file."""
    if sys.argv[1] == "golden":
        golden(Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("trainer", choices=["gkd", "distillation"])
    for name in ("teacher", "student", "stream"):
        parser.add_argument(name, type=Path)
    for name in ("length", "prompt", "batch-size", "accumulation", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--precision", choices=["bf16", "fp32"], required=True)
    parser.add_argument("--beta", type=float, required=True)
    print(json.dumps(timed(parser.parse_args())))


if __name__ == "__main__":
    main()
