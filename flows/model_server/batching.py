"""Dynamic batching of a classifier's rows, and the bound on what may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from flows.model_server.metrics import Metrics
from flows.model_server.refusals import Refused
from models.engines.base import Classifier, Prediction, Row

RETRY_SECONDS = 1


class Admission:
    """Bounds the rows or answers that wait or are computed; used by the event loop alone.

    Args:
        most: So many at once.
        metrics: Told how many there are.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.most, self._metrics, self._count = most, metrics, 0

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        """Room for so many.

        Raises:
            Refused: 429 where there is none now, 413 where there never is.
        """
        if count > self.most:
            raise Refused.about("inputs", f"{count} of them", f"at most {self.most} at once", "Send fewer in one request.", status=413)
        if self._count + count > self.most:
            raise Refused(
                429, f"{self._count} requests wait or are computed; allowed: {self.most}. Try again.", None, "queue_full", RETRY_SECONDS
            )
        self._change(count)
        try:
            yield
        finally:
            self._change(-count)

    def _change(self, count: int) -> None:
        self._count += count
        self._metrics.in_flight.set(self._count)


class RowBatcher:
    """Answers rows of several requests together: while one batch is computed, the next gathers.

    Nothing waits for a batch to fill: a single row on an idle server is computed at once.

    Args:
        engine: The model; used by one thread alone.
        most: Most rows of a batch.
        metrics: Told the rows of every batch.
    """

    def __init__(self, engine: Classifier, most: int, metrics: Metrics) -> None:
        self._engine, self._most, self._metrics = engine, most, metrics
        self._waiting: list[tuple[Row, asyncio.Future[Prediction]]] = []
        self._thread = ThreadPoolExecutor(1, "rows")
        self._task: asyncio.Task[None] | None = None

    async def predict(self, rows: Sequence[Row]) -> list[Prediction]:
        """Answers to the rows of one request.

        Raises:
            Exception: What the model raised for the batch that a row was in, where it raises it for these rows alone, too.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in rows]
        self._waiting.extend(zip(rows, futures, strict=True))
        if self._task is None:
            self._task = loop.create_task(self._run())
        done = await asyncio.gather(*futures, return_exceptions=True)
        if not any(isinstance(each, BaseException) for each in done):
            return [each for each in done if isinstance(each, Prediction)]
        # Rows of another request may be at fault: these alone decide.
        return await loop.run_in_executor(self._thread, self._engine.predict, rows)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [item for item in self._waiting[: self._most] if not item[1].cancelled()]
            del self._waiting[: self._most]
            if not batch:
                continue
            self._metrics.batch_rows.observe(len(batch))
            try:
                answers = await loop.run_in_executor(self._thread, self._engine.predict, [row for row, _ in batch])
            except Exception as error:  # noqa: BLE001  handed to every request of the batch
                for _, future in batch:
                    if not future.cancelled():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.cancelled():
                    future.set_result(answer)
        self._task = None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)
