"""A new champion takes over while requests are under way."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest

from conf.errors import TransientError
from flows.model_server.serving import ModelSource
from tests.flows.model_server.conftest import Running, Serve
from tests.published import published_folder


class Registry:
    """What a registry says, as a test sets it."""

    def __init__(self, folder: Path, workload: str) -> None:
        self.folder, self.workload, self.label, self.away = folder, workload, "tiny/1", False

    def label_now(self) -> str:
        if self.away:
            raise TransientError("MLflow is away.")
        return self.label

    def source_of(self, label: str) -> ModelSource:
        return ModelSource("tiny", label, self.folder / label.replace("/", "-"), self.workload, aliases=("tiny@champion",))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def served(serve: Serve, folder: Path, workload: str) -> tuple[Running, Registry]:
    registry = Registry(folder, workload)
    published_folder(folder / "tiny-2", workload, seed=1)
    return serve(workload, label_now=registry.label_now, source_of=registry.source_of), registry


def test_no_request_is_lost_when_champions_change_under_load(serve: Serve, tmp_path: Path) -> None:
    running, registry = served(serve, tmp_path, "sequence-classification")
    published_folder(tmp_path / "tiny-1", "sequence-classification")
    answers: list[tuple[int, str]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client() as client:
            while not stop.is_set():
                answer = client.post(f"{running.url}/predict", json={"inputs": ["some text"]}, timeout=30)
                answers.append((answer.status_code, answer.json().get("model", "")))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for number, label in enumerate(("tiny/2", "tiny/1", "tiny/2"), 1):
        registry.label = label
        wait_for(lambda number=number: running.figure("ladder_switches_total", outcome="done") == number)
        before = len(answers)
        wait_for(lambda before=before: len(answers) > before + 8)
    stop.set()
    for client in clients:
        client.join()
    assert {status for status, _ in answers} == {200}
    assert {model for _, model in answers} == {"tiny/1", "tiny/2"}
    assert answers[-1][1] == "tiny/2"


def test_an_answer_that_is_streamed_ends_with_the_model_that_began_it(serve: Serve, tmp_path: Path) -> None:
    running, registry = served(serve, tmp_path, "causal-lm")
    old = running.state.serving.current
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
    parts = client.completions.create(model="tiny", prompt="a", max_tokens=400, temperature=0, stream=True)
    first = next(iter(parts))
    registry.label = "tiny/2"
    wait_for(lambda: running.state.serving.current is not old)
    assert old.users == 1
    rest = list(parts)
    assert {part.model for part in (first, *rest)} == {"tiny/1"}
    assert rest[-1].choices[0].finish_reason in ("stop", "length")
    assert client.completions.create(model="tiny", prompt="a", max_tokens=2).model == "tiny/2"
    wait_for(lambda: old.users == 0 and not old.retired)


@pytest.mark.filterwarnings("ignore")
def test_a_champion_that_does_not_load_leaves_the_old_one_and_is_named(serve: Serve, tmp_path: Path) -> None:
    running, registry = served(serve, tmp_path, "sequence-classification")
    registry.label = "tiny/3"  # without a folder
    wait_for(lambda: "tiny/3" in running.get("/health").json()["failed"])
    health = running.get("/health").json()
    assert (health["status"], health["model"]) == ("degraded", "tiny/1")
    assert "tiny-3" in health["failed"]["tiny/3"]
    assert running.post("/predict", {"inputs": ["a"]}).status_code == 200
    time.sleep(0.2)
    assert running.figure("ladder_switches_total", outcome="failed") == 1  # not tried again and again
    registry.label = "tiny/2"
    wait_for(lambda: running.get("/health").json()["model"] == "tiny/2")
    assert running.get("/health").json()["status"] == "ok"


def test_a_registry_that_is_away_leaves_the_model_serving(serve: Serve, tmp_path: Path) -> None:
    running, registry = served(serve, tmp_path, "sequence-classification")
    registry.away = True
    wait_for(lambda: running.get("/health").json()["registry"].startswith("away"))
    assert running.figure("ladder_registry_up") == 0
    assert running.post("/predict", {"inputs": ["a"]}).json()["model"] == "tiny/1"
    registry.away, registry.label = False, "tiny/2"
    wait_for(lambda: running.get("/health").json()["model"] == "tiny/2")
