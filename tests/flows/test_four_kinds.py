"""One ladder of four kinds of stages, above a root with another tokenizer that writes further rows."""

from __future__ import annotations

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
    assert list(stages) == ["teacher", "aligned", "reasoned", "corrected", "cached"], done.err
    root = stages["teacher"]["metrics"]["bits_per_byte"]
    assert all(root < stage["metrics"]["bits_per_byte"] < 8 for name, stage in stages.items() if name != "teacher")
    assert "full" in stages["cached"]["signals"]
    assert shown["generation"][0]["kept"] > 0
