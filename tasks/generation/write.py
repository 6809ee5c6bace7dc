"""Write the answers that a spool lacks, in one process or shared among workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conf.home import disk_errors
from conf.schema.generate import Generate
from models.base.device import resolve_device, use_threads
from models.engines.base import GenerationSettings
from models.generation.writers import BATCHES_A_PART, Ask, EndpointWriter, Writer, WrittenAnswer
from tasks.data.reading.conversations import columns_of
from tasks.generation.progress import WritingProgress
from tasks.generation.spool import AnswerSpool, part_writer, write_part
from tasks.records.run import StageRecord
from tasks.runtime import cancellation
from tasks.runtime.logs import log
from tasks.runtime.shares import Share, in_shares, shares_of
from tasks.runtime.stage_inputs import StageInputs


class _Keeping:
    """Keeps answers in the spool, and shows them."""

    def __init__(self, spool: AnswerSpool, progress: WritingProgress, paid: bool) -> None:
        self._spool, self._progress, self._paid, self._last = spool, progress, paid, time.monotonic()

    def _seconds(self) -> float:
        """Seconds since the last call."""
        before, self._last = self._last, time.monotonic()
        return self._last - before

    def add(self, ask: Ask, answer: WrittenAnswer) -> None:
        """Add an answer to the spool; it counts as kept after `sync`, one that was paid at once."""
        if ask.key not in self._spool.answers:
            self._spool.add(ask.key, answer)
            self._progress.add(answer)
            if self._paid:
                self.sync()

    def sync(self) -> None:
        """Keep what was added."""
        self._spool.sync(self._seconds())

    def take(self) -> None:
        """Keep the parts that other processes have finished."""
        if self._spool.parts:
            for answer in self._spool.take_parts(self._seconds()):
                self._progress.add(answer)


def write_missing(settings: Generate, asks: Sequence[Ask], root: StageRecord, inputs: StageInputs, spool: AnswerSpool, before: bool) -> int:
    """Write the answers that the spool lacks; a part of a model's answers whole, as it then has the same texts whoever writes it.

    Args:
        settings: Of the writing.
        asks: All answers that are wanted.
        root: The teacher, unless an endpoint writes.
        inputs: Of all stages.
        spool: The spool, open.
        before: Whether the store has answers of this writer.

    Returns:
        How often an endpoint had to be asked again.

    Raises:
        LadderError: As the writer, or a worker died; finished parts are kept.
        RunCancelled: The run was asked to stop.
    """
    missing = sum(ask.key not in spool.answers for ask in asks)
    with (
        cancellation.training("data.generate"),
        WritingProgress(missing, settings.endpoint.model if settings.endpoint else root.name) as progress,
    ):
        keeping = _Keeping(spool, progress, paid=settings.endpoint is not None)
        if settings.endpoint is None:
            parts = _lacking(asks, BATCHES_A_PART * settings.batch_size, spool)
            count = shares_of(inputs.ladder.compute, len(parts))
            if count > 1:
                in_shares(write_share, inputs, count, settings, root, parts, spool.folder, work="generation", on_poll=keeping.take)
                return 0
        with writer_of(settings, root, inputs) as writer:
            if isinstance(writer, EndpointWriter) and (before or any(each.finish != "refused" for each in spool.answers.values())):
                writer.has_answered()
            for part in _lacking(asks, writer.part, spool):
                lacking = [ask for ask in part if ask.key not in spool.answers]
                writer.write(part if writer.whole else lacking, keeping.add, cancellation.requested)
                keeping.sync()
            return writer.client.usage.retries if isinstance(writer, EndpointWriter) else 0


def _lacking(asks: Sequence[Ask], size: int, spool: AnswerSpool) -> list[Sequence[Ask]]:
    """The parts of which the spool lacks an answer."""
    parts = [asks[first : first + size] for first in range(0, len(asks), size)]
    return [part for part in parts if any(ask.key not in spool.answers for ask in part)]


def write_share(
    inputs: StageInputs, settings: Generate, root: StageRecord, parts: Sequence[Sequence[Ask]], folder: Path, share: Share
) -> None:
    """Write one share of the parts, for the spool in a folder."""
    with part_writer(folder, share.number), disk_errors(inputs.context.paths), writer_of(settings, root, inputs) as writer:
        for number, part in share.of(enumerate(parts), len(parts)):
            write_part(folder, number, _written(writer, part))


def _written(writer: Writer, part: Sequence[Ask]) -> list[tuple[str, WrittenAnswer]]:
    answers = list[tuple[str, WrittenAnswer]]()

    def emit(ask: Ask, answer: WrittenAnswer) -> None:
        answers.append((ask.key, answer))

    writer.write(part, emit, lambda: False)
    return answers


@contextmanager
def writer_of(settings: Generate, root: StageRecord, inputs: StageInputs) -> Iterator[Writer]:
    """The writer that the settings ask for, closed at the end."""
    options = GenerationSettings(settings.max_tokens, settings.temperature, settings.top_p, None, settings.stop)
    if settings.endpoint is not None:
        from models.generation.endpoint import EndpointClient

        writer: Writer = EndpointWriter(EndpointClient(settings.endpoint, on_retry=lambda line: log.warning("generate: %s", line)), options)
    else:
        writer = _model_writer(Path(root.folder), options, settings.batch_size, inputs)
    try:
        yield writer
    finally:
        writer.close()


def _model_writer(folder: Path, options: GenerationSettings, batch: int, inputs: StageInputs) -> Writer:
    """A writer of a model of this ladder, with its own tokenizer or else that of the data."""
    from models.architectures.checkpoint import load_model
    from models.data import tokenizers
    from models.engines.torch_engine import TorchLanguageModel
    from models.generation.writers import ModelWriter

    use_threads(inputs.ladder)
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    place = folder if own else inputs.data.corpus().tokenizer_folder
    assert place is not None
    model = load_model(folder, "causal-lm").to(resolve_device(inputs.ladder.compute.device)).eval().requires_grad_(False)
    engine = TorchLanguageModel(model, tokenizers.load_teacher(place), None, batch)
    return ModelWriter(engine, options, batch, asks_in_messages(inputs) and engine.chat)


def asks_in_messages(inputs: StageInputs) -> bool:
    """Whether prompts are messages: the documents are conversations, and no setting has them concatenated."""
    return columns_of(inputs.ladder.data).conversations and inputs.ladder.tokenizer.chat_template != "none"
