"""Load test of a served student, beside its teacher and beside plain transformers.

    python -m benchmarks.serving RUN [--seconds 60] [--clients 8] [--engines torch,llamacpp]

Every candidate is a process of its own; closed loops of CLIENTS clients ask them in turns, a quarter of the time each round, so that other
work on the machine meets all alike. Plain transformers is a sequential server of the standard library around `generate`, or around the
model's forward pass. Errors are any status but 200.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf.home import home
from tasks.runtime.runs.run_registry import load_run

TEXT = "def read(path):\n    with open(path) as file:\n"
TOKENS = 32
ROUNDS = 4
START_SECONDS = 240.0


@dataclass
class Candidate:
    """A server and the times of its answers, in seconds."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    times: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0

    def row(self) -> str:
        """Its figures."""
        ordered = sorted(self.times)
        p50, p95 = (ordered[int(len(ordered) * share)] * 1e3 for share in (0.5, 0.95))
        return f"{self.name:<24}{len(ordered) / self.seconds:>10.1f}{p50:>10.1f}{p95:>10.1f}{self.errors:>8}"


def request_of(workload: str, name: str) -> tuple[str, dict[str, Any]]:
    """Path and body that every client sends."""
    if workload == "causal-lm":
        return "/v1/completions", {"model": name, "prompt": TEXT, "max_tokens": TOKENS, "temperature": 0}
    return "/predict", {"inputs": [image()] if workload == "image-classification" else [TEXT]}


def image() -> str:
    """An 8 x 8 picture as base64."""
    import base64
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").resize((8, 8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def ask(candidate: Candidate, path: str, body: bytes, end: float) -> None:
    """One client: asks again as soon as it has its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", candidate.port, timeout=120)
    while time.monotonic() < end:
        began = time.perf_counter()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status == http.HTTPStatus.OK:
            candidate.times.append(time.perf_counter() - began)
        else:
            candidate.errors += 1


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def start(name: str, *command: str) -> Candidate:
    """Start a server with `--port`."""
    port = free_port()
    return Candidate(name, port, subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL))


def wait(candidate: Candidate) -> None:
    """Wait until a server is ready."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and candidate.process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", candidate.port, timeout=5)
            connection.request("GET", "/ready")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{candidate.name} did not start")


def plain_server(folder: Path, workload: str, port: int) -> None:
    """The least that a user would write: plain transformers, one request after another."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

    if workload == "image-classification":
        classify = pipeline("image-classification", model=str(folder))
        serve(lambda body: [classify(each) for each in body["inputs"]], port)
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)
    auto = AutoModelForCausalLM if workload == "causal-lm" else AutoModelForSequenceClassification
    model: Any = auto.from_pretrained(folder).eval()

    def answer(body: dict[str, Any]) -> Any:
        with torch.inference_mode():
            if workload != "causal-lm":
                return model(**tokenizer(body["inputs"], return_tensors="pt", truncation=True)).logits.softmax(-1).tolist()
            ids = tokenizer(body["prompt"], return_tensors="pt", add_special_tokens=False)
            output = model.generate(**ids, max_new_tokens=body["max_tokens"], do_sample=False)
            return tokenizer.decode(output[0, ids["input_ids"].shape[1] :])

    serve(answer, port)


def serve(answer: Callable[[dict[str, Any]], Any], port: int) -> None:
    """A server that answers one request after another."""
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply(True)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                self.reply(answer(body))

        def reply(self, document: Any) -> None:
            content = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--engines", default="torch")
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    record = load_run(home(), given.run)
    student, teacher = record.stages[-1], record.teacher
    if given.plain:
        plain_server(Path(student.folder), record.workload, given.port)
        return
    ladder = str(Path(sys.executable).with_name("ladder"))
    candidates = [start(f"student, {engine}", ladder, "serve-model", record.run, "--engine", engine) for engine in given.engines.split(",")]
    candidates.append(start("plain transformers", sys.executable, "-m", "benchmarks.serving", record.run, "--plain"))
    if teacher is not None:
        candidates.append(start("teacher, torch", ladder, "serve-model", f"{record.run}:{teacher.name}", "--engine", "torch"))
    path, document = request_of(record.workload, record.ladder)
    body = json.dumps(document).encode()
    try:
        for candidate in candidates:
            wait(candidate)
        for _ in range(ROUNDS):
            for candidate in candidates:
                began = time.monotonic()
                end = began + given.seconds / ROUNDS
                clients = [threading.Thread(target=ask, args=(candidate, path, body, end)) for _ in range(given.clients)]
                for client in clients:
                    client.start()
                for client in clients:
                    client.join()
                candidate.seconds += time.monotonic() - began
    finally:
        for candidate in candidates:
            candidate.process.terminate()
            candidate.process.wait(60)
    print(f"{given.clients} clients, {given.seconds:.0f} s each\n{'':<24}{'req/s':>10}{'p50 ms':>10}{'p95 ms':>10}{'errors':>8}")
    for candidate in candidates:
        print(candidate.row())


if __name__ == "__main__":
    main()
