"""Stored answers of a teacher that is not here, as a model that looks them up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conf.errors import LadderError
from models.base.files import read_json

ANSWERS = "stored_answers.json"  # marks a folder of answers; their numbers are in model.safetensors
LEAST = 1e-7  # probability: an answer of 0 would rule a class out for ever


class StoredAnswers(nn.Module):
    """A classifier whose logits are stored log-probabilities, found by the ids of a text or by the pixels of an image.

    Args:
        keys: (n, 16) uint8, `text_key` of each text, or `image_key` of each image.
        log_p: (n, C) log-probabilities.
        described: Of `stored_answers.json`: `parameters` of the model that gave them, `classes`.
    """

    log_p: Tensor

    def __init__(self, keys: NDArray[np.uint8], log_p: Tensor, described: dict[str, Any]) -> None:
        super().__init__()
        self.places = {key.tobytes(): place for place, key in enumerate(keys)}
        self.register_buffer("log_p", log_p)
        self.config = SimpleNamespace(model_type="answers", num_labels=log_p.shape[1], vocab_size=2**31, **described)

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None, **_: Any
    ) -> SimpleNamespace:
        """Logits (B, C) of texts, as ids (B, L) and their mask, or of images (B, C, H, W).

        Raises:
            LadderError: A text or an image has no stored answer.
        """
        if pixel_values is not None:
            keys = [image_key(image) for image in pixel_values.cpu().numpy()]
        else:
            assert input_ids is not None
            assert attention_mask is not None
            lengths, ids = attention_mask.sum(dim=1).tolist(), input_ids.cpu().numpy()
            keys = [text_key(row[:length]) for row, length in zip(ids, lengths, strict=True)]
        places = [self.places.get(key) for key in keys]
        if None in places:
            raise LadderError(f"{places.count(None)} of {len(places)} examples have no stored answer")
        return SimpleNamespace(logits=self.log_p[torch.tensor(places, device=self.log_p.device)])


def text_key(ids: NDArray[Any]) -> bytes:
    """A 128-bit hash of a text's ids, without padding."""
    return hashlib.blake2b(ids.astype("<u4").tobytes(), digest_size=16).digest()


def image_key(pixels: NDArray[Any]) -> bytes:
    """A 128-bit hash of an image's pixels (C, H, W) as a model takes them."""
    return hashlib.blake2b(pixels.astype("<f4").tobytes(), digest_size=16).digest()


def save_answers(folder: Path, keys: Sequence[bytes], probabilities: NDArray[np.float64], parameters: int, classes: Sequence[str]) -> None:
    """Write answers into an existing folder; equal answers give equal files."""
    from safetensors.numpy import save_file

    order = sorted(range(len(keys)), key=lambda place: keys[place])
    raised = np.maximum(probabilities[order], LEAST)
    log_p = np.log(raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    joined = np.frombuffer(b"".join(keys[place] for place in order), dtype=np.uint8).reshape(-1, 16)
    save_file({"keys": joined.copy(), "log_probabilities": log_p}, folder / "model.safetensors")
    (folder / ANSWERS).write_text(json.dumps({"parameters": parameters, "classes": list(classes)}, indent=1), encoding="utf-8")


def load_answers(folder: Path) -> StoredAnswers:
    """Read the answers in a folder of `save_answers`."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors")
    return StoredAnswers(tensors["keys"], torch.from_numpy(tensors["log_probabilities"]), read_json(folder / ANSWERS))
