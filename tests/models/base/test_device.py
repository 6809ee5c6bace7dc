"""The remembered hardware is torch's; a reused result needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from models.base.device import hardware, resolve_device, resolve_precision

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[3]
ASK = """
import json, sys
from models.base.device import hardware, resolve_device, resolve_precision
known = hardware()
answers = resolve_device("auto"), resolve_precision("auto", "cpu")
print(json.dumps([list(known.gpus), known.bf16_gpu, known.bf16_cpu, *answers, "torch" in sys.modules]))
"""


def ask(home: Path, **env: str) -> list[Any]:
    base = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "LADDER_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", ASK], env={**base, **env}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def needs_no_gpu() -> None:
    import torch

    if torch.cuda.is_available() or any(any(Path("/dev").glob(pattern)) for pattern in ("nvidia*", "kfd", "dxg", "dri/renderD*")):
        pytest.skip("needs a machine without a GPU: with one, torch is asked each time, so there is no memory to test")


@pytest.mark.slow
def test_torch_is_queried_once_and_again_where_it_obeys_another_setting(tmp_path: Path) -> None:
    needs_no_gpu()
    first = ask(tmp_path)
    assert first[-1], "torch was asked"
    second = ask(tmp_path)
    assert second == [*first[:-1], False]
    assert ask(tmp_path, ATEN_CPU_CAPABILITY="default")[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["hardware.json"]


def test_torch_is_queried_again_after_a_change_and_where_the_memory_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_no_gpu()
    monkeypatch.setenv("LADDER_HOME", str(tmp_path))
    hardware.cache_clear()
    asked, file = hardware(), tmp_path / "hardware.json"
    known = json.loads(file.read_text())
    others = [{**known["key"], key: "another"} for key in ("torch", "processor", "machine")]
    damaged = ["", "{}", '{"key": 1}', json.dumps({**known, "hardware": {"gpus": []}})]
    for text in [*(json.dumps({**known, "key": key}) for key in others), *damaged]:
        file.write_text(text)
        hardware.cache_clear()
        assert hardware() == asked
        assert json.loads(file.read_text()) == known, "what was remembered has been replaced"
    hardware.cache_clear()


def test_nothing_is_written_where_there_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_HOME", str(tmp_path / "none"))
    hardware.cache_clear()
    assert hardware()
    assert not (tmp_path / "none").exists()
    hardware.cache_clear()


def test_the_remembered_hardware_agrees_with_torch() -> None:
    import torch

    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"
    assert resolve_precision("fp32", "cpu") == "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or "AMX" in torch.backends.cpu.get_cpu_capability()
    assert resolve_precision("auto", "cpu") == ("bf16" if fast else "fp32")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"compute\.device: got .*cuda"):
            resolve_device("cuda")
