"""Folders of tiny models, as Ladder publishes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from conf.schema.stage.student import Shape
from models.architectures.checkpoint import save_model
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data import image_processors, tokenizers

FAMILY = {"causal-lm": "llama", "sequence-classification": "bert", "image-classification": "vit"}


def published_folder(folder: Path, workload: str, length: int = 64, template: str | None = None, seed: int = 0) -> Path:
    """Make the folder of a random model of a workload: of bytes, or of images of 4 x 4; three classes."""
    images = workload == "image-classification"
    ids = {} if images else {"vocabulary": 258, "end_id": 256, "pad_id": 257}
    interface = Interface(workload, length, classes=3, image_shape=(1, 4, 4) if images else None, **ids)
    shape = Shape.model_validate({"family": FAMILY[workload], "hidden_size": 16, "layers": 2, "heads": 2, "feed_forward": 32})
    torch.manual_seed(seed)
    model = build(config_for(shape, interface), workload)
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(4.0)  # larger differences between ids and classes
    beside = folder.with_name(f"{folder.name}-tokenizer")
    for place in (beside, folder):
        shutil.rmtree(place, ignore_errors=True)
    beside.mkdir(parents=True)
    if images:
        image_processors.plain((4, 4), 1).save_pretrained(beside)
    else:
        tokenizer = tokenizers.bytes_tokenizer()
        tokenizer.chat_template, tokenizer.model_max_length = template, length
        tokenizers.save(tokenizer if workload == "causal-lm" else tokenizers.append_end(tokenizer), beside)
    save_model(model, folder, beside)
    return folder
