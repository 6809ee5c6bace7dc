"""`ladder promote`, `models` and `rollback` on real runs, by the commands."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from tests.flows.driver import Cli, ask_prefect, clean_environment, run_python, wait_for

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def two(undisturbed: Cli, tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, list[str]]:
    """A home with two runs, the second with another last stage; their names, the first one first."""
    home = tmp_path_factory.mktemp("promoted") / "home"
    shutil.copytree(undisturbed.home, home)
    cli = Cli(home, dict(undisturbed.env))
    cli("run", tiny, "stages.three.training.steps=2", "stages.three.objective.alpha=0.1")
    return cli, [run["run"] for run in reversed(cli.json("runs"))]


def aliases(cli: Cli) -> dict[str, str]:
    return {alias: version["version"] for version in cli.json("models", "tiny") for alias in version["aliases"]}


@pytest.mark.slow
def test_a_first_champion_a_refusal_a_forced_one_and_the_way_back(two: tuple[Cli, list[str]]) -> None:
    cli, (good, poor) = two
    assert cli.json("show", good)["version"] == "tiny/1"
    assert aliases(cli) == {"challenger": "2"}
    first = cli.json("promote", good, "--by", "Ann")
    assert (first["promoted"], first["version"], first["previous"], first["by"]) == (True, "1", None, "Ann")
    assert first["judgement"]["data"] == f"the validation split of {good}"

    refused = cli("promote", poor, code=3)
    assert f"judged on the validation split of {poor}" in refused.out
    assert refused.err.splitlines()[-1].startswith("error: tiny/2 was not promoted: it may be worse than tiny/1 by ")
    assert aliases(cli) == {"champion": "1", "challenger": "2"}
    assert cli("promote", "tiny/2", "--force", code=2).err.splitlines()[-1].startswith("error: --reason: got ''")

    forced = cli.json("promote", "tiny/2", "--force", "--reason", "a try")
    assert forced["forced"]
    assert forced["judgement"]["low"] < -0.01
    assert aliases(cli) == {"champion": "2", "previous": "1"}
    back = cli("rollback", "--reason", "worse").out
    assert back.startswith("tiny/1 is champion again since ")
    assert aliases(cli) == {"champion": "1"}
    shown = cli("models").out
    assert f"{good}:three" in shown
    assert "champion" in shown


@pytest.mark.slow
def test_names_that_do_not_exist_are_answered(two: tuple[Cli, list[str]]) -> None:
    cli, _ = two
    for command, says in (
        (("promote", "tiny/9"), "error: MODEL: got 'tiny/9'; allowed: one of tiny/2"),
        (("models", "tinny"), "error: NAME: got 'tinny'; allowed: one of tiny. Did you mean 'tiny'?"),
        (("rollback", "nix"), "error: NAME: got 'nix'; allowed: a model with a champion"),
    ):
        assert cli(*command, code=2).err.splitlines()[-1].startswith(says)


PROMOTE = """
import sys
from conf.home import home
from flows.serving.environment import prepare_environment
prepare_environment(home())
from flows.promote import promote
state = promote(sys.argv[1], by="Ann", return_state=True)
print(state.name, state.message)
"""


@pytest.mark.slow
def test_the_flow_pauses_for_a_person_who_decides(two: tuple[Cli, list[str]]) -> None:
    cli, (good, poor) = two
    if aliases(cli).get("champion") != "1":
        cli("promote", good, "--force", "--reason", "to begin with")
    settings = cli.home / "runs" / poor / "ladder.yaml"
    plain = yaml.safe_load(settings.read_text())
    settings.write_text(yaml.safe_dump({**plain, "promotion": {"policy": "ask", "delta": 0.9}}))
    api = cli.env["PREFECT_API_URL"]

    def decided(choice: str) -> str:
        with ThreadPoolExecutor() as pool:
            flow = pool.submit(run_python, PROMOTE, "tiny/2", env=clean_environment(LADDER_HOME=str(cli.home), **cli.env))
            paused = {"flow_runs": {"name": {"any_": ["promote tiny/2"]}, "state": {"type": {"any_": ["PAUSED"]}}}}

            def asked() -> str | None:
                found = ask_prefect("POST", f"{api}/flow_runs/filter", json=paused).raise_for_status().json()
                return found[0]["id"] if found else None

            run = wait_for(asked, "the question")
            message = ask_prefect("GET", f"{api}/flow_runs/{run}").json()["state"]["message"]
            assert message.startswith("tiny/2 waits for a decision until ")
            answer = {"run_input": {"choice": choice, "by": "Cy", "note": "as it is"}}
            assert ask_prefect("POST", f"{api}/flow_runs/{run}/resume", json=answer).json()["status"] == "ACCEPT"
            return flow.result().out

    assert "a person decided so (as it is)" in decided("refuse")
    assert aliases(cli)["champion"] == "1"
    assert "Completed" in decided("promote")
    assert aliases(cli)["champion"] == "2"
    newest = max((cli.home / "promotions" / "tiny").glob("*.json"), key=lambda path: int(path.stem))
    assert (json.loads(newest.read_text())["by"], json.loads(newest.read_text())["reason"]) == ("Cy", "as it is")
    pages = ask_prefect("POST", f"{api}/artifacts/filter", json={"artifacts": {"key": {"any_": ["ladder-promotion"]}}}).json()
    assert any("tiny/2: promoted" in page["data"] for page in pages)


@pytest.mark.slow
def test_fresh_pictures_in_a_folder_for_each_class_judge_two_students(two: tuple[Cli, list[str]], tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    cli, (good, poor) = two
    digits: Any = load_digits()
    for place, (image, label) in enumerate(zip(digits.images[:300], digits.target[:300], strict=True)):
        folder = tmp_path / "fresh" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype("uint8")).save(folder / f"{place}.png")
    if aliases(cli).get("champion") != "1":
        cli("promote", good, "--force", "--reason", "to begin with")
    refused = cli("promote", poor, "--data", f"{tmp_path}/fresh/*/*.png", code=3)
    assert f"judged on fresh rows of {tmp_path}/fresh" in refused.out
    assert "tiny/2 was not promoted: it may be worse than tiny/1 by " in refused.err
    (tmp_path / "fresh" / "7").rename(tmp_path / "fresh" / "seven")
    other = cli("promote", poor, "--data", f"{tmp_path}/fresh/*/*.png", code=2).err
    assert "--data: got " in other


@pytest.mark.slow
def test_no_request_is_lost_when_the_champion_that_is_served_changes(two: tuple[Cli, list[str]], tmp_path: Path) -> None:
    cli, (good, poor) = two
    if aliases(cli).get("champion") != "1":
        cli("promote", good, "--force", "--reason", "to begin with")
    image = io.BytesIO()
    Image.new("L", (8, 8), 128).save(image, "png")
    body = {"inputs": [base64.b64encode(image.getvalue()).decode()]}
    answers: list[tuple[int, str]] = []
    stop = threading.Event()
    command = [sys.executable, "-m", "flows.cli.app", "serve-model", "tiny@champion"]
    environment = clean_environment(LADDER_HOME=str(cli.home))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stdout is not None
        clients: list[threading.Thread] = []
        try:
            url = next(line.split()[1].rstrip(":") for line in server.stdout if "address" in line)

            def ask() -> None:
                with httpx.Client(timeout=30) as client:
                    while not stop.is_set():
                        answer = client.post(f"{url}/predict", json=body)
                        answers.append((answer.status_code, answer.json().get("model", "")))

            clients = [threading.Thread(target=ask) for _ in range(4)]
            for client in clients:
                client.start()
            wait_for(lambda: ("tiny/1" in answers[-1][1]) if answers else False, "answers of the first champion")
            cli("promote", poor, "--force", "--reason", "a try")
            wait_for(lambda: "tiny/2" in answers[-1][1], "answers of the second champion")
            cli("rollback", "--reason", "worse")
            wait_for(lambda: "tiny/1" in answers[-1][1], "answers of the first champion again")
        finally:
            stop.set()
            for client in clients:
                client.join()
            server.terminate()
            server.stdout.read()
    assert server.wait() == 0
    assert {status for status, _ in answers} == {200}
    print(f"{len(answers)} requests over two changes of the champion, none lost")
