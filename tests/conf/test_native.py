"""Settings of native libraries: there before a training process starts, giving way to those of the user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf import native

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
START = """
import json, os, sys
began = os.environ.setdefault("BEGAN", str(os.getpid()))
from conf.native import prepare_process
prepare_process(sys.argv[1:])
maps = "torch" in sys.modules
print(json.dumps({**os.environ, "same": began == str(os.getpid()), "argv": sys.argv[1:], "torch": maps, "times": len(sys.argv)}))
"""


def _started(*arguments: str, **more: str) -> dict[str, object]:
    own = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", native.TUNABLES, "THP_MEM_ALLOC_ENABLE"}
    env = {key: value for key, value in os.environ.items() if key not in own}
    done = subprocess.run(
        [sys.executable, "-c", START, *arguments],
        env={**env, "PYTHONPATH": str(ROOT), **more},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(
    not native._has_huge_pages(),
    reason="glibc 2.35 or newer alone knows these settings; with others none is set, which the other tests cover",
)
@pytest.mark.parametrize("arguments", [("run", "digits", "a b=é"), ("runs",), ()])
def test_a_training_starts_with_the_settings_and_its_own_arguments(arguments: tuple[str, ...]) -> None:
    found = _started(*arguments)
    assert found["argv"] == list(arguments)
    assert found["same"]  # the process id stays
    assert {**native.OPENMP, **native.ALLOCATOR}.items() <= found.items()


@pytest.mark.skipif(not native._has_huge_pages(), reason="asks glibc 2.35 or newer for its list of settings; other C libraries have none")
def test_the_c_library_knows_each_setting() -> None:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").split()
    loader = next(word for word in maps if "/ld-linux" in word)
    listed = subprocess.run([loader, "--list-tunables"], env=native.ALLOCATOR, capture_output=True, text=True, check=True).stdout
    found = dict(line.split(" (")[0].split(": ") for line in listed.splitlines() if line.startswith("glibc.malloc."))
    wanted = dict(each.split("=") for each in native.ALLOCATOR[native.TUNABLES].split(":"))
    assert {name: int(found[name], 0) for name in wanted} == {name: int(value) for name, value in wanted.items()}


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        ({"GOMP_SPINCOUNT": "7"}, ()),
        ({"OMP_WAIT_POLICY": "active"}, ("GOMP_SPINCOUNT",)),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=0"}, ("THP_MEM_ALLOC_ENABLE",)),
        ({"THP_MEM_ALLOC_ENABLE": "1"}, ("GLIBC_TUNABLES",)),
    ],
)
def test_the_users_settings_stay(given: dict[str, str], absent: tuple[str, ...]) -> None:
    found = _started("run", "digits", **given)
    assert given.items() <= found.items()
    assert not set(absent) & set(found)


def test_the_command_line_prepares_before_torch_is_imported() -> None:
    code = "import sys\nsys.argv = ['ladder', '--version']\nimport flows.cli.app as app\ntry: app.main()\nexcept SystemExit: pass\n"
    code += "import os; assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    env = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == native.OPENMP["GOMP_SPINCOUNT"]
