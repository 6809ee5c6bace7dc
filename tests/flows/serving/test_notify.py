"""Notifications by Prefect's automations: a real server calls a real receiver."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.driver import ask_prefect, clean_environment, wait_for

ROOT = Path(__file__).parents[3]
ALL = {"ladder-failed", "ladder-stopped", "ladder-approval", "ladder-done"}
NO_BLOCK = "00000000-0000-0000-0000-000000000000"


class Receiver:
    """What was posted, with the time, in order."""

    def __init__(self) -> None:
        self.got: list[tuple[float, dict[str, Any]]] = []
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got.append((time.time(), json.loads(body)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/of-a-secret-name"

    def of(self, event: str) -> list[tuple[float, dict[str, Any]]]:
        return [(moment, message) for moment, message in self.got if message["event"] == event]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def automations(api: str) -> dict[str, dict[str, Any]]:
    found = ask_prefect("POST", f"{api}/automations/filter", json={}).raise_for_status().json()
    ours = [automation for automation in found if automation["name"] in ALL]
    assert len({automation["name"] for automation in ours}) == len(ours), "one of each"
    return {automation["name"]: automation for automation in ours}


def blocks(api: str) -> list[dict[str, Any]]:
    found = ask_prefect("POST", f"{api}/block_documents/filter", json={}).raise_for_status().json()
    return [block for block in found if block["name"] == "ladder-webhook"]


def test_setting_up_changing_and_removing(cli, prefect_api: str):
    first = cli("notify", "http://127.0.0.1:1/first")
    assert first.out.strip() == "set up: ladder-approval, ladder-done, ladder-failed, ladder-stopped"
    before = automations(prefect_api)
    assert set(before) == ALL
    again = cli("notify", "http://127.0.0.1:1/second", "--on", "failed, stopped")
    assert again.out.strip() == "set up: ladder-failed, ladder-stopped"
    after = automations(prefect_api)
    assert {name: known["id"] for name, known in after.items()} == {n: before[n]["id"] for n in ("ladder-failed", "ladder-stopped")}
    (block,) = blocks(prefect_api)
    assert {action["block_document_id"] for known in after.values() for action in known["actions"]} == {block["id"]}
    assert "first" not in first.out + first.err
    assert "second" not in json.dumps(after) + json.dumps(block), "the address is a secret"
    removed = cli("notify", "--remove")
    assert removed.out.strip() == "removed: ladder-failed, ladder-stopped, ladder-webhook"
    assert (automations(prefect_api), blocks(prefect_api)) == ({}, [])
    assert cli("notify", "--remove").out.strip() == "removed: nothing was there"


@pytest.mark.parametrize(
    "url", ["", "hooks.example.org", "ftp://example.org/x", "file:///etc/passwd", "http://", "http://a:b", "https://a b"]
)
def test_what_is_no_address(bare, url: str):
    refused = bare("notify", url, code=2)
    assert f"URL: got {url!r}; allowed: an http:// or https:// address" in refused.err


def test_an_unknown_event_and_no_server(bare):
    refused = bare("notify", "http://127.0.0.1:1", "--on", "done,never", code=2)
    assert "--on: got 'done,never'; allowed: some of failed, stopped, approval, done" in refused.err
    refused = bare("notify", "http://127.0.0.1:1", code=2)
    assert "Start `ladder serve`, or set PREFECT_API_URL" in refused.err
    assert "ladder serve" in bare("notify", "--remove", code=2).err


@pytest.mark.slow
def test_the_file_works_with_prefects_own_command(cli, prefect_api: str, tmp_path: Path):
    cli("notify", "http://127.0.0.1:1/x", "--on", "done")
    (block,) = blocks(prefect_api)
    text = (ROOT / "conf" / "automations.yaml").read_text()
    assert {automation["name"] for automation in yaml.safe_load(text)["automations"]} == ALL
    cli("notify", "--remove")
    cli("notify", "http://127.0.0.1:1/x", "--on", "done")
    (block,) = blocks(prefect_api)
    ask_prefect("DELETE", f"{prefect_api}/automations/{automations(prefect_api)['ladder-done']['id']}").raise_for_status()
    (tmp_path / "mine.yaml").write_text(text.replace(NO_BLOCK, block["id"]))
    command = [sys.executable, "-m", "prefect", "automation", "create", "--from-file", str(tmp_path / "mine.yaml")]
    env = clean_environment(PREFECT_API_URL=prefect_api, PREFECT_HOME=str(tmp_path / "prefect"))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(automations(prefect_api)) == ALL
    assert cli("notify", "--remove").out.count("ladder-") == 5


@pytest.mark.slow
def test_done_stopped_and_failed_arrive(cli, tiny, receiver: Receiver, prefect_api: str):
    cli("notify", receiver.url)
    cli("notify", receiver.url)  # once more: still one message each
    try:
        cli("run", tiny)
        cli("run", tiny, "stages.one.gate.min_root_retention=1.9", code=3)
        cli("run", tiny, "seed=3", "teacher.training.learning_rate=9", "teacher.training.explosion=1.001", "--fresh", code=1)
        for event in ("ladder-done", "ladder-stopped", "ladder-failed"):
            wait_for(lambda event=event: receiver.of(event), f"the message of {event}, got {receiver.got}", 60)
        time.sleep(5)
        events = sorted(message["event"] for _, message in receiver.got)
        assert events == ["ladder-done", "ladder-failed", "ladder-stopped"], "one each, and none of the stages' flows"
        records = {known["status"]: cli.json("show", known["run"]) for known in cli.json("runs")}
        messages = {message["event"].removeprefix("ladder-"): message for _, message in receiver.got}
        for status, message in messages.items():
            assert records[status]["run"] in message["run"]
            moment, record = receiver.of(message["event"])[0][0], records[status]
            seconds = moment - datetime.fromisoformat(record["finished"]).timestamp()
            print(f"{status}: the message arrived {seconds:.1f} s after the run had ended")
            assert seconds < 30
            assert message["link"] == f"{prefect_api.removesuffix('/api')}/runs/flow-run/{record['prefect_run_id']}"
            assert message["text"].startswith(f"{message['run']}: {message['state']} - ")
        assert messages["stopped"]["state"] == "GateStopped"
        assert "gate.min_root_retention asks at least 1.9" in messages["stopped"]["message"]
        assert "The loss exploded" in messages["failed"]["message"]
        cli("prove", tiny, "seed=3", "teacher.training.learning_rate=9", "teacher.training.explosion=1.001", "--fresh", code=1)
        wait_for(lambda: len(receiver.of("ladder-failed")) == 2, f"the message of a proof, got {receiver.got}", 60)
        assert "The loss exploded" in receiver.of("ladder-failed")[1][1]["message"]
    finally:
        cli("notify", "--remove")


@pytest.mark.slow
def test_a_question_arrives(cli, tiny, receiver: Receiver):
    cli("notify", receiver.url, "--on", "approval")
    try:
        process = cli.start("run", tiny, "stages.one.gate={min_root_retention: 1.9, policy: ask}")
        wait_for(lambda: receiver.got or process.poll() is not None, "the message")
        ((_, message),) = receiver.got
        assert (message["event"], message["state"]) == ("ladder-approval", "Paused")
        cli("answer", message["run"].split(",")[0], "reject")
        assert process.wait(60) == 3
    finally:
        cli("notify", "--remove")
