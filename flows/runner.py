"""The process of `ladder serve` that registers the deployments and runs their flow runs, each in a process of its own.

Apart from `ladder serve` itself, so that Ctrl-C at a terminal reaches no training, and so that whatever ends `ladder serve`, this process
sees it and has the trainings write their checkpoints.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.runner import Runner

from conf.deployments import Deployments, load_deployments
from conf.errors import LadderError, UserError
from conf.home import Home, home
from flows.deployments import apply_schedules, build, check
from flows.environment import answers
from flows.guard import end_with_parent
from tasks.console import log
from tasks.reap import reap, restart

POLL_SECONDS = 2.0
REAP_SECONDS = 15.0
PATIENCE_SECONDS = 12.0  # for the runs to write their checkpoints, when this process is to end


class _Runner(Runner):
    """Prefect's runner, but one that ends all runs at once: its own ends one after the other, each with half a minute of patience."""

    async def cancel_all(self) -> None:
        await asyncio.gather(*(self._end(run) for run in self._process_manager.flow_run_ids()))

    async def _end(self, run: UUID) -> None:
        try:
            await self._cancel_run(run, "`ladder serve` has ended.")
        except httpx.HTTPError:  # the server is away; the run writes its checkpoint all the same
            if process := self._process_manager.get(run):
                process.graceful_kill()


async def run(deployments: Deployments, place: Home, ready: Callable[[], object]) -> None:
    """Register the deployments and start what is due, until a SIGTERM."""
    runner = _Runner("ladder", query_seconds=POLL_SECONDS, limit=deployments.limit, pause_on_shutdown=False)
    ending = asyncio.Event()
    async with get_client() as client:
        for offered in deployments.deployments:
            known = await runner.aadd_deployment(build(offered))
            await apply_schedules(place, client, known, offered)
    async with runner:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
        ready()
        while not ending.is_set():
            # Not `runner.start`, which gives up, and ends all that runs, after a few questions that a server left unanswered.
            try:
                await runner._get_and_submit_flow_runs()
            except (httpx.HTTPError, PrefectException) as error:
                log.warning("Prefect's server does not answer: %s", error or type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), POLL_SECONDS)
        runner.stopping = True
        await runner.cancel_all()


def keep_house(place: Home) -> None:
    """Find the runs that have died, again and again, and restart those that may be."""
    while True:
        try:
            for record in reap(place):
                restart(record)
        except (LadderError, OSError) as error:  # such as a full disk: the next time may go well
            log.warning("%s", error)
        time.sleep(REAP_SECONDS)


def wait_for_server(api: str) -> None:
    """Wait until Prefect's API answers; whoever started this process ends it when that takes too long."""
    while not answers(f"{api}/health", POLL_SECONDS):
        time.sleep(0.2)


def main(deployments_file: str, api: str, report: str) -> None:
    """Run until standard input ends; `report` is where to say that all is ready, or what the user got wrong."""
    threading.Thread(target=end_with_parent, args=(PATIENCE_SECONDS,), daemon=True).start()

    def tell(text: str) -> None:
        aside = Path(f"{report}.writing")
        aside.write_text(text)
        aside.replace(report)

    try:
        deployments = load_deployments(Path(deployments_file) if deployments_file else None)
        check(deployments)
        wait_for_server(api)
        threading.Thread(target=keep_house, args=(home(),), daemon=True).start()
        asyncio.run(run(deployments, home(), lambda: tell("ready")))
    except UserError as error:
        tell(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
