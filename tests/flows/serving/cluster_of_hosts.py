"""A cluster of hosts that share an object store, Prefect's server and MLflow's server, and nothing else."""

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

from tasks.runtime.empty_databases import begin_database
from tests.flows.driver import clean_environment, wait_for
from tests.flows.served import GUARDED
from tests.hosts import Hosts
from tests.s3 import SERVE_BUCKET, s3_environment

TEACHER_STEPS = 90
LESS = ("audit.enabled=false", "bench.after_stage=false")
# Asks a server on the host where it runs; prints the answer.
ASK = """
import sys, urllib.request
method, url, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, {"content-type": "application/json"}, method=method)
print(urllib.request.urlopen(request, timeout=60).read().decode() or "null")
"""
# Prints kind, number and run of every manifest in the object store.
LIST = """
import json, s3fs
files = s3fs.S3FileSystem(skip_instance_cache=True)
for name in files.find("ladders/shared"):
    if "/manifest-" in name:
        print(json.dumps([name.split("/")[2], name.rpartition("-")[2], json.loads(files.cat_file(name))["run"]]))
"""


def one_stage(tiny: Path, folder: Path) -> Path:
    """A ladder of a teacher and a stage, as a file in a folder."""
    ladder = folder / "tiny.yaml"
    ladder.write_text(
        tiny.read_text().partition("  - name: two")[0].replace("training: {steps: 60,", f"training: {{steps: {TEACHER_STEPS},")
    )
    return ladder


class Cluster:
    """The hosts, and commands on them.

    Args:
        made: The hosts.
        folder: Of their homes and logs.
        mlflow: Whether there is a server of MLflow; else runs are not recorded.
    """

    def __init__(self, made: Hosts, folder: Path, *, mlflow: bool = False) -> None:
        self.made, self.folder, self.mlflow = made, folder, mlflow

    def environment(self, host: str) -> dict[str, str]:
        server = "127.0.0.1" if host == "server" else self.made.server_address(host)
        temporary = self.folder / f"tmp-{host}"
        temporary.mkdir(exist_ok=True)
        ours = {
            "LADDER_HOME": str(self.home(host)),
            "LADDER_ROOTS": str(self.folder),
            "LADDER_STORE_LEASE": "10",
            "MLFLOW_TRACKING_URI": f"http://{server}:5001" if self.mlflow else "none",
            "PREFECT_API_URL": f"http://{server}:4200/api",
            "PREFECT_HOME": str(self.folder / f"prefect-{host}"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "TMPDIR": str(temporary),  # whose locks have the trainings of a machine take turns
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

    def serve(self, stack: ExitStack) -> None:
        """Start the servers, and wait until they answer."""
        (self.folder / "prefect-server").mkdir()
        begin_database(self.folder / "prefect-server" / "prefect.db", "prefect")
        objects = stack.enter_context(self.started("server", "-c", SERVE_BUCKET, "0.0.0.0", "5000"))
        prefect = stack.enter_context(self.started("server", "-c", GUARDED, "server", "start", "--host", "0.0.0.0", "--port", "4200"))
        if self.mlflow:
            place, database = self.folder / "mlflow", self.folder / "mlflow.db"
            begin_database(database, "mlflow")
            stored = ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", str(place)]
            command = ["-m", "mlflow", "server", "--host", "0.0.0.0", "--port", "5001", "--workers", "1", "--allowed-hosts", "*", *stored]
            log = stack.enter_context(self.started("server", *command))
            wait_for(lambda: self.answers("5001/health"), f"MLflow's server, see {log}", 900)
        wait_for(lambda: "serving" in objects.read_text(), "the object store", 900)
        wait_for(lambda: self.answers("4200/api/health"), f"Prefect's server, see {prefect}", 900)

    def answers(self, place: str) -> bool:
        """Whether a server answers at a port and path."""
        command = self.made.command("server", sys.executable, "-c", ASK, "GET", f"http://127.0.0.1:{place}", "")
        return subprocess.run(command, env=self.environment("server"), capture_output=True, check=False).returncode == 0

    def prefect(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of Prefect's API."""
        return self._ask(method, f"http://127.0.0.1:4200/api{path}", body)

    def record(self, path: str, body: Any) -> Any:
        """The answer of MLflow's API to a POST."""
        return self._ask("POST", f"http://127.0.0.1:5001/api/2.0/mlflow{path}", body)

    def _ask(self, method: str, url: str, body: Any) -> Any:
        return json.loads(self.run("server", "-c", ASK, method, url, "" if body is None else json.dumps(body)))

    def published(self) -> list[tuple[str, str, str]]:
        """Kind, number of the manifest and run of everything in the object store."""
        return [tuple(json.loads(line)) for line in self.run("server", "-c", LIST).splitlines()]
