"""Stands for a team's own model of pictures and texts: my-clip, a small CLIP trained here, and captions.parquet, digits with captions."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.datasets import load_digits
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FORMS = ("a handwritten {}", "the digit {}", "{}, written by hand")
SIDE, STEPS, AT_ONCE = 16, 300, 64


def captions() -> list[dict[str, Any]]:
    """Scikit-learn's digits, each with the caption of its digit."""
    found: Any = load_digits()
    rows = []
    for pixels, digit in zip(found.images, found.target.tolist(), strict=True):
        file = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(file, "PNG")
        rows.append({"image": file.getvalue(), "text": FORMS[digit % len(FORMS)].format(WORDS[digit]), "digit": WORDS[digit]})
    return rows


def processor() -> CLIPProcessor:
    """Letters as ids, an end after each text, and pictures of one size."""
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    words = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>", pad_token="<|pad|>")
    end = words.get_vocab()["<|end|>"]
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", end)])
    return CLIPProcessor(CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False), words)


def model_for(words: Any, width: int, layers: int) -> CLIPModel:
    """A small CLIP with random weights."""
    part = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers, "num_attention_heads": 4}
    special = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id}
    return CLIPModel(
        CLIPConfig(
            text_config={**part, "vocab_size": len(words), "max_position_embeddings": 32, **special},
            vision_config={**part, "image_size": SIDE, "patch_size": 4},
            projection_dim=32,
        )
    )


def main() -> None:
    """Write the files in the working directory."""
    random.seed(0)
    torch.manual_seed(0)
    rows, reads = captions(), processor()
    pq.write_table(pa.Table.from_pylist(rows), "captions.parquet")
    model = model_for(reads.tokenizer, 64, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pictures = [Image.open(io.BytesIO(row["image"])).convert("RGB") for row in rows]
    pixels = reads.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    texts = reads.tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    digits = torch.tensor([WORDS.index(row["digit"]) for row in rows])
    for _ in range(STEPS):
        some = torch.tensor(random.sample(range(len(rows) * 4 // 5), AT_ONCE))
        made = model(input_ids=texts["input_ids"][some], attention_mask=texts["attention_mask"][some], pixel_values=pixels[some])
        same = (digits[some][:, None] == digits[some][None, :]).float()
        wanted = same / same.sum(1, keepdim=True)  # captions of the same digit are right, too
        each = torch.stack([made.logits_per_image, made.logits_per_text])
        loss = -(wanted * each.log_softmax(-1)).sum(-1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained("my-clip")
    reads.save_pretrained("my-clip")


if __name__ == "__main__":
    main()
