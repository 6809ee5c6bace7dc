"""Two hosts that share Prefect's server and an object store alone; one is cut off in the middle of a stage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tasks.runtime.empty_databases import begin_database
from tests.flows.driver import clean_environment, newest_checkpoint, wait_for
from tests.flows.served import GUARDED
from tests.hosts import Hosts, hosts
from tests.s3 import SERVE_BUCKET, s3_environment

LESS = ("audit.enabled=false", "bench.after_stage=false")
pytestmark = [pytest.mark.processes, pytest.mark.slow]
# Asks Prefect's server, on the host where it runs; prints the answer.
ASK = """
import sys, urllib.request
method, path, body = sys.argv[1:]
url, headers = f"http://127.0.0.1:4200/api{path}", {"content-type": "application/json"}
request = urllib.request.Request(url, body.encode() or None, headers, method=method)
print(urllib.request.urlopen(request, timeout=60).read().decode() or "null")
"""
# Prints kind and run of every manifest in the object store.
LIST = """
import json, s3fs
files = s3fs.S3FileSystem(skip_instance_cache=True)
for name in files.find("ladders/shared"):
    if "/manifest-" in name:
        print(json.dumps([name.split("/")[2], name.rpartition("-")[2], json.loads(files.cat_file(name))["run"]]))
"""


class Cluster:
    """The hosts, and commands on them."""

    def __init__(self, made: Hosts, folder: Path) -> None:
        self.made, self.folder = made, folder

    def environment(self, host: str) -> dict[str, str]:
        server = "127.0.0.1" if host == "server" else self.made.server_address(host)
        ours = {
            "LADDER_HOME": str(self.home(host)),
            "LADDER_ROOTS": str(self.folder),
            "LADDER_STORE_LEASE": "10",
            "MLFLOW_TRACKING_URI": "none",
            "PREFECT_API_URL": f"http://{server}:4200/api",
            "PREFECT_HOME": str(self.folder / f"prefect-{host}"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        return clean_environment(**s3_environment(f"http://{server}:5000", "shared"), **ours)

    def home(self, host: str) -> Path:
        return self.folder / f"home-{host}"

    def run(self, host: str, *arguments: str) -> str:
        command = self.made.command(host, sys.executable, *arguments)
        done = subprocess.run(
            command, env=self.environment(host), cwd=self.folder, capture_output=True, text=True, timeout=2400, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def started(self, host: str, *arguments: str) -> Iterator[Path]:
        """A program that runs until the end of the block; gives its log."""
        log = self.folder / f"{host}-{len(list(self.folder.iterdir()))}.log"
        command = self.made.command(host, sys.executable, *arguments)
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=self.environment(host), cwd=self.folder, stdout=file, stderr=file, start_new_session=True
            )
        try:
            yield log
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return json.loads(self.run("server", "-c", ASK, method, path, "" if body is None else json.dumps(body)))

    def answers(self) -> bool:
        try:
            return bool(self.ask("GET", "/health"))
        except AssertionError:
            return False


@pytest.mark.timeout(3600)
def test_a_stage_passes_from_a_host_that_is_cut_off_to_another(tiny: Path, tmp_path: Path) -> None:
    ladder = tmp_path / "tiny.yaml"
    one_stage = tiny.read_text().partition("  - name: two")[0]
    ladder.write_text(one_stage.replace("training: {steps: 60,", "training: {steps: 90,"))
    (tmp_path / "prefect-server").mkdir()
    begin_database(tmp_path / "prefect-server" / "prefect.db", "prefect")
    with hosts("a", "b") as made, ExitStack() as stack:
        cluster = Cluster(made, tmp_path)
        objects = stack.enter_context(cluster.started("server", "-c", SERVE_BUCKET, "0.0.0.0", "5000"))
        prefect = stack.enter_context(cluster.started("server", "-c", GUARDED, "server", "start", "--host", "0.0.0.0", "--port", "4200"))
        wait_for(lambda: "serving" in objects.read_text(), "the object store", 900)
        wait_for(cluster.answers, f"Prefect's server, see {prefect}", 900)

        log_a = stack.enter_context(cluster.started("a", "-m", "flows.cli.app", "run", str(ladder), *LESS))
        wait_for(lambda: newest_checkpoint(cluster.home("a")), f"a checkpoint of the teacher, see {log_a}", 1800)
        made.plug("a", into=False)
        assert not list(cluster.home("a").glob("store/teacher/*")), "it was cut off too late"

        said = cluster.run("b", "-m", "flows.cli.app", "run", str(ladder), *LESS)
        assert "report.html" in said
        name_a, name_b = (next((cluster.home(host) / "runs").iterdir()).name for host in "ab")
        kept = [json.loads(line) for line in cluster.run("server", "-c", LIST).splitlines()]
        made_by = {(kind, run) for kind, _, run in kept if kind in ("data", "teacher", "stage")}
        assert made_by == {("data", name_a), ("teacher", name_b), ("stage", name_b)}
        assert {number for _, number, _ in kept} == {"1.json"}  # nothing was published twice
        assert not list(cluster.home("b").glob("store/writing/*"))
