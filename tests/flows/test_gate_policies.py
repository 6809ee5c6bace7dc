"""Gate policies in real runs: extend, insert, ask."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.flows.driver import actions, ask_prefect, wait_for
from tests.flows.ladders import GATED


@pytest.fixture
def gated(tmp_path: Path):
    def write(gate: str) -> Path:
        path = tmp_path / "gated.yaml"
        path.write_text(GATED.replace("GATE", gate))
        return path

    return write


def last_run(cli) -> dict:
    return cli.json("show")


def children(shown: dict) -> list[dict[str, str]]:
    """Tags of MLflow's child runs."""
    from mlflow import MlflowClient

    client = MlflowClient(shown["mlflow_uri"])
    parent = client.get_run(shown["mlflow_run_id"])
    found = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return [{**run.data.tags, "id": run.info.run_id} for run in found]


@pytest.mark.slow
def test_extend_trains_on_within_its_bound(cli, gated):
    ladder = gated("policy: extend, extend_steps: 7, max_extensions: 2")
    ended = cli("run", ladder, code=3)
    shown = last_run(cli)
    (student,) = shown["stages"]
    assert re.findall(r"one: trained on for 7 steps \(extension (\d)\)", ended.err) == ["1", "2"]
    assert (student["extensions"], student["steps"], student["gate"]) == (2, 5 + 7 + 7, "stopped")
    assert len([tags for tags in children(shown) if tags["ladder.stage"] == "one"]) == 3, "each attempt is recorded"
    assert "extended 2x" in Path(shown["report"]).read_text()

    again = cli("run", ladder, code=3)
    assert actions(again.err) == {"teacher": "reused", "one": "reused"}
    assert last_run(cli)["stages"][0]["weights_sha256"] == student["weights_sha256"]


@pytest.mark.slow
def test_extend_ends_when_the_gate_is_satisfied(cli, gated):
    shown = cli("run", gated("policy: extend, extend_steps: 300, max_extensions: 5"), "stages.one.gate.min_parent_retention=0.3")
    assert "trained on for 300 steps (extension 1)" in shown.err
    (student,) = last_run(cli)["stages"]
    assert (student["extensions"], student["gate"]) == (1, "passed")


@pytest.mark.slow
def test_insert_teaches_through_assistants_within_its_bound(cli, gated):
    ended = cli("run", gated("policy: insert, max_inserts: 2"), code=3)
    shown = last_run(cli)
    names = ["one-assistant", "one-assistant-2", "one"]
    assert [stage["name"] for stage in shown["stages"]] == names
    assert shown["planned"] == names
    assert [stage["teachers"] for stage in shown["stages"]] == [["teacher"], ["one-assistant"], ["one-assistant-2"]]
    assert [stage["inserted"] for stage in shown["stages"]] == [True, True, False]
    sizes = [shown["teacher"]["parameters"], *(stage["parameters"] for stage in shown["stages"])]
    assert sizes == sorted(sizes, reverse=True)
    assert "inserting one-assistant between it and teacher" in ended.err
    assert "of the parent above one-assistant; gate.min_parent_retention" in shown["stages"][-1]["gate_reasons"][0]
    by_name = {tags["ladder.stage"]: tags for tags in children(shown)}
    assert by_name["one-assistant-2"]["ladder.teacher_run_id"] == by_name["one-assistant"]["id"]
    assert "inserted" in Path(shown["report"]).read_text()


def begin(cli, ladder: Path, log: Path):
    return cli.start_logged(log, "run", ladder)


