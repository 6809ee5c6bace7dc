"""Writers of answers to prompts: a model of this machine, or an endpoint."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from conf.errors import RunCancelled
from models.engines.base import GenerationSettings, Message, Token
from models.generation.endpoint import EndpointClient, RequestRefused, text_of, tokens_of

if TYPE_CHECKING:
    from models.engines.torch_engine import TorchLanguageModel

POLL_SECONDS = 0.2  # between looks whether the run shall stop
BATCHES_A_PART = 4  # of a model of this machine; the answers of an unfinished part are written anew after an interruption
REFUSALS = 3  # first answers of an endpoint that are refusals, after which the settings are taken for wrong
Finish = Literal["stop", "length", "refused"]


@dataclass(frozen=True)
class Ask:
    """One answer that is wanted.

    Attributes:
        key: Its name, which no other has.
        prompt: The text.
        seed: Of its draws.
    """

    key: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class WrittenAnswer:
    """One answer.

    Attributes:
        text: Without prompt and stop text.
        finish: `stop`: it ended by itself; `length`: it was cut; `refused`: the writer takes no such prompt.
        read: Tokens of the prompt, as the writer counts them.
        written: Tokens of the answer.
        logprob: Mean log-probability of these, in nats; None where the writer does not tell.
    """

    text: str
    finish: Finish
    read: int = 0
    written: int = 0
    logprob: float | None = None


Emit = Callable[[Ask, WrittenAnswer], None]
ShouldStop = Callable[[], bool]


class Writer(ABC):
    """Writes answers.

    Attributes:
        part: Answers that are asked for at once.
        whole: Whether a part must be asked for as a whole to give the same texts again.
    """

    part: int
    whole: bool

    @abstractmethod
    def write(self, asks: Sequence[Ask], emit: Emit, should_stop: ShouldStop) -> None:
        """Write answers, and hand each over once it counts as written, from this thread.

        Raises:
            RunCancelled: `should_stop` said so.
        """

    def close(self) -> None:  # noqa: B027  a writer without threads has nothing to close
        """Release threads and memory."""


class ModelWriter(Writer):
    """A language model of this machine: batches with a KV cache, prompts padded on the left, a random generator for each answer.

    The batches of a part depend on the part alone, so the same part gives the same texts, to the last letter.

    Args:
        model: The engine; nothing else may use it meanwhile.
        settings: Of all answers but for the seed.
        batch: Answers at once.
        chat: Prompts are messages of a person.
    """

    whole = True

    def __init__(self, model: TorchLanguageModel, settings: GenerationSettings, batch: int, chat: bool) -> None:
        self._model, self._settings, self._chat = model, settings, chat
        self.part = BATCHES_A_PART * batch

    def write(self, asks: Sequence[Ask], emit: Emit, should_stop: ShouldStop) -> None:
        """Write a part, and hand it over at its end; a prompt that leaves no room for an answer is refused."""
        ids = [self._ids(ask.prompt) for ask in asks]
        most = self._model.max_length
        rooms = [self._settings.max_tokens if most is None else min(self._settings.max_tokens, most - len(each)) for each in ids]
        order = sorted((place for place, room in enumerate(rooms) if room > 0), key=lambda place: len(ids[place]))  # little padding
        settings = [replace(self._settings, max_tokens=rooms[place], seed=asks[place].seed) for place in order]
        items: queue.SimpleQueue[tuple[int, Token | BaseException]] = queue.SimpleQueue()
        tokens: list[list[Token]] = [[] for _ in order]
        generation = self._model.start_group([ids[place] for place in order], settings, lambda place, item: items.put((place, item)))
        left = len(order)
        try:
            while left:
                if should_stop():
                    raise RunCancelled("cancelled")
                try:
                    place, item = items.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(item, BaseException):
                    raise item
                tokens[place].append(item)
                left -= item.finish is not None
        finally:
            generation.cancel()
        answers = {place: _answer(written, len(ids[place])) for place, written in zip(order, tokens, strict=True)}
        for place, ask in enumerate(asks):
            emit(ask, answers.get(place) or WrittenAnswer("", "refused", len(ids[place])))

    def _ids(self, prompt: str) -> list[int]:
        messages: list[Message] = [{"role": "user", "content": prompt}]
        return self._model.ids(messages if self._chat else prompt)

    def close(self) -> None:
        """End the engine's thread."""
        self._model.close()


def _answer(tokens: Sequence[Token], read: int) -> WrittenAnswer:
    known = [token.logprob for token in tokens if token.logprob is not None]
    return WrittenAnswer(
        "".join(token.text for token in tokens),
        "length" if tokens[-1].finish == "length" else "stop",
        read,
        len(tokens),
        sum(known) / len(known) if known else None,
    )


class EndpointWriter(Writer):
    """A model behind OpenAI's API; each answer is handed over when it arrives, as it was paid for.

    Args:
        client: Of the endpoint.
        settings: Of all answers but for the seed.
    """

    whole = False

    def __init__(self, client: EndpointClient, settings: GenerationSettings) -> None:
        self.client, self._settings = client, settings
        self.part = 16 * client.endpoint.concurrency
        self._answered = threading.Event()

    def has_answered(self) -> None:
        """Note that it answered before: a prompt that it refuses is then an answer."""
        self._answered.set()

    def write(self, asks: Sequence[Ask], emit: Emit, should_stop: ShouldStop) -> None:
        """Ask for answers, several at once.

        A refused prompt is an answer once another one was answered: until then the settings may be wrong.

        Raises:
            TransientError: The endpoint gave no answer after all tries; those that arrived were handed over.
            UserError: It refuses the key, the address, the model, or every prompt.
        """
        waiting, running = list(reversed(asks)), dict[Future[WrittenAnswer], Ask]()
        pool = ThreadPoolExecutor(self.client.endpoint.concurrency, thread_name_prefix="endpoint")
        failed: BaseException | None = None
        refused: list[tuple[Ask, RequestRefused]] = []
        try:
            while running or (waiting and failed is None):
                while waiting and failed is None and len(running) < self.client.endpoint.concurrency:
                    ask = waiting.pop()
                    running[pool.submit(self._ask, ask)] = ask
                if should_stop():
                    raise RunCancelled("cancelled")
                done, _ = wait(running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    ask, error = running.pop(future), future.exception()
                    if error is None:
                        self._answered.set()
                        emit(ask, future.result())
                    elif isinstance(error, RequestRefused):
                        refused.append((ask, error))
                    else:  # requests under way are paid, so their answers are kept
                        failed = failed or error
                if refused and self._answered.is_set():
                    for ask, _ in refused:
                        emit(ask, WrittenAnswer("", "refused"))
                    refused.clear()
                elif len(refused) >= max(self.client.endpoint.concurrency, REFUSALS):
                    failed = failed or refused[0][1]
            if failed or refused:
                raise failed or refused[0][1]
        finally:
            if running:
                self.client.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self, ask: Ask) -> WrittenAnswer:
        settings = self._settings
        body: dict[str, object] = {"max_tokens": settings.max_tokens, "temperature": settings.temperature, "seed": ask.seed}
        if settings.top_p < 1:
            body["top_p"] = settings.top_p
        if settings.stop:
            body["stop"] = list(settings.stop)
        chat = self.client.endpoint.api == "chat"
        content: dict[str, object] = {"messages": [{"role": "user", "content": ask.prompt}]} if chat else {"prompt": ask.prompt}
        found = self.client.ask({**content, **body}, once=ask.key)
        text, finish = text_of(found)
        read, written = tokens_of(found)
        return WrittenAnswer(text, "length" if finish == "length" else "stop", read or 0, written or 0)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
