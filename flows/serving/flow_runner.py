"""Process of `ladder serve` that registers the deployments and starts flow runs.

Separate from `ladder serve`, so that Ctrl-C at a terminal reaches no training, and so that this process can have the trainings write
their checkpoints however `ladder serve` ends. When this process dies its runs continue; its replacement leaves them alone, since their
locks show that they are alive, and ends them with its own.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import httpx
import psutil
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.runner._flow_run_executor import ProcessStarter
from prefect.runner._process_manager import ProcessHandle
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.states import Failed

from conf.atomic import write_atomic
from conf.errors import LadderError, UserError
from conf.home import Home, home
from conf.loading.deployments import Deployments, load_deployments
from flows.serving.deployments import apply_schedules, build, check, flow_of, require_unchanged, restore
from flows.serving.drift import offer_automation
from flows.serving.environment import answers
from flows.serving.guard.parent_watchdog import end_with_parent
from tasks.lifecycle.dead_runs import reap, restart_dead
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import list_runs

POLL_SECONDS = 2.0
REAP_SECONDS = 15.0
waiting: set[str] = set()  # runs that wait for a person: they hold no place
PATIENCE_SECONDS = 12.0  # for the runs to write their checkpoints when this process ends


class _Starter:
    """Starts the registered flow of a deployment, whatever code the server names."""

    def __init__(self, engine: EngineCommandStarter, made: RunnerDeployment) -> None:
        self.engine, self.made = engine, made

    async def start(self, flow_run: FlowRun, task_status: TaskStatus[ProcessHandle] = TASK_STATUS_IGNORED) -> None:
        """Start the run, or fail it with the reason where its deployment was changed to run other code."""
        assert flow_run.deployment_id
        engine = self.engine
        async with get_client() as client:
            try:
                require_unchanged(await client.read_deployment(flow_run.deployment_id), self.made)
            except LadderError as error:
                log.error("%s", error)
                await client.set_flow_run_state(flow_run.id, Failed(message=str(error)), force=True)
                engine = EngineCommandStarter(command="true")  # the runner waits for a process; an exception would hide the reason
        await engine.start(flow_run, task_status)


class _Runner(Runner):
    """Prefect's runner; its runs outlive it, are cancelled concurrently, and keep their registered code.

    Prefect's own cancels them one after the other, each with a timeout of half a minute; and its runs print into a pipe, and die with its
    reader. It also runs whatever the server names as a deployment's steps, folder and module.
    """

    def start_only(self, registered: Mapping[UUID, RunnerDeployment], journal: str) -> None:
        """Start the runs of these deployments alone from now on, with their output in a file."""
        engine = shlex.join([sys.executable, "-m", "prefect.engine"])
        command = shlex.join(["sh", "-c", f"exec {engine} >>{shlex.quote(journal)} 2>&1"])

        def starter_of(flow_run: FlowRun) -> ProcessStarter:
            made = registered.get(flow_run.deployment_id) if flow_run.deployment_id else None
            if made is None:
                raise LadderError(f"Ladder has not registered the deployment {flow_run.deployment_id}; its run is not started.")
            engine = EngineCommandStarter(
                entrypoint=made.entrypoint,  # PREFECT__FLOW_ENTRYPOINT: the engine asks the server for nothing else
                command=command,
                deployment_name=made.name,
                control_channel=self._control_channel,
            )
            return _Starter(engine, made)

        self._scheduled_run_poller._resolve_starter = starter_of

    async def cancel_all(self) -> None:
        await asyncio.gather(*(self._end(run) for run in self._process_manager.flow_run_ids()))

    async def _end(self, run: UUID) -> None:
        try:
            await self._cancel_run(run, "`ladder serve` has ended.")
        except httpx.HTTPError:  # the server does not answer; the run writes its checkpoint all the same
            if process := self._process_manager.get(run):
                process.graceful_kill()


def end_strays() -> None:
    """End the runs of an earlier, dead runner: in this process's group, but not its children."""
    own = psutil.Process()
    mine, group = {own.pid, *(child.pid for child in own.children(recursive=True))}, {}
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if process.pid not in mine and os.getpgid(process.pid) == os.getpgrp():
                group[process.pid] = process
    for process in group.values():
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in group:  # a run, not a child process of one
                process.terminate()
    psutil.wait_procs(group.values(), PATIENCE_SECONDS)


async def run(deployments: Deployments, place: Home, journal: str, ready: Callable[[], object]) -> None:
    """Register the deployments and start due flow runs, until SIGTERM."""
    runner = _Runner("ladder", query_seconds=POLL_SECONDS, limit=deployments.limit, pause_on_shutdown=False)
    ending = asyncio.Event()
    registered: dict[UUID, RunnerDeployment] = {}
    async with get_client() as client:
        for offered in deployments.deployments:
            made = build(offered)
            identifier = await runner.aadd_deployment(made)
            registered[identifier] = made
            # Its hooks, in this process, are those of our flow and not of the code that the server names.
            runner._deployment_registry.register_flow(identifier, flow_of(offered.flow))
            await restore(client, identifier, made)
            await apply_schedules(place, client, identifier, offered)
            if offered.flow == "redistill":
                await offer_automation(place, client, identifier)
    async with runner:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
        runner.start_only(registered, journal)
        ready()
        while not ending.is_set():
            if runner._limiter is not None:
                runner._limiter.total_tokens = deployments.limit + len(waiting)
            # Not `runner.start`, which ends itself and all runs after a few requests without an answer.
            try:
                await runner._get_and_submit_flow_runs()
            except (httpx.HTTPError, PrefectException) as error:
                log.warning("Prefect's server does not answer: %s", error or type(error).__name__)
            with suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), POLL_SECONDS)
        runner.stopping = True
        await asyncio.gather(runner.cancel_all(), asyncio.to_thread(end_strays))


def reap_loop(place: Home) -> None:
    """Find dead runs periodically, restart them where allowed, and look after those that wait for a person."""
    while True:
        try:
            reap(place)
            restart_dead(place)
            asking = {record.run for record in list_runs(place) if record.served and record.status == "running" and record.waiting}
            waiting.intersection_update(asking)
            waiting.update(asking)
        except (LadderError, OSError) as error:  # such as a full disk: the next time may go well
            log.warning("%s", error)
        time.sleep(REAP_SECONDS)


def wait_for_server(api: str) -> None:
    """Wait until Prefect's API answers; `ladder serve` ends this process where that takes too long."""
    while not answers(f"{api}/health", POLL_SECONDS):
        time.sleep(0.2)


def main(deployments_file: str, api: str, report: str, journal: str) -> None:
    """Run until standard input ends.

    Args:
        deployments_file: File of deployments; empty: the shipped one.
        api: Address of Prefect's API.
        report: File that gets `ready`, or the message of a wrong input.
        journal: File that gets the output of the runs.
    """
    signal.signal(signal.SIGTERM, lambda *_: (end_strays(), sys.exit()))  # until `run` installs its own handler
    threading.Thread(target=end_with_parent, args=(PATIENCE_SECONDS,), daemon=True).start()

    def ready() -> None:
        write_atomic(Path(report), "ready")
        threading.Thread(target=reap_loop, args=(home(),), daemon=True).start()  # not before: it needs the deployments

    try:
        deployments = load_deployments(Path(deployments_file) if deployments_file else None)
        check(deployments)
        wait_for_server(api)
        asyncio.run(run(deployments, home(), journal, ready))
    except UserError as error:
        write_atomic(Path(report), str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(*sys.argv[1:])
