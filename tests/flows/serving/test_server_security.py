"""Who may reach the servers of `ladder serve`, and what they ask for."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from conf.errors import UserError
from flows.serving.server_processes import (
    AUTHENTICATION,
    MLFLOW_AUTHENTICATION,
    address,
    check_authentication,
    is_loopback,
    listen,
    warn_if_open,
)
from tests.flows.driver import Cli, wait_for

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


def test_an_open_server_without_a_password_is_told_loudly(warnings, monkeypatch):
    warn_if_open("127.0.0.1", prefect=True, mlflow=True)
    assert warnings.text == ""
    warn_if_open("0.0.0.0", prefect=True, mlflow=True)
    assert "WARNING" in warnings.text
    assert "can use Prefect and MLflow WITHOUT A PASSWORD" in warnings.text
    assert "PREFECT_SERVER_API_AUTH_STRING=user:password and MLFLOW_AUTH_CONFIG_PATH=FILE" in warnings.text

    warnings.clear()
    monkeypatch.setenv(AUTHENTICATION[0], "user:password")
    warn_if_open("0.0.0.0", prefect=True, mlflow=True)
    assert "can use MLflow WITHOUT A PASSWORD" in warnings.text

    warnings.clear()
    warn_if_open("0.0.0.0", prefect=True, mlflow=False)
    assert warnings.text == "", "a server that is not ours is not ours to guard"


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


def put_up(cli: Cli, *args: object, **env: str) -> tuple[subprocess.Popen[str], dict[str, Any], Path]:
    out = cli.home.parent / "serve.txt"
    process = Cli(cli.home, {**cli.env, **env}).start_logged(out, "serve", *args)
    wait_for(lambda: "until Ctrl-C" in out.read_text() or process.poll() is not None, "ladder serve", 300)
    assert process.poll() is None, out.read_text()
    return process, json.loads((cli.home / "serve.json").read_text()), out


def open_ports(process: subprocess.Popen[str]) -> set[str]:
    """Addresses that a process and its children listen at."""
    children = psutil.Process(process.pid).children(recursive=True)
    connections = [found for child in children for found in child.net_connections("inet") if found.status == psutil.CONN_LISTEN]
    return {found.laddr.ip for found in connections}


@pytest.mark.slow
def test_prefect_asks_for_the_password_and_ours_know_it(bare, tiny):
    password = f"someone:{LONG}"
    process, where, out = put_up(bare, "--host", "0.0.0.0", PREFECT_SERVER_API_AUTH_STRING=password, LADDER_ROOTS=str(tiny.parent))
    api = f"http://127.0.0.1:{urlsplit(where['prefect_api']).port}/api"
    assert "can use MLflow WITHOUT A PASSWORD" in out.read_text()
    assert LONG not in out.read_text()
    assert LONG not in json.dumps(where)
    assert httpx.post(f"{api}/flow_runs/filter", json={}, trust_env=False).status_code == 401
    assert httpx.post(f"{api}/flow_runs/filter", json={}, auth=("someone", "wrong"), trust_env=False).status_code == 401

    refused = bare("run", tiny, code=2)
    assert "error: PREFECT_API_AUTH_STRING: got None; allowed: the user:password that " in refused.err
    Cli(bare.home, {"PREFECT_API_AUTH_STRING": password})("run", tiny)

    with httpx.Client(base_url=api, auth=("someone", LONG), trust_env=False, timeout=60) as client:
        deployment = client.get("/deployments/name/distill/distill").raise_for_status().json()["id"]
        made = client.post(f"/deployments/{deployment}/create_flow_run", json={"parameters": {"ladder": str(tiny)}})
        run = made.raise_for_status().json()["id"]
        ends = ("COMPLETED", "FAILED", "CRASHED")
        wait_for(lambda: client.get(f"/flow_runs/{run}").json()["state"]["type"] in ends, "a run", 180)
        assert client.get(f"/flow_runs/{run}").json()["state"]["type"] == "COMPLETED"
    journals = "".join(path.read_text() for path in (bare.home / "logs").glob("*.log"))
    assert LONG not in journals
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@pytest.mark.slow
def test_mlflow_asks_for_the_password_and_both_listen_to_this_machine_alone(bare, tmp_path):
    pytest.importorskip("flask_wtf", reason="needs mlflow[auth]")
    settings = tmp_path / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path}/auth.db\nadmin_username = admin\n"
        f"admin_password = {LONG}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    process, where, out = put_up(bare, MLFLOW_AUTH_CONFIG_PATH=str(settings))
    assert "PASSWORD" not in out.read_text()
    assert open_ports(process) == {"127.0.0.1"}
    search = f"{where['mlflow_ui']}/api/2.0/mlflow/experiments/search?max_results=5"
    assert httpx.get(search, trust_env=False).status_code == 401
    assert httpx.get(search, auth=("admin", LONG), trust_env=False).status_code == 200

    named = where["mlflow_ui"].replace("://", f"://admin:{LONG}@")
    (tmp_path / "second").mkdir()
    second, there, said = put_up(Cli(tmp_path / "second" / "home"), MLFLOW_TRACKING_URI=named)
    assert there["mlflow_ui"] == where["mlflow_ui"]
    assert LONG not in said.read_text()
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 0

    # A page from elsewhere, open in the same browser, gets nothing.
    origin = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
    question = httpx.options(f"{where['prefect_api']}/flow_runs/filter", headers=origin, trust_env=False)
    assert "access-control-allow-origin" not in question.headers
    own = {**origin, "Origin": where["prefect_ui"]}
    allowed = httpx.options(f"{where['prefect_api']}/flow_runs/filter", headers=own, trust_env=False)
    assert allowed.headers["access-control-allow-origin"] == where["prefect_ui"]

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