@pytest.mark.slow
def test_ask_pauses_takes_an_answer_and_remembers_it(cli, gated, tmp_path):
    ladder, log = gated("policy: ask"), tmp_path / "asked.log"
    process = begin(cli, ladder, log)
    wait_for(lambda: "needs a decision" in log.read_text() or process.poll() is not None, "the question")
    waiting = wait_for(lambda: (shown := last_run(cli))["waiting"] and shown, "the record of the question")
    api, run = cli.env["PREFECT_API_URL"], waiting["prefect_run_id"]

    def state() -> dict:
        return ask_prefect("GET", f"{api}/flow_runs/{run}").raise_for_status().json()["state"]

    wait_for(lambda: state()["type"] == "PAUSED", "the pause")
    assert "needs a decision until " in state()["message"], "the paused state says what is asked, and by when"
    refused = cli("answer", waiting["run"], "extend", "--steps", "0", code=2)
    assert "--steps" in refused.err
    # What the form of the UI sends, wrong first: it is refused with its reason, and the run goes on waiting.
    wrong = ask_prefect("POST", f"{api}/flow_runs/{run}/resume", json={"run_input": {"choice": "perhaps"}}).json()
    assert (wrong["status"], "'perhaps' is not one of" in wrong["details"]["reason"]) == ("REJECT", True)
    assert state()["type"] == "PAUSED"
    began = time.monotonic()
    taken = ask_prefect("POST", f"{api}/flow_runs/{run}/resume", json={"run_input": {"choice": "train longer", "steps": 9}})
    assert taken.json()["status"] == "ACCEPT"
    wait_for(lambda: log.read_text().count("needs a decision") == 2, "the second question")
    print(f"resumed, trained on and asked again in {time.monotonic() - began:.1f} s")
    wait_for(lambda: state()["type"] == "PAUSED", "the second pause")
    cli("answer", waiting["run"], "approve", "--by", "Ann", "--note", "good enough")
    assert process.wait(120) == 0, log.read_text()

    done = last_run(cli)
    (student,) = done["stages"]
    assert (student["gate"], student["steps"], student["extensions"]) == ("approved", 5 + 9, 1)
    assert re.search(r"^trained on for 9 steps on \S+; approved by Ann on \S+: good enough$", student["decision"])
    assert {tags.get("ladder.gate") for tags in children(done)} == {"none", "stopped", "approved"}
    assert "approved by Ann" in Path(done["report"]).read_text()
    cli("answer", waiting["run"], "approve", code=2)

    again = cli("run", ladder)
    assert actions(again.err) == {"teacher": "reused", "one": "reused"}
    assert "needs a decision" not in again.err
    assert last_run(cli)["stages"][0]["gate"] == "approved"


@pytest.mark.parametrize(("unanswered", "code", "gate"), [("reject", 3, "stopped"), ("approve", 0, "approved")])
@pytest.mark.slow
def test_a_question_that_nobody_answers_is_decided_by_its_setting(cli, gated, unanswered, code, gate):
    cli("run", gated(f"policy: ask, ask_hours: 0.001, unanswered: {unanswered}"), code=code)
    (student,) = last_run(cli)["stages"]
    assert student["gate"] == gate
    assert "by nobody" in student["decision"]
    kept = list((cli.home / "store" / "decision").glob("*/decision.json"))
    assert [json.loads(path.read_text())["choice"] for path in kept] == (["approve"] if code == 0 else [])


class _Forgetful(socketserver.BaseRequestHandler):
    """Passes everything on to a server, but for the first answers to a paused run, which fail."""

    to, failures = ("", 0), 2

    def handle(self) -> None:
        with socket.create_connection(self.to) as server:
            back = threading.Thread(target=self._pass, args=(server, self.request, False), daemon=True)
            back.start()
            self._pass(self.request, server, True)
            back.join()

    def _pass(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks and b"/resume HTTP" in data and _Forgetful.failures:
                    _Forgetful.failures -= 1
                    self.request.sendall(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def forgetful(prefect_api: str) -> Iterator[str]:
    there = urlsplit(prefect_api)
    _Forgetful.to, _Forgetful.failures = (there.hostname or "", there.port or 0), 2
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Forgetful) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}/api"
        proxy.shutdown()


@pytest.mark.slow
def test_an_answer_that_the_server_does_not_take_is_given_again(cli, gated, forgetful):
    cli.env["PREFECT_API_URL"] = forgetful
    ended = cli("run", gated("policy: ask, ask_hours: 0.001, unanswered: approve"))
    print(f"ended after {ended.seconds:.1f} s")
    assert _Forgetful.failures == 0
    assert ended.err.count("does not take 'approve' yet") == 1
    assert last_run(cli)["stages"][0]["gate"] == "approved"
