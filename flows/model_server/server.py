"""`ladder serve-model`: a model behind HTTP until Ctrl-C."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import typer
import uvicorn

from conf.errors import UserError
from conf.home import Home
from flows.model_server.access import guarded, read_token
from flows.model_server.app import State, create
from flows.model_server.batching import Admission
from flows.model_server.engines import choose_engine
from flows.model_server.metrics import Metrics
from flows.model_server.serving import ModelSource, Serving, loader
from flows.model_server.switching import POLL_SECONDS, Follower
from flows.model_server.window_log import WindowLog, redaction
from flows.serving.server_processes import address, is_loopback, listen
from models.engines.base import EngineKind, LanguageModel
from tasks.registry.versions import Version, find_version, list_versions, open_version
from tasks.runtime.logs import log
from tasks.tracking.recorder import tracker_of
from tasks.tracking.tracker import Tracker
from tasks.tracking.versions import CHAMPION

PORT = 8000
DRAIN_SECONDS = 30  # for requests under way at the end


@dataclass(frozen=True)
class Options:
    """Options of a model server.

    Attributes:
        model: `NAME@ALIAS`, `NAME/VERSION`, `RUN`, `RUN:STAGE`, or `NAME` for its champion.
        host: Address to listen at.
        port: None: `PORT`, or a free one.
        engine: None: the one that fits.
        token_file: None: no token is asked for.
        max_length: As of `load_engine`.
        max_queue: Most rows or answers that wait or are computed.
        batch: Most rows or answers at once.
        log_share: Share of requests that are logged as windows.
        redact: `package:function`, see `window_log`.
        poll: Seconds between two looks at the registry.
    """

    model: str
    host: str = "127.0.0.1"
    port: int | None = None
    engine: EngineKind | None = None
    token_file: Path | None = None
    max_length: int | None = None
    max_queue: int = 256
    batch: int = 16
    log_share: float = 0.0
    redact: str | None = None
    poll: float = POLL_SECONDS


def serve_model(home: Home, options: Options) -> None:
    """Serve until Ctrl-C or SIGTERM; answers under way are finished first.

    Raises:
        UserError: No such model, or an option is wrong.
    """
    token = read_token(options.token_file) if options.token_file else None
    redact = redaction(options.redact)
    listening = listen("--port", options.host, options.port, PORT)
    with listening:
        source, follow = find_source(home, options)
        metrics = Metrics()
        load = loader(metrics, options.batch, options.max_length)
        serving = Serving(load(source), metrics)
        windows = WindowLog(home.windows / source.name, options.log_share, redact, metrics)
        follower = None
        if follow is not None:
            follower = Follower(follow.label_now, follow.source_of, load, serving, metrics, options.poll)
        state = State(serving, Admission(options.max_queue, metrics), metrics, windows, follower)
        _warn(options, token)
        _announce(options, listening, state)
        _run(state, options, token, listening)


@dataclass(frozen=True)
class Followed:
    """Functions for looking up an alias again and opening its version."""

    label_now: Callable[[], str]
    source_of: Callable[[str], ModelSource]


def find_source(home: Home, options: Options) -> tuple[ModelSource, Followed | None]:
    """The model that is asked for, and how to follow its alias; None: it was asked for by number or run.

    Raises:
        UserError: No such model, or no such engine for it.
    """
    tracker = tracker_of(home)
    version = find_version(tracker, home, options.model)
    asked = options.model.removeprefix("models:/")
    name, _, given = asked.partition("@")
    alias = given or CHAMPION
    if name != version.name or version.version is None or not isinstance(tracker, Tracker):
        return _source(home, version, options), None

    def label_now() -> str:
        for entry in list_versions(tracker, version.name):
            if alias in entry.aliases:
                return f"{entry.name}/{entry.version}"
        raise UserError.about("MODEL", f"{version.name}@{alias}", "a version with that alias", "`ladder promote` sets it.")

    def source_of(label: str) -> ModelSource:
        number = label.rpartition("/")[2]
        entry = next(each for each in list_versions(tracker, version.name) if each.version == number)
        return _source(home, open_version(tracker, home, entry), options)

    return _source(home, version, options), Followed(label_now, source_of)


def _source(home: Home, version: Version, options: Options) -> ModelSource:
    kind, place = choose_engine(home, version.folder, version.weights_sha256, version.workload, options.engine)
    aliases = tuple(f"{version.name}@{alias}" for alias in version.aliases)
    return ModelSource(version.name, version.label, place, version.workload, kind, aliases, int(version.created or 0))


def _warn(options: Options, token: str | None) -> None:
    if is_loopback(options.host):
        return
    if token is None:
        log.warning("--host %s without --token-file: whoever reaches this machine can use the model", options.host)
    log.warning("--host %s: texts, answers and the token cross the network unencrypted; put a proxy with TLS in front", options.host)


def _announce(options: Options, listening: socket.socket, state: State) -> None:
    health, url = state.health, address(options.host, listening.getsockname()[1], outside=True)
    engine = state.serving.current.engine
    chat = ("/v1/chat/completions",) if isinstance(engine, LanguageModel) and engine.chat else ()
    paths = ", ".join([*chat, "/v1/completions", "/v1/models"]) if isinstance(engine, LanguageModel) else "/predict"
    longest = f", at most {health['max_length']} tokens" if health["max_length"] else ""
    rows = [
        ("model", f"{health['model']} ({health['workload']}, {health['engine']}{longest})"),
        ("address", f"{url}: {paths}"),
        ("state", f"{url}/health, /ready, /metrics"),
    ]
    if options.token_file:
        rows.append(("token", f"in {options.token_file}"))
    if options.log_share:
        rows.append(("windows", f"{options.log_share:.3g} of the requests"))
    typer.echo("The model is served, until Ctrl-C:\n" + "\n".join(f"  {name:<9}{value}" for name, value in rows))
    sys.stdout.flush()


class _Server(uvicorn.Server):
    """Says that it drains as soon as it is asked to end."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._state.draining = True
        super().handle_exit(sig, frame)


def _run(state: State, options: Options, token: str | None, listening: socket.socket) -> None:
    config = uvicorn.Config(
        guarded(create(state), options.host, token),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    with suppress(KeyboardInterrupt):  # the signal, which uvicorn raises again after it has ended
        _Server(config, state).run([listening])
    typer.echo("ended")
