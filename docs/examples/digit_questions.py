"""Stands for a team's own vision-language model and data: my-vlm, not trained yet, and questions.parquet, questions about digits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.datasets import load_digits
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForImageTextToText, Idefics3Config, Idefics3ImageProcessorPil, Idefics3Processor, PreTrainedTokenizerFast

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PICTURE = ["<image>", "<fake_token_around_image>", "<global-img>"]
SIDE = 16  # pixels


def questions() -> list[dict[str, Any]]:
    """Two questions about each of scikit-learn's digits, with their answers."""
    found: Any = load_digits()
    rows = []
    for number, (pixels, digit) in enumerate(zip(found.images, found.target.tolist(), strict=True)):
        file = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(file, "PNG")
        asked = [("Which digit is this?", WORDS[digit]), ("Is it odd or even?", "odd" if digit % 2 else "even")]
        rows += [
            {"image": file.getvalue(), "question": question, "answer": answer, "kind": kind, "digit": number}
            for kind, (question, answer) in zip(("which", "parity"), asked, strict=True)
        ]
    return rows


def tokenizer() -> PreTrainedTokenizerFast:
    """Letters as ids, and the words by which Idefics3 writes a picture."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>", pad_token="<|pad|>")
    made.add_special_tokens({"additional_special_tokens": PICTURE})
    return made


def model_config(words: PreTrainedTokenizerFast, vision: int, text: int, layers: int) -> Idefics3Config:
    """A small Idefics3: widths of its parts, and layers of each."""
    sees = {"hidden_size": vision, "intermediate_size": 2 * vision, "num_hidden_layers": layers, "num_attention_heads": 4}
    reads = {"hidden_size": text, "intermediate_size": 2 * text, "num_hidden_layers": layers, "num_attention_heads": 4}
    special: dict[str, Any] = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id}
    return Idefics3Config(
        vision_config={**sees, "image_size": SIDE, "patch_size": 4, "initializer_range": vision**-0.5},
        text_config={"model_type": "llama", **reads, "vocab_size": len(words), "initializer_range": text**-0.5, **special},
        scale_factor=2,  # four patches become one feature
        image_token_id=words.get_vocab()["<image>"],
        **special,
    )


def main() -> None:
    """Write the files in the working directory."""
    torch.manual_seed(0)
    pq.write_table(pa.Table.from_pylist(questions()), "questions.parquet")
    words = tokenizer()
    box = {"longest_edge": SIDE}
    pictures = Idefics3ImageProcessorPil(size=box, max_image_size=box, do_image_splitting=False)
    Idefics3Processor(pictures, words, image_seq_len=4).save_pretrained("my-vlm")
    AutoModelForImageTextToText.from_config(model_config(words, vision=48, text=64, layers=2)).save_pretrained("my-vlm")


if __name__ == "__main__":
    main()
