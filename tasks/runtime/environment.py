"""Packages, code version and machine of a run, recorded with it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.base.device import hardware

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "safetensors",
    "datasets",
    "numpy",
    "scikit-learn",
    "prefect",
    "mlflow",
    "omegaconf",
    "pydantic",
)


def environment() -> dict[str, Any]:
    """Python, packages, git commit and machine, as plain JSON."""
    import psutil

    tree = Path(__file__).parents[2]
    packages = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "packages": packages,
        "torch": packages["torch"],
        "git_commit": _git(tree, "rev-parse", "HEAD"),
        "git_dirty": bool(_git(tree, "status", "--porcelain", "--untracked-files=no")),
        "machine": platform.node(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": list(hardware().gpus),
        "argv": sys.argv[1:],
    }


def processor() -> str:
    """Model name of the processor, or its architecture where the system has none."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(tree: Path, *arguments: str) -> str | None:
    if not (tree / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(tree), *arguments], capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
