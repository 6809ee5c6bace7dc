"""Progress of a search: a bar on a terminal, an artifact in Prefect."""

from __future__ import annotations

import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext
from rich.progress_bar import ProgressBar
from rich.table import Table

from tasks.planning.budget import parse_budget
from tasks.records.format import estimate
from tasks.records.routes.search import SearchRecord
from tasks.runtime.logs import console, log
from tasks.runtime.prefect_client import AWAY
from tasks.search.plan import SearchPlan
from tasks.search.words import scored


class SearchProgress:
    """Shows how many trials have ended, the best score, and the time left; between trainings, which have bars of their own."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan, self.began, self.first = plan, time.monotonic(), -1
        self.artifact: UUID | None = None

    def show(self, record: SearchRecord, spent: float) -> None:
        """Show a search as far as it got."""
        ended = sum(trial.state in ("complete", "pruned") for trial in record.trials)
        self.first = ended if self.first < 0 else self.first
        share, words = self._share(record, ended, spent), f"{ended} of {record.wanted} trials" if record.wanted else f"{ended} trials"
        if record.best is not None and record.best.score is not None:
            words += f", best {scored(record, record.best.score)} (trial {record.best.number})"
        elif record.defaults is not None and record.defaults.score is not None:
            words += f", none better than the defaults' {scored(record, record.defaults.score)}"
        made = ended - self.first
        if made and record.wanted and record.wanted > ended:
            words += f", {estimate((record.wanted - ended) * (time.monotonic() - self.began) / made)} left"
        if console.is_terminal:
            line = Table.grid(padding=(0, 1))
            line.add_row("trials", ProgressBar(100, 100 * share, width=24), words)
            console.print(line)
        self._show_in_prefect(100 * share, f"{record.study}: {words}")

    def _share(self, record: SearchRecord, ended: int, spent: float) -> float:
        shares = [ended / record.wanted] if record.wanted else []
        shares += [spent / parse_budget(record.budget)] if record.budget else []
        return min(1.0, max(shares, default=0.0))

    def _show_in_prefect(self, percent: float, words: str) -> None:
        if FlowRunContext.get() is None:
            return
        try:
            if self.artifact is None:
                self.artifact = create_progress_artifact(percent, key="ladder-search", description=words)  # pyright: ignore[reportAttributeAccessIssue]
            else:
                update_progress_artifact(self.artifact, percent, description=words)
        except AWAY as error:  # the next one may go well
            log.debug("Prefect's server does not answer: %s", error)
