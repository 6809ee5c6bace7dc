"""Recorded models by MLflow's own API alone: other process, other working directory, no Ladder, no Hub; the store's answers to 1e-5."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from conf.home import Home
from tasks.tracking.tracker import Tracker, connect
from tasks.tracking.versions import create_version
from tests.factories import model_record
from tests.tasks.training.test_published import images, ladder, published, texts

pytestmark = pytest.mark.processes

LOADER = Path(__file__).with_name("plain_loader.py")
AUTO = {
    "causal-lm": transformers.AutoModelForCausalLM,
    "sequence-classification": transformers.AutoModelForSequenceClassification,
    "image-classification": transformers.AutoModelForImageClassification,
}
KINDS = {"causal-lm": {}, "sequence-classification": {}, "image-classification": {}, "grey": {"channels": 1}}
ROWS = ["warm quiet room", "late"]


@dataclass(frozen=True)
class Recorded:
    """A recorded model: its addresses, its folder in the store, and what it is asked."""

    workload: str
    addresses: tuple[str, ...]
    folder: Path
    pictures: tuple[Path, ...]

    def asked(self, form: str) -> list[Any]:
        """Rows as the form takes them: texts; image files in base64, or pixels."""
        if not self.pictures:
            return ROWS
        if form == "pyfunc":
            return [base64.b64encode(path.read_bytes()).decode() for path in self.pictures]
        return [pixels.tolist() for pixels in self.pixels()]

    def pixels(self) -> list[np.ndarray]:
        opened = [np.asarray(Image.open(path)) for path in self.pictures]
        return [picture[None] if picture.ndim == 2 else picture for picture in opened]

    def logits(self) -> list[Any]:
        """Of the store's folder in this process."""
        model, found = AUTO[self.workload].from_pretrained(self.folder).eval(), []
        for row in self.pixels() if self.pictures else ROWS:
            if self.pictures:
                inputs = transformers.AutoImageProcessor.from_pretrained(self.folder)([row], return_tensors="pt")
            else:
                inputs = transformers.AutoTokenizer.from_pretrained(self.folder)(row, truncation=True, return_tensors="pt")
                inputs.pop("token_type_ids", None)
            with torch.no_grad():
                found.append(model(**inputs).logits[0].tolist())
        return found

    def continuations(self, length: int) -> list[str]:
        """Greedy ones of the store's folder."""
        pipe = transformers.pipeline("text-generation", model=str(self.folder))
        return [pipe(row, max_new_tokens=length, do_sample=False, return_full_text=False)[0]["generated_text"] for row in ROWS]


def record(tracker: Tracker, kind: str, base: Path) -> Recorded:
    """Publish a model that was never trained, record it, and register it as the champion of a model named as its kind."""
    base.mkdir(parents=True)
    workload = "image-classification" if kind == "grey" else kind
    data = {**(images(base, "L" if kind == "grey" else "RGB") if workload == "image-classification" else texts(base)), **KINDS[kind]}
    _, _, folder = published(ladder(workload, data), base)
    parent = tracker.open_ladder(f"run-{kind}", kind, "h", "", params={}, environment={})
    stage = tracker.open_stage(parent, "small", f"fp-{kind}", settings={})
    model_id = tracker.finish_stage(stage.run_id, model_record("small", metrics={"nll": 1.0}), workload=workload, folder=folder)
    version = create_version(tracker, kind, stage.run_id, {}, "", "")
    assert version is not None
    tracker.client.set_registered_model_alias(kind, "champion", version.version)
    addresses = (f"models:/{model_id}", f"runs:/{stage.run_id}/student", f"models:/{kind}@champion")
    return Recorded(workload, addresses, folder, tuple(sorted(base.glob("pictures/*/*.png"))[:2]))


