"""Who may reach the servers of `ladder serve`, and what they ask for."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from conf.errors import LadderError, UserError
from conf.loading.deployments import Deployment
from flows.serving.deployments import build, changed_code, require_unchanged
from flows.serving.environment import AUTHENTICATION
from flows.serving.server_processes import (
    MLFLOW_AUTHENTICATION,
    address,
    check_authentication,
    is_loopback,
    listen,
    warn_if_open,
)
from tests.flows.driver import Cli, wait_for
from tests.flows.served import Server, Start, offer

LONG = "a-long-password-1"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_only_loopback_is_this_machine_alone(host: str, loopback: bool):
    assert is_loopback(host) == loopback


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("ladder"), "propagate", True)
    for name in (*AUTHENTICATION, MLFLOW_AUTHENTICATION):
        monkeypatch.delenv(name, raising=False)
    return caplog


def test_servers_without_a_password_and_passwords_without_tls_are_told_loudly(warnings):
    warn_if_open("127.0.0.1", prefect=False, mlflow=False)
    assert warnings.text == ""
    warn_if_open("127.0.0.1", prefect=True, mlflow=True)
    assert "every user of this machine can use Prefect and MLflow WITHOUT A PASSWORD" in warnings.text

    warnings.clear()
    warn_if_open("0.0.0.0", prefect=False, mlflow=True)
    assert "whoever reaches this machine can use MLflow WITHOUT A PASSWORD" in warnings.text
    assert "--host 0.0.0.0: passwords and data cross the network unencrypted" in warnings.text


def test_a_missing_part_of_mlflow_is_named(monkeypatch):
    monkeypatch.delenv(MLFLOW_AUTHENTICATION, raising=False)
    monkeypatch.setitem(sys.modules, "flask_wtf", None)
    check_authentication()
    monkeypatch.setenv(MLFLOW_AUTHENTICATION, "auth.ini")
    with pytest.raises(UserError, match=r"MLFLOW_AUTH_CONFIG_PATH: got 'auth.ini'; allowed: MLflow with its extra `auth`"):
        check_authentication()


def test_a_port_is_the_wanted_one_or_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--prefect-port: got {port}; allowed: a port that is free"):
            listen("--prefect-port", "127.0.0.1", port, 4200)
        with listen("--prefect-port", "127.0.0.1", None, port) as other:
            assert other.getsockname()[1] != port
    with pytest.raises(UserError, match=r"--host: got '192.0.2.1'; allowed: an address of this machine"):
        listen("--prefect-port", "192.0.2.1", None, 4200)


def test_addresses_for_this_machine_and_for_others():
    assert address("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert address("0.0.0.0", 1, outside=True) == f"http://{socket.gethostname()}:1"
    assert address("::1", 1, outside=True) == "http://[::1]:1"


def open_ports(process: subprocess.Popen[str]) -> set[str]:
    """Addresses that a process and its children listen at."""
    children = psutil.Process(process.pid).children(recursive=True)
    connections = [found for child in children for found in child.net_connections("inet") if found.status == psutil.CONN_LISTEN]
    return {found.laddr.ip for found in connections}


REBOUND, FOREIGN = {"Host": "rebound.example:4200"}, {"Origin": "http://elsewhere.example"}
Changes = dict[str, Any]


def attack(server: Server) -> None:
    """Every door that is known, at a `ladder serve` as it comes up by itself."""
    where, auth, home = server.where, server.auth, server.cli.home
    assert auth
    password = ":".join(auth)
    assert (home / "login").stat().st_mode & 0o777 == 0o600
    assert auth[1] not in server.text + "".join(path.read_text() for path in [home / "serve.json", *home.glob("logs/*.log")])
    assert str(home / "login") in server.text
    assert not any(auth[1] in " ".join(child.cmdline()) for child in server.children), "every user of the machine can read it there"

    api, record = where["prefect_api"], f"{where['mlflow_ui']}/api/2.0/mlflow/experiments/search"
    with httpx.Client(trust_env=False, timeout=30) as client:

        def answer(url: str, auth: Any = auth, **more: Any) -> int:
            return client.post(url, auth=auth, **({"json": {"limit": 1}} | more)).status_code

        for url in (f"{api}/flow_runs/filter", record):
            assert answer(url) in (200, 400), "the right password"
            assert answer(url, None) == 401
            assert answer(url, ("ladder", "wrong")) == 401
            assert answer(url, None, headers={"Authorization": f"Bearer {password}"}) == 401
            assert answer(url, headers=REBOUND) == 400, "a name of elsewhere that leads here"
            assert answer(url, headers=FOREIGN) == 403, "a page of elsewhere, in a browser that knows the password"
            assert answer(url, headers={"Sec-Fetch-Site": "cross-site"}) == 403
            for headers in ({}, {"Content-Type": "text/plain"}):
                assert answer(url, json=None, content=b"{}", headers=headers) == 415, "what a form can send"
        assert client.get(f"{api}/health").status_code == client.get(f"{where['mlflow_ui']}/health").status_code == 200
        assert client.get(where["mlflow_ui"]).status_code == 401
        for path in ("/docs", "/openapi.json", "/admin/settings", "/block_documents/filter"):
            assert client.get(api + path).status_code == 401, path
        shell = f"{where['mlflow_ui']}/ajax-api/3.0/mlflow/assistant/config"
        assert client.get(shell, auth=auth).status_code == 404, "MLflow's assistant runs commands"
        question = client.options(f"{api}/flow_runs/filter", headers={**FOREIGN, "Access-Control-Request-Method": "POST"})
        assert (question.status_code, "access-control-allow-origin" in question.headers) == (403, False)
    for path in ("events/out", "events/in", "logs/out", "task_runs/subscriptions/scheduled"):
        for headers in ({}, FOREIGN):
            assert not reads(f"{api.replace('http', 'ws', 1)}/{path}", headers), path


def reads(url: str, headers: dict[str, str]) -> bool:
    """Whether a websocket takes somebody with a wrong password."""
    try:
        with connect(url, subprotocols=[Subprotocol("prefect")], additional_headers=headers, proxy=None) as socket:
            socket.send(json.dumps({"type": "auth", "token": "wrong"}))
            return json.loads(socket.recv(10))["type"] == "auth_success"
    except (InvalidStatus, ConnectionClosed):
        return False


@pytest.mark.slow
def test_a_password_of_ones_own_is_asked_for_and_the_home_does_not_know_it(bare, tiny, start: Start):
    password = f"someone:{LONG}"
    server = start(bare, "--host", "0.0.0.0", PREFECT_SERVER_API_AUTH_STRING=password, LADDER_ROOTS=str(tiny.parent))
    assert "passwords and data cross the network unencrypted" in server.text
    assert "WITHOUT A PASSWORD" not in server.text
    assert LONG not in server.text + json.dumps(server.where)
    refused = bare("run", tiny, code=2)
    assert "error: PREFECT_API_AUTH_STRING: got None; allowed: the user:password that " in refused.err
    Cli(bare.home, {"PREFECT_API_AUTH_STRING": password})("run", tiny)
    port = urlsplit(server.where["mlflow_ui"]).port
    assert httpx.get(f"http://127.0.0.1:{port}", trust_env=False, auth=("someone", LONG)).status_code == 200
    assert httpx.get(f"http://127.0.0.1:{port}", trust_env=False).status_code == 401

    server.auth = ("someone", LONG)
    run = server.start_run("distill/distill", ladder=str(tiny))
    wait_for(lambda: server.state(run) in ENDS, "a run", 180)
    assert server.state(run) == "Completed"
    assert LONG not in "".join(path.read_text() for path in (bare.home / "logs").glob("*.log"))


ENDS = ("Completed", "Failed", "Crashed")


@pytest.mark.slow
def test_a_deployment_that_was_changed_to_run_other_code_is_refused(bare, tiny, start: Start, tmp_path):
    """Somebody who has the password, or got round it, still runs no code: the old way to a shell, and its relatives."""
    trace, script = tmp_path / "trace", tmp_path / "other.py"
    script.write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\nfrom flows.distill import distill\n")
    shell = {"prefect.deployments.steps.run_shell_script": {"script": f"touch {trace}"}}
    server = start(bare, "--deployments", offer(tmp_path), LADDER_ROOTS=str(tiny.parent))
    deployment = server.deployment("distill/distill")
    right = {name: deployment[name] for name in ("pull_steps", "path", "entrypoint")}
    changes: list[Changes] = [{"pull_steps": [shell]}, {"path": str(tmp_path)}, {"entrypoint": f"{script}:distill"}]
    for change in changes:
        server.ask("PATCH", f"/deployments/{deployment['id']}", json=right | change)
        run = server.start_run("distill/distill", ladder=str(tiny))
        wait_for(lambda run=run: server.state(run) in ENDS, "the refusal", 60)
        message = server.ask("GET", f"/flow_runs/{run}")["state"]["message"]
        assert f"is not as Ladder registered it: {next(iter(change))} changed on the server" in message
    assert not trace.exists()
    server.ask("PATCH", f"/deployments/{deployment['id']}", json={key: value for change in changes for key, value in change.items()})
    server.end()

    server = start(bare, "--deployments", offer(tmp_path), LADDER_ROOTS=str(tiny.parent))
    assert "distill/distill: path had been changed on the server; set back" in (bare.home / "logs" / "runner.log").read_text()
    assert changed_code(SimpleNamespace(**server.deployment("distill/distill")), build_distill()) == {}
    run = server.start_run("distill/distill", ladder=str(tiny))
    wait_for(lambda: server.state(run) in ENDS, "a run of what was set back", 180)
    assert server.state(run) == "Completed"
    assert not trace.exists()


def build_distill() -> Any:
    return build(Deployment(name="distill", flow="distill"))


def test_a_change_of_code_is_told_from_other_changes():
    made = build_distill()
    plain: Changes = {"pull_steps": None, "path": None, "entrypoint": made.entrypoint, "storage_document_id": None, "description": "x"}
    require_unchanged(SimpleNamespace(**plain), made)
    require_unchanged(SimpleNamespace(**plain | {"pull_steps": [], "description": "another"}), made)
    for change in ({"pull_steps": [{"a": 1}]}, {"path": "/tmp"}, {"entrypoint": "os.system"}, {"storage_document_id": "x"}):
        with pytest.raises(LadderError, match=rf"not as Ladder registered it: {next(iter(change))} changed"):
            require_unchanged(SimpleNamespace(**plain | change), made)


@pytest.mark.slow
def test_mlflows_own_accounts_replace_the_password_and_no_auth_opens_both(bare, tmp_path, start: Start):
    pytest.importorskip("flask_wtf", reason="needs mlflow[auth]")
    settings = tmp_path / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path}/auth.db\nadmin_username = admin\n"
        f"admin_password = {LONG}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    server = start(bare, MLFLOW_AUTH_CONFIG_PATH=str(settings))
    where = server.where
    assert open_ports(server.process) == {"127.0.0.1"}
    search = f"{where['mlflow_ui']}/api/2.0/mlflow/experiments/search?max_results=5"
    assert httpx.get(search, trust_env=False).status_code == 401
    assert httpx.get(search, auth=("admin", LONG), trust_env=False).status_code == 200
    assert httpx.get(search, auth=("admin", LONG), trust_env=False, headers=REBOUND).status_code == 400

    named = where["mlflow_ui"].replace("://", f"://admin:{LONG}@")
    (tmp_path / "second").mkdir()
    second, out = Cli(tmp_path / "second" / "home", {"MLFLOW_TRACKING_URI": named}), tmp_path / "second.txt"
    process = second.start_logged(out, "serve", "--no-auth")
    wait_for(lambda: "until Ctrl-C" in out.read_text() or process.poll() is not None, "ladder serve", 300)
    there = json.loads((second.home / "serve.json").read_text())
    assert there["mlflow_ui"] == where["mlflow_ui"]
    assert LONG not in out.read_text()
    assert "every user of this machine can use Prefect WITHOUT A PASSWORD" in out.read_text()
    filter_all = f"{there['prefect_api']}/flow_runs/filter"
    assert httpx.post(filter_all, json={}, trust_env=False).json() == [], "nothing is asked for"
    for headers, status in ((REBOUND, 400), (FOREIGN, 403), ({"Content-Type": "text/plain"}, 415)):
        assert httpx.post(filter_all, content=b"{}", headers=headers, trust_env=False).status_code == status
    process.terminate()
    assert process.wait(60) == 0
