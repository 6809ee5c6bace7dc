"""Each import contract of pyproject.toml fails when a forbidden import is added to a copy of the source, and only that one fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = [contract["name"] for contract in SETTINGS["contracts"]]

# Contract -> a file and an import that this contract alone forbids: in particular, no import the other way round exists.
FORBIDDEN = {
    "Four layers, imports one way": ("conf/errors.py", "models.base.statistics"),
    "Rooms of tasks, imports one way": ("tasks/store/fingerprint.py", "tasks.records.format"),
    "Rooms of models, imports one way": ("models/architectures/gguf.py", "models.data.token_classes"),
    "Rooms of conf, imports one way": ("conf/home.py", "conf.schema.base"),
    "No circle of imports in a room": ("tasks/data/reading/tables.py", "tasks.data.build"),
    "models and conf know neither Prefect nor MLflow nor typer": ("conf/secrets.py", "typer"),
    "Only conf/loading/load.py imports OmegaConf": ("flows/adapter/run_labels.py", "omegaconf"),
    "records and store are free of torch, Prefect, MLflow and matplotlib": ("tasks/records/format.py", "matplotlib"),
    "Only tasks/tracking imports MLflow": ("flows/adapter/run_labels.py", "mlflow"),
    "Steps of tasks are free of Prefect": ("tasks/data/prepare.py", "prefect"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the Python files and of pyproject.toml."""
    copy = tmp_path_factory.mktemp("source")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in SETTINGS["root_packages"]:
        shutil.copytree(ROOT / package, copy / package, ignore=lambda folder, names: [n for n in names if not _is_source(Path(folder, n))])
    assert broken(source=copy) == []
    return copy


def _is_source(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__")


def broken(source: Path) -> list[str]:
    """Names of the contracts that the source in a folder breaks."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo"]
    checked = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    verdicts = dict(re.findall(r"^(.+?) (KEPT|BROKEN)\b", checked.stdout, re.MULTILINE))
    assert list(verdicts) == CONTRACTS, checked.stdout + checked.stderr
    names = [name for name, verdict in verdicts.items() if verdict == "BROKEN"]
    assert checked.returncode == bool(names)
    return names


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_forbidden_import_breaks_its_contract_alone(source: Path, contract: str):
    file, module = FORBIDDEN[contract]
    path = source / file
    before = path.read_text()
    path.write_text(f"{before}\nimport {module}\n")
    try:
        assert broken(source) == [contract]
    finally:
        path.write_text(before)


def test_every_forbidden_import_belongs_to_a_contract():
    assert set(FORBIDDEN) == set(CONTRACTS)
