"""Engine of ONNX Runtime: classifiers and language models without torch.

Shape legend: B rows, L ids, V ids of the vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from models.data import image_processors, tokenizers
from models.engines.base import Classifier, Generation, GenerationSettings, LanguageModel, Message, Prediction, Row, Token
from models.engines.onnx_graph import OnnxGraph
from models.engines.prompts import PromptEncoder
from models.engines.rows import answers, length_of, padded
from models.engines.text import GrowingText

WARM_TEXT = "a b c"


def load_onnx(folder: Path, workload: str, *, max_length: int | None = None, key: str = "model") -> Classifier | LanguageModel:
    """Load an export of `ladder export --format onnx`, or onnx-int8.

    Raises:
        UserError: It is none, lacks its tokenizer or image processor, or ONNX Runtime is not installed.
    """
    graph = OnnxGraph(folder, key=key)
    if workload == "image-classification":
        return OnnxImages(graph, folder, key)
    if workload == "causal-lm":
        return OnnxLanguageModel(graph, folder, max_length)
    return OnnxTexts(graph, folder, max_length)


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    names: dict[str, str] = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers leaves its default unwritten
    return tuple(str(names[index]) for index in sorted(names, key=int))


def _positions(config: dict[str, Any]) -> int | None:
    found = [config[name] for name in ("max_position_embeddings", "n_positions") if isinstance(config.get(name), int)]
    return min(found, default=None)


class OnnxTexts(Classifier):
    """A classifier of texts."""

    kind = "onnx"
    images = False

    def __init__(self, graph: OnnxGraph, folder: Path, max_length: int | None) -> None:
        self._graph, self._tokenizer = graph, tokenizers.load_teacher(folder)
        self.labels = _labels(graph.config)
        self.max_length = length_of(_positions(graph.config), self._tokenizer, max_length)
        self._around = sum(map(len, tokenizers.surroundings(self._tokenizer)))
        self._pad = tokenizers.special_ids(self._tokenizer)[1]

    def warm(self) -> None:
        """Prediction one text."""
        self.predict([WARM_TEXT])

    def lengths(self, rows: Sequence[Row]) -> list[int]:
        """Ids of each text, uncut."""
        return [len(ids) + self._around for ids in tokenizers.encode(self._tokenizer, rows)]

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answers to texts."""
        if not rows:
            return []
        texts = tokenizers.encode_examples(self._tokenizer, rows, self.max_length or 10**9)
        return answers(self._graph.logits(padded(texts, self._pad)), self.labels)


class OnnxImages(Classifier):
    """A classifier of images."""

    kind = "onnx"
    images = True
    max_length = None

    def __init__(self, graph: OnnxGraph, folder: Path, key: str) -> None:
        processor = image_processors.load(folder)
        if processor is None:
            remedy = "Save the processor that it was trained with beside the weights."
            raise UserError.about(key, str(folder), f"a folder with {image_processors.FILE}", remedy)
        self._graph, self._processor = graph, processor
        self._mode = "L" if graph.config.get("num_channels", 3) == 1 else "RGB"
        self.labels = _labels(graph.config)

    def warm(self) -> None:
        """Prediction one picture."""
        from PIL import Image

        self.predict([Image.new("RGB", (32, 32))])

    def lengths(self, rows: Sequence[Row]) -> list[int]:
        """Zeros."""
        return [0] * len(rows)

    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answers to pictures, which become grey or coloured as the model has 1 or 3 channels."""
        if not rows:
            return []
        pixels = np.stack([image_processors.pixels(self._processor, row.convert(self._mode)) for row in rows])
        return answers(self._graph.logits({"pixel_values": pixels}), self.labels)


class OnnxLanguageModel(LanguageModel):
    """A language model with its cache of keys and values; answers take turns, token by token."""

    kind = "onnx"

    def __init__(self, graph: OnnxGraph, folder: Path, max_length: int | None) -> None:
        self._graph, self._tokenizer = graph, tokenizers.load_teacher(folder)
        self._prompts = PromptEncoder(self._tokenizer)
        self.chat, self.vocabulary = self._prompts.chat, tokenizers.id_count(self._tokenizer)
        self.max_length = min((each for each in (_positions(graph.config), max_length) if each is not None), default=None)
        self._ends = {tokenizers.special_ids(self._tokenizer)[0]}
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Write two tokens."""
        list(self.generate(self.ids(WARM_TEXT)[:8], GenerationSettings(max_tokens=2, temperature=0.0)))

    def ids(self, prompt: str | Sequence[Message]) -> list[int]:
        """Ids of a text, or of a conversation."""
        return self._prompts.ids(prompt)

    def generate(self, prompt: Sequence[int], settings: GenerationSettings, generation: Generation | None = None) -> Iterator[Token]:
        """Continue a prompt."""
        generation, text = generation or Generation(), GrowingText(self._tokenizer, settings.stop)
        random, past = np.random.default_rng(settings.seed), self._graph.empty_past(1)
        ids = np.asarray([list(prompt)], dtype=np.int64)
        for written in range(1, settings.max_tokens + 1):
            if generation.cancelled.is_set():
                yield Token("", "", finish="cancelled")
                return
            with self._lock:
                logits, past = self._graph.step(ids, past)
            log_p = _log_softmax(logits[0, -1, : self.vocabulary])
            chosen = choose(log_p, settings, random)
            ended = chosen in self._ends
            new = "" if ended else text.add(chosen)
            finish = "stop" if ended or text.stopped else "length" if written == settings.max_tokens else None
            top = np.argsort(-log_p, kind="stable")[: settings.top] if settings.top else ()
            told = tuple((self._word(int(token)), float(log_p[token])) for token in top)
            yield Token(new + (text.end() if finish else ""), self._word(chosen), float(log_p[chosen]), told, finish)
            if finish:
                return
            ids = np.asarray([[chosen]], dtype=np.int64)

    def _word(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))


def choose(log_p: NDArray[np.float64], settings: GenerationSettings, random: np.random.Generator) -> int:
    """The most probable id, or a draw from the nucleus, by (V,) log-probabilities."""
    if settings.temperature == 0:
        return int(log_p.argmax())
    p = np.exp(_log_softmax(log_p / settings.temperature))
    if settings.top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]  # of those that are more probable; the first is always kept
        p[order[before >= settings.top_p]] = 0.0
    return int(random.choice(len(p), p=p / p.sum()))


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return wide - np.log(np.exp(wide).sum())
