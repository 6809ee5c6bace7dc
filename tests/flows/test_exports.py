"""Exports as a step of a ladder: made, reused, and a refused one fails the run after its report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.flows.driver import Cli

pytestmark = pytest.mark.slow  # a graph is traced, and four processes import torch


def test_a_ladder_exports_its_last_student(undisturbed: Cli, tiny: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(undisturbed.home, home)
    cli = Cli(home, dict(undisturbed.env))
    strict = "{format: onnx-int8, max_kl: 1e-12, examples: 64}"
    refused = cli("run", tiny, f"exports=[{{format: hf, examples: 64}}, {strict}]", code=3)
    assert "three as onnx-int8 is outside its tolerance: a mean KL divergence" in refused.err
    shown = cli.json("show")
    assert shown["status"] == "failed"
    assert [(each["name"], each["refused"] is None) for each in shown["exports"]] == [("hf", True), ("onnx-int8", False)]
    assert "Exports" in Path(shown["report"]).read_text()
    assert [path.name.rpartition("-")[0] for path in (home / "store" / "export").iterdir()] == ["three-hf"]
    again = cli("run", tiny, "exports=[{format: hf, examples: 64}]")
    assert again.code == 0
    assert [each["reused"] for each in cli.json("show")["exports"]] == [True]
    early = cli("run", tiny, "exports=[gguf]", code=2)
    assert "exports[0].format: got 'gguf'; allowed: hf, onnx or onnx-int8, for workload image-classification" in early.err
