"""The model that answers, and its exchange while requests are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.model_server.batching import RowBatcher
from flows.model_server.metrics import Metrics
from models.engines.base import Classifier, EngineKind, LanguageModel
from models.engines.load import load_engine
from tasks.runtime.logs import log


@dataclass(frozen=True)
class ModelSource:
    """A model before it is loaded.

    Attributes:
        name: The registered model.
        label: `NAME/VERSION`, or `RUN:STAGE`.
        place: Hugging Face folder, or the file or folder of an export.
        workload: Task of the model.
        kind: Its engine.
        aliases: Names beside `name` and `label` under which clients may ask for it.
        created: Time of its registration, in seconds since 1970.
    """

    name: str
    label: str
    place: Path
    workload: str
    kind: EngineKind = "torch"
    aliases: tuple[str, ...] = ()
    created: int = 0


class LiveModel:
    """A loaded and warmed model with the number of requests that use it.

    Args:
        source: Where it comes from.
        engine: Ready to answer.
        batcher: Of a classifier's rows; None: a language model, which batches itself.
    """

    def __init__(self, source: ModelSource, engine: Classifier | LanguageModel, batcher: RowBatcher | None) -> None:
        self.source, self.engine, self.batcher = source, engine, batcher
        self.users, self.retired = 0, False

    def close(self) -> None:
        """Release threads and memory."""
        if self.batcher is not None:
            self.batcher.close()
        self.engine.close()


Load = Callable[[ModelSource], LiveModel]


def loader(metrics: Metrics, batch: int, max_length: int | None) -> Load:
    """A function that loads a model and lets it answer once.

    Args:
        metrics: Told of batches.
        batch: Most rows or answers at once.
        max_length: As of `load_engine`.
    """

    def load(source: ModelSource) -> LiveModel:
        engine = load_engine(source.place, source.workload, source.kind, max_length=max_length, batch=batch, key="MODEL")
        try:
            engine.warm()
        except BaseException:
            engine.close()
            raise
        return LiveModel(source, engine, RowBatcher(engine, batch, metrics) if isinstance(engine, Classifier) else None)

    return load


class Serving:
    """The model that answers now. Used by the event loop alone.

    Args:
        first: The first one.
        metrics: Told which one answers.
    """

    def __init__(self, first: LiveModel, metrics: Metrics) -> None:
        self.current, self._metrics = first, metrics
        metrics.serves(first.source.label)

    @contextmanager
    def lease(self) -> Iterator[LiveModel]:
        """The model for one request, which keeps it to its end whatever is switched to in between."""
        loaded = self.current
        loaded.users += 1
        try:
            yield loaded
        finally:
            loaded.users -= 1
            self._close_unused(loaded)

    def switch(self, new: LiveModel) -> None:
        """Let another model answer from now on; the old one is closed after its last request."""
        old, self.current = self.current, new
        old.retired = True
        self._metrics.serves(new.source.label)
        log.info("%s answers now, in place of %s", new.source.label, old.source.label)
        self._close_unused(old)

    def _close_unused(self, loaded: LiveModel) -> None:
        if loaded.retired and not loaded.users:
            loaded.retired = False  # closed once
            asyncio.get_running_loop().run_in_executor(None, loaded.close)