def environment(uri: str, folder: Path) -> dict[str, str]:
    """Of a user who has the packages, and nothing of this session's variables."""
    (folder / "user").mkdir()
    path = f"{sysconfig.get_paths()['scripts']}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(folder / "user"), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": uri}
    return {**env, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@contextlib.contextmanager
def serving(command: list[str], health: str, folder: Path, uri: str) -> Iterator[str]:
    """A server of MLflow's command line on a free port, once it answers; the address of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    whole = [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(whole, cwd=folder, env=environment(uri, folder), stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=2).close()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "log").read_text()[-3000:]
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def load_plainly(uri: str, requests: list[dict[str, Any]], folder: Path) -> list[Any]:
    """Answers of `plain_loader.py` in an empty working directory, with the packages and without Ladder."""
    env, work = environment(uri, folder), folder / "elsewhere"
    work.mkdir()
    (folder / "requests.json").write_text(json.dumps(requests))
    env["PYTHONPATH"] = sysconfig.get_paths()["purelib"]  # `-S` leaves out the .pth file by which Ladder is installed
    command = [sys.executable, "-S", "-P", str(LOADER), str(folder / "requests.json")]
    done = subprocess.run(command, env=env, cwd=work, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(work.iterdir()) == [], "nothing is left in the working directory"
    return json.loads(done.stdout)


def requests_of(models: list[Recorded]) -> list[dict[str, Any]]:
    params = {"causal-lm": {"max_new_tokens": 4}, "image-classification": {"top_k": 2}}
    return [
        {"form": form, "uri": uri, "rows": model.asked(form), "params": params.get(model.workload) if form == "pyfunc" else None}
        for model in models
        for uri in model.addresses
        for form in ("transformers", "pyfunc")
    ]


def check(models: list[Recorded], requests: list[dict[str, Any]], answers: list[Any]) -> None:
    by_address = {uri: model for model in models for uri in model.addresses}
    logits = {id(model): model.logits() for model in models}
    for request, answer in zip(requests, answers, strict=True):
        model = by_address[request["uri"]]
        ours = logits[id(model)]
        if request["form"] == "transformers":
            assert answer["task"] == model.workload.replace("sequence-class", "text-class").replace("causal-lm", "text-generation")
            for mine, yours in zip(ours, answer["logits"], strict=True):
                assert np.abs(np.array(mine) - np.array(yours)).max() < 1e-5, request["uri"]
        elif model.workload == "causal-lm":
            assert answer == model.continuations(4)
        else:
            names: Any = transformers.AutoConfig.from_pretrained(model.folder).id2label
            for mine, row in zip(torch.tensor(ours).softmax(-1).tolist(), answer, strict=True):
                assert row["probabilities"] == pytest.approx({names[i]: share for i, share in enumerate(mine)}, abs=1e-5)
                assert row["label"] == names[int(np.argmax(mine))]
                assert row["score"] == row["probabilities"][row["label"]]


@pytest.mark.slow
def test_every_form_of_every_workload_loads_from_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home(tmp_path / "home")
    tracker = connect(home)
    models = [record(tracker, kind, tmp_path / kind) for kind in KINDS]
    assert len(list(home.mlflow.rglob("*.safetensors"))) == len(models), "weights are kept once"
    requests = requests_of(models)
    check(models, requests, load_plainly(tracker.uri, requests, tmp_path))


@pytest.mark.slow
def test_every_form_of_every_workload_loads_from_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = f"sqlite:///{tmp_path / 'server.db'}"
    command = ["server", "--backend-store-uri", database, "--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"]
    with serving(command, "/health", tmp_path / "server", database) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        tracker = connect(Home(tmp_path / "home"))
        models = [record(tracker, kind, tmp_path / kind) for kind in KINDS]
        assert len(list((tmp_path / "artifacts").rglob("*.safetensors"))) == len(models)
        requests = requests_of(models)
        check(models, requests, load_plainly(uri, requests, tmp_path))
        found = tracker.resolve_model(models[0].addresses[1])
        assert (found / "model.safetensors").read_bytes() == (models[0].folder / "model.safetensors").read_bytes()


def asked(address: str, body: Any) -> tuple[int, Any]:
    """Status and answer of the scoring server."""
    request = urllib.request.Request(f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as page:
            return page.status, json.load(page)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


WRONG = {
    "causal-lm": [
        ([""], None, "has no tokens"),
        (["warm"], {"max_new_tokens": 10**6}, "max_new_tokens: got 1000000"),
        (["warm " * 2000], None, "leaves room"),
        (["warm"], {"temperature": -1.0}, "allowed: 0 or more"),
    ],
    "sequence-classification": [([7], None, "Expected type str"), ([], None, "no rows"), (["warm"], {"top_k": "many"}, "top_k")],
    "image-classification": [(["bm8gaW1hZ2U="], None, "no image file"), (["http://127.0.0.1/secret.png"], None, "no image file")],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(WRONG))
def test_mlflow_models_serve_answers_or_says_why_not(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = connect(Home(tmp_path / "home"))
    model = record(tracker, kind, tmp_path / kind)
    command = ["models", "serve", "-m", f"models:/{kind}@champion", "--env-manager", "local"]
    with serving(command, "/health", tmp_path / "server", tracker.uri) as address:
        params = {"max_new_tokens": 4} if kind == "causal-lm" else {"top_k": 2}
        status, answer = asked(address, {"inputs": model.asked("pyfunc"), "params": params})
        assert status == 200, answer
        check([model], [{"form": "pyfunc", "uri": model.addresses[0]}], [answer["predictions"]])
        for rows, more, reason in WRONG[kind]:
            status, answer = asked(address, {"inputs": rows, **({"params": more} if more else {})})
            assert (status, reason in str(answer)) == (400, True), answer
