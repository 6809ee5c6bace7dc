"""Model servers in this process, on free ports."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn

from flows.model_server.access import guarded
from flows.model_server.app import State, create
from flows.model_server.batching import Admission
from flows.model_server.metrics import Metrics
from flows.model_server.serving import LiveModel, ModelSource, Serving, loader
from flows.model_server.switching import Follower
from flows.model_server.window_log import Redact, WindowLog
from flows.serving.server_processes import listen
from models.engines.base import EngineKind
from tests.published import published_folder

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Running:
    """A running server."""

    url: str
    state: State
    server: uvicorn.Server
    thread: threading.Thread
    load: Callable[[ModelSource], LiveModel]

    def post(self, path: str, document: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=document, timeout=30, verify=False, **options)  # it speaks no TLS

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, verify=False, **options)

    def figure(self, name: str, **labels: str) -> float:
        return self.state.metrics.registry.get_sample_value(name, labels) or 0.0

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


Serve = Callable[..., Running]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a random model of a workload; keywords are those of options."""
    started: list[Running] = []

    def start(
        workload: str,
        *,
        folder: Path | None = None,
        kind: EngineKind = "torch",
        token: str | None = None,
        batch: int = 16,
        max_length: int | None = None,
        max_queue: int = 256,
        share: float = 0.0,
        redact: Redact | None = None,
        label_now: Callable[[], str] | None = None,
        source_of: Callable[[str], ModelSource] | None = None,
        template: str | None = TEMPLATE,
    ) -> Running:
        metrics = Metrics()
        load = loader(metrics, batch, max_length)
        source = ModelSource(
            "tiny",
            "tiny/1",
            folder or published_folder(tmp_path / "one", workload, template=template),
            workload,
            kind,
            aliases=("tiny@champion",),
        )
        serving = Serving(load(source), metrics)
        follower = Follower(label_now, source_of, load, serving, metrics, 0.05) if label_now and source_of else None
        state = State(serving, Admission(max_queue, metrics), metrics, WindowLog(tmp_path / "windows", share, redact, metrics), follower)
        listening = listen("--port", "127.0.0.1", None, 0)
        config = uvicorn.Config(guarded(create(state), "127.0.0.1", token), log_level="warning", access_log=False, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        running = Running(f"http://127.0.0.1:{listening.getsockname()[1]}", state, server, thread, load)
        started.append(running)
        return running

    yield start
    for running in started:
        if running.thread.is_alive():
            running.end()
