"""The interface of engines: answers of a model, however it is run."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

EngineKind = Literal["torch", "onnx", "llamacpp"]
KINDS: tuple[EngineKind, ...] = ("torch", "onnx", "llamacpp")
Row = Any  # of a classifier: a text; of an image model: a PIL picture
Message = Mapping[str, str]  # of a conversation: role and content


@dataclass(frozen=True)
class Prediction:
    """A classifier's answer to one row.

    Attributes:
        label: The most probable class.
        probability: Its probability.
        probabilities: (K,) of all classes, in the order of `Classifier.labels`.
    """

    label: str
    probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of text generation by a language model.

    Attributes:
        max_tokens: Most tokens to write.
        temperature: Divisor of the logits; 0 takes the most probable token.
        top_p: Probability of the nucleus that is sampled from (Holtzman et al. 2020, arXiv:1904.09751).
        seed: Of the sampling; None: another one at every call.
        stop: Texts that end the answer and do not belong to it.
        top: How many of the most probable tokens are told with each token.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top: int = 0


@dataclass(frozen=True)
class Token:
    """One step of an answer.

    Attributes:
        text: What the answer grows by; empty while a letter, or what may become a stop text, is unfinished.
        token: The token itself as text.
        logprob: Its log-probability before temperature and nucleus, in nats; None where the engine does not tell.
        top: The most probable tokens with their log-probabilities, as many as were asked for.
        finish: Set on the last: `stop` after an end id or a stop text, `length` after the most tokens, `cancelled`.
    """

    text: str
    token: str
    logprob: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    finish: Literal["stop", "length", "cancelled"] | None = None


class Engine(ABC):
    """A loaded model.

    Attributes:
        kind: Which engine it is.
        max_length: Most ids of a text, or of prompt and answer together; None: no limit, as for images.
    """

    kind: EngineKind
    max_length: int | None

    @abstractmethod
    def warm(self) -> None:
        """Compute one answer, so that the first request finds everything allocated."""

    def close(self) -> None:  # noqa: B027  engines without threads or handles have nothing to close
        """Release memory and threads; answers under way end as cancelled."""


class Classifier(Engine):
    """A model of texts or of images that gives classes. Safe to use from one thread at a time.

    Attributes:
        labels: (K,) names of the classes.
        images: Whether rows are pictures.
    """

    labels: tuple[str, ...]
    images: bool

    @abstractmethod
    def lengths(self, rows: Sequence[Row]) -> list[int]:
        """Ids of each text, uncut; 0 for images."""

    @abstractmethod
    def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answers to rows as one batch; texts longer than `max_length` are cut as in training."""


class Generation:
    """A running answer, which may be cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """End it soon; its last token says `cancelled`. Does nothing where it has ended."""
        self.cancelled.set()


class LanguageModel(Engine):
    """A model that continues prompts. Safe to use from several threads at once.

    Attributes:
        chat: Whether its tokenizer has a chat template.
        vocabulary: Ids that a prompt may have: 0 to below this.
    """

    chat: bool
    vocabulary: int

    @abstractmethod
    def ids(self, prompt: str | Sequence[Message]) -> list[int]:
        """Ids of a text, with those that begin one, or of a conversation whose answer is asked for.

        Raises:
            UserError: The template refuses the conversation, or there is none.
        """

    @abstractmethod
    def generate(self, prompt: Sequence[int], settings: GenerationSettings, generation: Generation | None = None) -> Iterator[Token]:
        """Continue a prompt of `ids`; closing the iterator, or cancelling `generation`, ends the work.

        Raises:
            LadderError: The engine failed.
        """

    def prompt_logprobs(self, prompt: Sequence[int], top: int) -> list[dict[int, float]] | None:
        """Log-probabilities of the most probable ids, and of its own, at each id of a prompt after the first; None: it tells none."""
        return None

    def start(self, prompt: Sequence[int], settings: GenerationSettings, emit: Callable[[Token | BaseException], None]) -> Generation:
        """Continue a prompt in the background: `emit` gets every token, or the error that ended it, from another thread."""
        generation = Generation()

        def run() -> None:
            try:
                for token in self.generate(prompt, settings, generation):
                    emit(token)
            except Exception as error:  # noqa: BLE001  handed to the reader, who raises it
                emit(error)

        threading.Thread(target=run, name="answer", daemon=True).start()
        return generation


class TokenQueue:
    """Turns the calls of `LanguageModel.start` into an iterator."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Token | BaseException] = queue.SimpleQueue()

    def put(self, item: Token | BaseException) -> None:
        """Take a token or the error that ended the answer."""
        self._queue.put(item)

    def __iter__(self) -> Iterator[Token]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if item.finish:
                return
