"""Engine of PyTorch: classifiers of texts and images, and language models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from conf.errors import UserError
from models.architectures.checkpoint import load_model
from models.architectures.configs import positions_of
from models.data import image_processors, tokenizers
from models.engines.base import (
    Classifier,
    Generation,
    GenerationSettings,
    LanguageModel,
    Message,
    Prediction,
    Row,
    Token,
    TokenQueue,
)
from models.engines.continuous import ContinuousBatch
from models.engines.prompts import PromptEncoder
from models.engines.rows import answers, length_of, padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WARM_TEXT = "a b c"


def load(
    folder: Path, workload: str, *, max_length: int | None = None, batch: int = 16, key: str = "model", device: str = "cpu"
) -> Classifier | LanguageModel:
    """As `models.engines.load.load_engine`, on a device.

    Raises:
        UserError: The folder is no such model, or lacks its tokenizer or image processor.
    """
    model = load_model(folder, workload, key=key).to(device).eval().requires_grad_(False)
    if workload == "image-classification":
        return TorchImages(model, folder, key)
    tokenizer = tokenizers.load_teacher(folder)
    if workload == "causal-lm":
        return TorchLanguageModel(model, tokenizer, max_length, batch)
    return TorchTexts(model, tokenizer, max_length)


def class_names(model: nn.Module) -> tuple[str, ...]:
    """(K,) names of a classifier's classes, as its configuration gives them."""
    names: dict[int, str] = cast(Any, model).config.id2label
    return tuple(str(names[index]) for index in sorted(names))


class TorchTexts(Classifier):
    """A classifier of texts."""

    kind = "torch"
    images = False

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, next(model.parameters()).device
        self.labels = class_names(model)
        self.max_length = length_of(positions_of(model), tokenizer, max_length)
        self._around = sum(map(len, tokenizers.surroundings(tokenizer)))
        self._pad = tokenizers.special_ids(tokenizer)[1]

    def warm(self) -> None:
        """Answer one text."""
        self.predict([WARM_TEXT])

    def lengths(self, rows: Sequence[Row]) -> list[int]:
        """Ids of each text, uncut."""
        return [len(ids) + self._around for ids in tokenizers.encode(self._tokenizer, rows)]

    @torch.inference_mode()
    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answers to texts."""
        if not rows:
            return []
        texts = tokenizers.encode_examples(self._tokenizer, rows, self.max_length or 10**9)
        inputs = {name: torch.from_numpy(values).to(self._device) for name, values in padded(texts, self._pad).items()}
        return answers(self._model(**inputs).logits.float().cpu().numpy(), self.labels)


class TorchImages(Classifier):
    """A classifier of images."""

    kind = "torch"
    images = True
    max_length = None

    def __init__(self, model: nn.Module, folder: Path, key: str) -> None:
        processor = image_processors.load(folder)
        if processor is None:
            remedy = "Save the processor that it was trained with beside the weights."
            raise UserError.about(key, str(folder), f"a folder with {image_processors.FILE}", remedy)
        self._model, self._processor = model, processor
        self._channels = int(getattr(cast(Any, model).config, "num_channels", 3))
        self.labels = class_names(model)

    def warm(self) -> None:
        """Answer one picture."""
        from PIL import Image

        self.predict([Image.new("RGB", (32, 32))])

    def lengths(self, rows: Sequence[Row]) -> list[int]:
        """Zeros."""
        return [0] * len(rows)

    @torch.inference_mode()
    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answers to pictures, which become grey or coloured as the model has 1 or 3 channels."""
        if not rows:
            return []
        mode = "L" if self._channels == 1 else "RGB"
        pixels = np.stack([image_processors.pixels(self._processor, row.convert(mode)) for row in rows])
        device = next(self._model.parameters()).device
        return answers(self._model(pixel_values=torch.from_numpy(pixels).to(device)).logits.float().cpu().numpy(), self.labels)


class TorchLanguageModel(LanguageModel):
    """A language model whose answers join and leave one running batch.

    Args:
        model: A causal LM.
        tokenizer: Its own.
        max_length: Lowers its positions.
        batch: Most answers at once.
    """

    kind = "torch"

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int | None, batch: int) -> None:
        positions = positions_of(model)
        self.max_length = min((each for each in (positions, max_length) if each is not None), default=None)
        self._prompts = PromptEncoder(tokenizer)
        self.chat, self.vocabulary = self._prompts.chat, tokenizers.id_count(tokenizer)
        self._model, self._batch = model, ContinuousBatch(model, tokenizer, batch)

    def warm(self) -> None:
        """Write two tokens."""
        list(self.generate(self.ids(WARM_TEXT)[:8], GenerationSettings(max_tokens=2, temperature=0.0)))

    def close(self) -> None:
        """End the batch's thread; answers under way end as cancelled."""
        self._batch.close()

    def ids(self, prompt: str | Sequence[Message]) -> list[int]:
        """Ids of a text, or of a conversation."""
        return self._prompts.ids(prompt)

    @torch.inference_mode()
    def prompt_logprobs(self, prompt: Sequence[int], top: int) -> list[dict[int, float]]:
        """Log-probabilities at each id of a prompt after the first."""
        ids = torch.tensor([list(prompt)], device=next(self._model.parameters()).device)
        scores = cast(Any, self._model)(input_ids=ids[:, :-1]).logits[0, :, : self.vocabulary].float().log_softmax(-1)
        best, own = scores.topk(min(top, self.vocabulary)), scores.gather(-1, ids[0, 1:, None])
        listed = zip(torch.cat([own, best.values], 1).tolist(), torch.cat([ids[0, 1:, None], best.indices], 1).tolist(), strict=True)
        return [dict(zip(numbers, values, strict=True)) for values, numbers in listed]

    def generate(self, prompt: Sequence[int], settings: GenerationSettings, generation: Generation | None = None) -> Iterator[Token]:
        """Continue a prompt."""
        tokens, generation = TokenQueue(), generation or Generation()
        self._batch.submit(prompt, settings, tokens.put, generation)
        try:
            yield from tokens
        finally:
            generation.cancel()

    def start(self, prompt: Sequence[int], settings: GenerationSettings, emit: Callable[[Token | BaseException], None]) -> Generation:
        """Continue a prompt; `emit` is called by the thread of the batch, and must not block."""
        generation = Generation()
        self._batch.submit(prompt, settings, emit, generation)
        return generation

    def start_group(
        self, prompts: Sequence[Sequence[int]], settings: Sequence[GenerationSettings], emit: Callable[[int, Token | BaseException], None]
    ) -> Generation:
        """Continue prompts together, in batches that depend on this group alone if nothing else is written; `emit` gets the place, too."""
        generation = Generation()
        self._batch.submit_group(
            [(prompt, each, partial(emit, place), generation) for place, (prompt, each) in enumerate(zip(prompts, settings, strict=True))]
        )
        return generation
