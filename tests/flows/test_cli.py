"""The command line as people and scripts use it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from conf.loading.load import SHIPPED, load
from flows.cli.app import PANELS
from tests.flows.driver import ROOT, Cli, Outcome, clean_environment

MODEL = {"name", "fingerprint", "parameters", "reused", "steps", "seconds", "folder", "weights_sha256", "metrics", "mlflow_run_id"}
STAGE = MODEL | {"retention", "gate"}
COMMANDS = [name for commands in PANELS.values() for name in commands]
BEFORE = """
import importlib.abc, os, sys

class Ends(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("torch", "prefect", "mlflow", "transformers", "datasets", "matplotlib"):
            sys.stdout.flush(), sys.stderr.flush(), os._exit(77)

sys.meta_path.insert(0, Ends())
from flows.cli.app import main
main()
"""


def ladder(*args: str, LADDER_HOME: str = "/nowhere/home", **env: str) -> Outcome:
    return Cli(Path(LADDER_HOME), env, cwd=ROOT)(*args, code=None)


def test_help_takes_less_than_a_second():
    """Of processor time, which is all that it takes: other work on the machine makes any process wait."""
    seconds, command = [], [sys.executable, "-m", "flows.cli.app", "--help"]
    for _ in range(3):
        before = os.times()
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 0
        assert all(f" {command} " in done.stdout for command in COMMANDS)
    assert min(seconds) < 1.0


def test_help_groups_the_commands_and_cuts_no_sentence():
    shown = ladder("--help", COLUMNS="80").out
    assert re.findall(r"─ (\w[\w ]*) ─", shown) == ["Options", *PANELS]
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "..." not in shown.partition("╭")[2]
    text = " ".join(shown.replace("│", " ").split())
    for commands in PANELS.values():
        for name, function in commands.items():
            sentence = " ".join((function.__doc__ or "").partition("\n\n")[0].split())
            assert sentence.endswith((".", "?"))
            assert f"{name} {sentence}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_fits_80_columns_and_cuts_no_sentence(command: str):
    done = ladder(command, "--help", COLUMNS="80")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "…" not in done.out


def test_version_is_that_of_the_package():
    assert ladder("--version").out == f"ladder {metadata.version('ladder-distillation')}\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("ruun",), "No such command 'ruun'. Did you mean 'run'"),
        (("run",), "Missing argument 'LADDER'. `ladder run --help`"),
        (("run", "digits", "--fersh"), "No such option: --fersh"),
        (("run", "digits", "--seed", "many"), "Invalid value for '--seed'"),
        (("run", "digits", "--seed", "-1"), "Invalid value for '--seed'"),
        (("rerun",), "Missing argument 'RUN'"),
        (("init", "--teacher", "x"), "Missing option '--data'"),
        (("init", "--teacher", "./nowhere", "--data", "digits"), "teacher.path: got "),
        (("plan", "digit"), "ladder: got 'digit'; allowed: a shipped ladder"),
        (("show", "nix"), "LADDER_HOME: got "),
        (("report", "nix"), "LADDER_HOME: got "),
        (("compare", "nix"), "Missing argument 'RUN'"),
        (("compare", "nix", "nax"), "LADDER_HOME: got "),
        (("prove", "digits", "--arms", ","), "--arms: got ','"),
        (("prove", "digits", "--seeds", "1"), "proof.seeds: got 1"),
        (("prove", "digits", "--budget", "soon"), "--budget: got 'soon'"),
        (("run", "digits", "--budget", "soon"), "--budget: got 'soon'"),
        (("bench", "nix"), "LADDER_HOME: got "),
        (("economics", "nix"), "LADDER_HOME: got "),
        (("promote", "--delta", "many"), "Invalid value for '--delta'"),
        (("rollback", "nix", "nax"), "Got unexpected extra argument"),
        (("models", "nix", "nax"), "Got unexpected extra argument"),
        (("serve", "--deployments", "nowhere.yaml"), "--deployments: got 'nowhere.yaml'"),
        (("serve", "--prefect-port", "0"), "Invalid value for '--prefect-port'"),
        (("deploy",), "Missing option '--work-pool'"),
        (("deploy", "--work-pool", "x", "--job-variable", "y"), "--job-variable: got 'y'"),
        (("notify", "here"), "URL: got 'here'"),
        (("notify", "http://here", "--on", "never"), "--on: got 'never'"),
        (("answer", "nix", "maybe"), "'maybe' is not one of 'approve', 'reject', 'extend'"),
        (("answer", "nix", "approve"), "LADDER_HOME: got "),
        (("cancel", "nix"), "LADDER_HOME: got "),
        (("clean",), "Missing option '--older-than'"),
        (("clean", "--older-than", "long"), "--older-than: got 'long'"),
        (("explain", "stagse"), "KEY: got 'stagse'"),
        (("list", "nix"), "Got unexpected extra argument"),
        (("runs", "nix"), "Got unexpected extra argument"),
        (("doctor", "nix"), "Got unexpected extra argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_gets_one_message_and_exit_code_2(bare: Cli, args: tuple[str, ...], says: str):
    done = bare(*args, code=2)
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    assert says in errors[0]
    assert done.out == ""


def completed(home: Path, *words: str) -> list[str]:
    """What bash is offered for the last of the words."""
    env = {"_LADDER_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("ladder", *words)), "COMP_CWORD": str(len(words))}
    return ladder(LADDER_HOME=str(home), **env).out.split()


def test_the_shell_completes_commands_ladders_runs_and_stages(undisturbed: Cli):
    home = undisturbed.home
    run = undisturbed.json("runs")[0]["run"]
    assert completed(home, "pro") == ["prove", "promote"]
    assert completed(home, "run", "") == ["digits", "llama-1b", "minilm", "python-stdlib", "sentiment", "smollm2"]
    assert completed(home, "plan", "s") == ["sentiment", "smollm2"]
    assert completed(home, "show", "ti") == completed(home, "rerun", "") == completed(home, "bench", "") == [run]
    assert completed(home, "compare", run, "") == [run]
    assert completed(home, "run", "digits", "--start-at", "") == ["half", "quarter", "eighth"]
    assert completed(home, "rerun", run, "--start-at", "t") == ["two", "three"]
    assert completed(home, "run", "nowhere", "--start-at", "") == []
    assert completed(home, "answer", run, "a") == ["approve"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_is_printed(shell: str):
    done = ladder("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.code == 0
    assert f"_LADDER_COMPLETE=complete_{shell}" in done.out


FIRST_LINES = [
    (("plan", "TINY"), "planning tiny; loading PyTorch"),
    (("run", "TINY"), "tiny: teacher and 3 stages; loading PyTorch, MLflow and Prefect"),
    (("rerun", "RUN"), "tiny: teacher and 3 stages; loading PyTorch, MLflow and Prefect"),
    (("prove", "TINY", "proof.seeds=2"), "tiny: teacher and 3 stages; loading PyTorch, MLflow and Prefect"),
    (("bench",), "RUN: measuring its models; loading PyTorch"),
    (("report",), "RUN: writing its report; loading matplotlib"),
    (("answer", "RUN", "approve"), "RUN: answering `approve`; loading Prefect"),
    (("clean", "--older-than", "1w"), "looking in HOME for results that no kept run uses; loading MLflow"),
    (("promote", "RUN"), "comparing a challenger with the champion; loading PyTorch, MLflow and Prefect"),
    (("rollback",), "looking for the earlier champion; loading MLflow"),
    (("models",), "reading MLflow's registry; loading MLflow"),
    (("doctor",), "checking Python, PyTorch, the store, the disk, Prefect and MLflow"),
    (("deploy", "--work-pool", "x"), "registering the deployments on work pool x; loading Prefect"),
    (("notify", "http://here"), "setting up notifications; loading Prefect"),
    (("notify", "--remove"), "removing notifications; loading Prefect"),
]


@pytest.mark.parametrize(("args", "line"), FIRST_LINES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_slow_command_says_what_it_does_before_it_loads_anything_heavy(finished: Cli, tiny: Path, args: tuple[str, ...], line: str):
    """Run in one process that any import of a heavy library ends, so that the order counts and not the speed of the machine."""
    names = {"TINY": str(tiny), "RUN": finished.json("runs")[0]["run"], "HOME": str(finished.home)}
    for short, name in names.items():
        args, line = tuple(word.replace(short, name) for word in args), line.replace(short, name)
    shutil.rmtree(finished.home / "figures", ignore_errors=True)  # with them a report needs nothing heavy
    env = clean_environment(LADDER_HOME=str(finished.home))
    done = subprocess.run([sys.executable, "-c", BEFORE, *args], env=env, cwd=finished.home.parent, capture_output=True, text=True)
    assert done.returncode == 77, done.stderr
    assert done.stderr.splitlines()[0].partition(" ")[2] == line
    assert done.stdout == ""


def test_importing_the_command_line_imports_nothing_heavy():
    code = "import sys, flows.cli.app; print(sorted({'torch', 'prefect', 'mlflow', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("args", "heavy"),
    [
        (("runs",), {"torch", "prefect", "mlflow", "transformers", "datasets", "matplotlib"}),
        (("show",), {"torch", "prefect", "mlflow", "transformers", "datasets", "matplotlib"}),
        pytest.param(("plan", "TINY"), {"prefect", "matplotlib"}, marks=pytest.mark.slow),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_that_looks_imports_no_library_that_it_does_not_use(finished: Cli, tiny: Path, args: tuple[str, ...], heavy: set[str]):
    told = f"lambda: print('imported:', *sorted(set({sorted(heavy)}) & set(sys.modules)))"
    code = f"import atexit, sys; atexit.register({told}); from flows.cli.app import main; main()"
    words = [word.replace("TINY", str(tiny)) for word in args]
    env = clean_environment(LADDER_HOME=str(finished.home))
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=env, cwd=finished.home.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].strip() == "imported:", done.stdout


def test_every_shipped_ladder_loads():
    paths = sorted(SHIPPED.glob("*.yaml"))
    assert [path.stem for path in paths] == ["digits", "llama-1b", "minilm", "python-stdlib", "sentiment", "smollm2"]
    assert [load(path.stem).ladder.name for path in paths] == [path.stem for path in paths]


def test_list_names_every_shipped_ladder(bare):
    assert [row["name"] for row in bare.json("list")] == ["digits", "llama-1b", "minilm", "python-stdlib", "sentiment", "smollm2"]
    assert "llama-1b" in bare("list").out


def test_explain_prints_a_ladder_with_what_its_short_forms_became(bare, tmp_path):
    teacher = "{source: train, shape: {hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}, training: {steps: 4}}"
    file = tmp_path / "short.yaml"
    file.write_text(f"name: short\ndata: python-stdlib\nteacher: {teacher}\nstages: [7k]\n")
    said = bare("explain", str(file), "stages.7k.training.steps=3").out
    assert "# 7k: 7,000 parameters became shape: {" in said
    assert "parameters: null" in said
    assert "steps: 3" in said


def test_explain_gives_meaning_unit_and_bounds(bare):
    said = bare("explain", "stages.objective.alpha").out
    assert "Weight of the teacher" in said
    assert "fraction" in said
    assert "did you mean" in bare("explain", "stages.objectve", code=2).err.lower()


def test_show_promises_its_names(undisturbed):
    shown = undisturbed.json("show")
    assert {"run", "ladder", "status", "teacher", "stages"} <= set(shown)
    assert set(shown["teacher"]) >= MODEL
    assert [stage["name"] for stage in shown["stages"]] == ["one", "two", "three"]
    for stage in shown["stages"]:
        assert set(stage) >= STAGE
        assert set(stage["retention"]) == {"parent", "root"}
        assert Path(stage["folder"], "model.safetensors").is_file()
    assert (shown["ladder"], shown["status"]) == ("tiny", "done")
    assert [stage["steps"] for stage in shown["stages"]] == [20, 120, 20]
    assert undisturbed.json("show", shown["run"]) == shown
    said = undisturbed("show").out
    assert all(name in said for name in ("teacher", "one", "two", "three", "report.html"))


def test_show_without_runs_and_of_an_unknown_run(bare, undisturbed):
    assert "LADDER_HOME" in bare("show", code=2).err
    assert bare("runs").out.startswith("no runs yet")
    assert bare.json("runs") == []
    assert "RUN: got 'tiny-1'" in undisturbed("show", "tiny-1", code=2).err


def test_runs_shows_every_run(undisturbed):
    rows = undisturbed.json("runs")
    assert [(row["ladder"], row["status"], row["stages"]) for row in rows] == [("tiny", "done", "3/3")]
    assert rows[0]["run"] in undisturbed("runs").out


@pytest.mark.slow
def test_plan_tells_what_a_run_would_do(bare, undisturbed, tiny):
    before = bare.json("plan", tiny)
    assert [model["action"] for model in (before["teacher"], *before["stages"])] == ["compute"] * 4
    assert not bare.home.exists(), "a plan changes nothing"
    after = undisturbed.json("plan", tiny)
    assert [model["action"] for model in (after["teacher"], *after["stages"])] == ["reuse"] * 4
    shown = undisturbed.json("show")
    assert [model["parameters"] for model in after["stages"]] == [stage["parameters"] for stage in shown["stages"]]
    assert [model["fingerprint"] for model in after["stages"]] == [stage["fingerprint"] for stage in shown["stages"]]
    assert all(model["ratio"] > 1 for model in after["stages"])
    said = undisturbed("plan", tiny, "stages.two.training.learning_rate=0.001").out
    assert "two: training.learning_rate: 0.003 -> 0.001" in said


def test_plan_of_the_real_ladder_needs_no_checkpoint(bare):
    planned = bare.json("plan", "llama-1b")
    sizes = [planned["teacher"]["parameters"], *(stage["parameters"] for stage in planned["stages"])]
    for size, named in zip(sizes[1:], (300e6, 100e6, 30e6), strict=True):
        assert size == pytest.approx(named, rel=0.02)


def test_doctor_examines_everything(undisturbed):
    checks = {check["name"]: check for check in json.loads(undisturbed("doctor", "--json", code=None).out)}
    assert list(checks) == ["Python", "torch", "store", "disk", "Prefect", "MLflow"]
    assert all(check["ok"] for name, check in checks.items() if name != "disk"), checks
    assert undisturbed.env["PREFECT_API_URL"] in checks["Prefect"]["found"]


def test_doctor_says_what_to_do_about_a_server_that_is_gone(undisturbed):
    lost = Cli(undisturbed.home, {"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    said = lost("doctor", code=1).out
    assert "FAIL  Prefect" in said
    assert "unset PREFECT_API_URL" in said
