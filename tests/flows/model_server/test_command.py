"""The command from its start to its end, asked by curl."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conf.home import Home
from models.base.files import weights_sha256
from tasks.runtime.runs.run_registry import save
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Store
from tests.factories import model_record, run_record
from tests.flows.driver import clean_environment
from tests.published import published_folder


@pytest.mark.slow
@pytest.mark.processes
def test_a_run_is_served_until_it_is_told_to_end(tmp_path: Path) -> None:
    home, folder = Home(tmp_path / "home"), published_folder(tmp_path / "model", "sequence-classification")
    home.root.mkdir(mode=0o700)
    identity = {"kind": "stage", "name": "small"}
    record = model_record("small", fingerprint=fingerprint(identity), weights_sha256=weights_sha256(folder))

    def write(place: Path) -> None:
        shutil.copytree(folder, place, dirs_exist_ok=True)
        (place / "record.json").write_text(record.model_dump_json())

    found = Store(home).publish("stage", "small", identity, record.fingerprint, {"run": "tiny-1", "ladder": "tiny"}, write)
    teacher, student = model_record("teacher"), record.model_copy(update={"folder": str(found.folder)})
    save(home, run_record("tiny-1", teacher, student, workload="sequence-classification", folder=str(home.runs / "tiny-1")))
    command = [sys.executable, "-m", "flows.cli.app", "serve-model", "tiny-1", "--log-share", "1", "--token-file", str(tmp_path / "token")]
    environment = clean_environment(LADDER_HOME=str(home.root), MLFLOW_TRACKING_URI="none")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stdout is not None
        try:
            head = [server.stdout.readline() for _ in range(6)]
            url = next(line.split()[1].rstrip(":") for line in head if "address" in line)
            token = (tmp_path / "token").read_text().strip()
            asked = ["curl", "--silent", "--fail", "--json", json.dumps({"inputs": ["some text"]}), "-H", f"Authorization: Bearer {token}"]
            answer = json.loads(subprocess.run([*asked, f"{url}/predict"], check=True, capture_output=True).stdout)
            assert answer["model"] == "tiny-1:small"
            server.send_signal(signal.SIGTERM)
            rest = server.stdout.read()
        finally:
            server.kill()
    assert (server.wait(), rest) == (0, "ended\n")
    (window,) = (home.windows / "tiny").iterdir()
    assert json.loads(window.read_text())["prediction"] == answer["predictions"][0]["label"]
