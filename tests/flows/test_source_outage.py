"""An unreachable hub is retried; a refusal by the hub is not."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.driver import Cli, ask_prefect

REVISION = "a" * 40
NAME = "someone/teacher"


class Hub:
    """The part of the hub's protocol by which a model is fetched, over a real socket: `failures` answers of 503 come first."""

    def __init__(self, folder: Path, failures: int, missing: bool = False) -> None:
        self.folder, self.failures, self.missing = folder, failures, missing
        self.asked: Counter[int] = Counter()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if self.asked[503] < self.failures:
            return 503, {}, b"busy"
        if self.missing:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if path.startswith(f"/api/models/{NAME}/tree/"):
            files = [(file.name, file.stat().st_size) for file in self.folder.iterdir() if file.is_file()]
            return self.json([{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in files])
        if path.startswith(f"/api/models/{NAME}"):
            return self.json({"id": NAME, "modelId": NAME, "sha": REVISION, "private": False, "tags": [], "siblings": []})
        content = (self.folder / path.rpartition("/")[2]).read_bytes()
        return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": REVISION}, content

    def json(self, document: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


@pytest.fixture
def serve() -> Iterator[Any]:
    servers = []

    def start(hub: Hub) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, headers, body = hub.answer(self.path.partition("?")[0])
                hub.asked[code] += 1
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def from_hub(tiny: Path, target: Path) -> Path:
    """The last stage of `tiny`, with a teacher of the hub."""
    ladder = yaml.safe_load(tiny.read_text())
    ladder["teacher"] = {"source": "checkpoint", "path": NAME}
    ladder["stages"] = [{**ladder["stages"][2], "training": {"steps": 5}}]
    target.write_text(yaml.safe_dump(ladder))
    return target


def online(cli: Cli, address: str, cache: Path) -> None:
    cli.env |= {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}


@pytest.mark.slow
def test_a_hub_that_is_busy_at_first_is_asked_again(cli, tiny, undisturbed, prefect_api, serve, tmp_path):
    one = undisturbed.json("show")["stages"][0]
    hub = Hub(Path(one["folder"]), failures=1)
    online(cli, serve(hub), tmp_path / "cache")
    done = cli("run", from_hub(tiny, tmp_path / "from-hub.yaml"))
    print(f"{done.seconds:.1f} s with one 503: {dict(hub.asked)}")
    assert f"warning: teacher.path: the hub did not give {NAME}" in done.err
    assert "Trying again." in done.err
    assert hub.asked[503] == 1
    assert cli.json("show")["teacher"]["weights_sha256"] == one["weights_sha256"]
    logs = ask_prefect("POST", f"{prefect_api}/logs/filter", json={"limit": 200, "sort": "TIMESTAMP_DESC"}).json()
    assert [line["message"] for line in logs if "Retry 1/3 will start" in line["message"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "offline"), [pytest.param(True, False, id="404", marks=pytest.mark.slow), pytest.param(False, True, id="offline")]
)
def test_what_will_not_change_is_not_tried_again(cli, tiny, serve, tmp_path, missing: bool, offline: bool):
    hub = Hub(tmp_path, failures=0, missing=missing)
    online(cli, serve(hub), tmp_path / "cache")
    cli.env |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    refused = cli("run", from_hub(tiny, tmp_path / "from-hub.yaml"), code=2)
    assert f"teacher.path: got '{NAME}'" in refused.err
    assert "Trying again" not in refused.err
    assert hub.asked == (Counter() if offline else Counter({404: hub.asked[404]}))
    assert hub.asked[404] <= 1
