"""Stands for a team's own language model and data: my-lm, with a tokenizer of its own, worked.jsonl and questions.csv, sums in words."""

from __future__ import annotations

import csv
import json
import random
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

STEPS, BATCH = 1000, 64


def worked(first: int, second: int) -> dict[str, str]:
    """A sum with its reasoning."""
    tens, ones = first // 10 * 10 + second // 10 * 10, first % 10 + second % 10
    steps = f"tens {tens}, ones {ones}"
    return {"question": f"{first} plus {second} is", "answer": f" {first + second}.", "steps": steps}


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Sums of two numbers below 50, each once."""
    every = [(first, second) for first in range(50) for second in range(50)]
    return [worked(*pair) for pair in random.Random(seed).sample(every, count)]


def tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE, trained on the texts."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=sorted(alphabet)))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", bos_token="<|end|>", pad_token="<|end|>")


def model(words: Any, texts: list[str]) -> Any:
    """A small Llama that has read the texts."""
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
    special = {"eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id, "pad_token_id": words.pad_token_id}
    made: Any = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(words), max_position_embeddings=128, **size, **special))
    ids = [torch.tensor([*words(text)["input_ids"], words.eos_token_id]) for text in texts]
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
    draw = random.Random(1)
    for _ in range(STEPS):
        chosen = draw.sample(ids, BATCH)
        batch = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=words.pad_token_id)
        lengths = torch.tensor([len(each) for each in chosen])
        labels = batch.masked_fill(torch.arange(batch.shape[1])[None] >= lengths[:, None], -100)
        made(input_ids=batch, labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return made.eval()


def main() -> None:
    """Write the files in the working directory."""
    given = rows(1200, seed=0)
    with open("worked.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in given[:400])
    with open("questions.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer"])
        writer.writerows((row["question"], row["answer"].strip(" .")) for row in given[400:600])
    texts = [row["question"] + row["answer"] for row in given]
    words = tokenizer(texts)
    words.save_pretrained("my-lm")
    model(words, texts).save_pretrained("my-lm")


if __name__ == "__main__":
    main()
