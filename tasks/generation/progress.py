"""Progress of writing: a bar on a terminal, lines in a log, data for Prefect."""

from __future__ import annotations

import time

from models.generation.writers import WrittenAnswer
from tasks.records.format import estimate, rate
from tasks.runtime.logs import NOT_ON_TERMINAL, log
from tasks.runtime.progress import LINE_SECONDS, ShownProgress


class WritingProgress(ShownProgress):
    """Shows answers and tokens a second; a context manager.

    Args:
        answers: That will be written.
        teacher: Name of the model that writes.
    """

    def __init__(self, answers: int, teacher: str) -> None:
        super().__init__("generate", answers)
        self.teacher, self.tokens, self.done = teacher, 0, 0

    def add(self, answer: WrittenAnswer) -> None:
        """Show one more answer."""
        self.done += 1
        self.tokens += answer.written
        moment = time.monotonic()
        figures = f"{rate(self.tokens / max(moment - self.began, 1e-9))} tokens/s"
        self.show(self.done, figures, f"answer {self.done} of {self.steps}, {figures}")
        if self.done == self.steps or moment - self.last_line >= LINE_SECONDS:
            self.last_line = moment
            left = estimate((self.steps - self.done) * (moment - self.began) / self.done)
            text = "generate: %s, answer %d/%d, %s, %s left"
            log.info(text, self.teacher, self.done, self.steps, figures, left, extra=NOT_ON_TERMINAL if self.bar else None)
