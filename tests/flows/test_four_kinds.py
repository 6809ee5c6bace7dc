"""One ladder of four kinds of stages, above a root with another tokenizer that writes further rows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.slow
def test_aligned_reasoned_corrected_and_cached_stages_follow_each_other(cli, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "sums.yaml", tmp_path / "sums.yaml")
    subprocess.run([sys.executable, EXAMPLES / "sums.py"], cwd=tmp_path, check=True)
    done = cli("run", tmp_path / "sums.yaml", "compute.at_once=null", "bench.after_stage=false")
    shown = cli.json("show")
    stages = {stage["name"]: stage for stage in shown["stages"]}
    assert list(stages) == ["aligned", "reasoned", "corrected", "cached"], done.err
    root = shown["teacher"]["metrics"]["bits_per_byte"]
    assert all(root < stage["metrics"]["bits_per_byte"] < 8 for stage in stages.values())
    record = json.loads((Path(shown["folder"]) / "record.json").read_text())
    assert record["stages"][-1]["signals"].startswith("full, ")
    assert shown["generation"][0]["kept"] > 0
