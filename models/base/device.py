"""Resolve the device and precision of a training where settings say auto.

Importing torch takes longer than finding a whole ladder in the store. So its answer is remembered in
`LADDER_HOME/hardware.json`, until something that it depends on changes, and only on a machine without any GPU device.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conf.atomic import write_atomic
from conf.errors import UserError
from conf.home import home
from conf.schema.compute import Compute
from conf.schema.ladder import Ladder
from conf.schema.stage.training import Training
from models.base.files import read_json
from models.base.processes import process_count

GPU_DEVICES = ("nvidia*", "kfd", "dxg", "dri/renderD*")  # in /dev
CPU_SETTING = "ATEN_CPU_CAPABILITY"  # the one variable that changes torch's answer about the processor


@dataclass(frozen=True)
class Hardware:
    """Torch's description of this machine: its GPUs by name, and whether it multiplies bf16 matrices in hardware."""

    gpus: tuple[str, ...]
    bf16_gpu: bool
    bf16_cpu: bool


@functools.cache
def hardware() -> Hardware:
    """The hardware of this machine, from the remembered answer where that is safe."""
    key, place = _key(), home().root / "hardware.json"
    if key is None:
        return _ask_torch()
    with suppress(OSError, ValueError, TypeError, KeyError):
        remembered = read_json(place)
        if remembered["key"] == key:
            return Hardware(**{**remembered["hardware"], "gpus": tuple(remembered["hardware"]["gpus"])})
    current = _ask_torch()
    if place.parent.is_dir():
        with suppress(OSError):  # a full disk is reported by the steps that must write
            write_atomic(place, json.dumps({"key": key, "hardware": asdict(current)}, indent=1))
    return current


def resolve_device(device: str) -> str:
    """`cpu` or `cuda`.

    Raises:
        UserError: The setting is `cuda` and torch has no GPU.
    """
    if device == "cpu":
        return device
    available = bool(hardware().gpus)
    if device == "cuda" and not available:
        raise UserError.about("compute.device", device, "cpu or auto on this machine, which shows torch no GPU", "Set compute.device=auto.")
    return "cuda" if available else "cpu"


def resolve_precision(precision: str, device: str) -> str:
    """`bf16` or `fp32`. Auto takes bf16 where the hardware multiplies bf16 matrices (GPU, AVX512-BF16, AMX), else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if (hardware().bf16_gpu if device == "cuda" else hardware().bf16_cpu) else "fp32"


def _ask_torch() -> Hardware:
    import torch

    gpus = tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
    cpu = torch.cpu._is_avx512_bf16_supported() or "AMX" in torch.backends.cpu.get_cpu_capability()
    return Hardware(gpus, bool(gpus) and torch.cuda.is_bf16_supported(), cpu)


def _key() -> dict[str, Any] | None:
    """Everything that the answer depends on; None where that cannot be observed, as with a GPU."""
    if not sys.platform.startswith("linux") or any(any(Path("/dev").glob(pattern)) for pattern in GPU_DEVICES):
        return None
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    processor = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return {
        "torch": version("torch"),
        "processor": hashlib.sha256("\n".join(processor).encode()).hexdigest(),
        "machine": platform.machine(),
        CPU_SETTING: os.environ.get(CPU_SETTING),
    }


def use_threads(ladder: Ladder) -> None:
    """Apply `compute.threads`."""
    if ladder.compute.threads and process_count() == 1:  # workers have theirs from their launcher
        import torch

        torch.set_num_threads(ladder.compute.threads)


def threads_each(compute: Compute, processes: int) -> int:
    """Threads of each of several processes that share the threads of a run on this machine; at least 1."""
    return max((compute.threads or len(os.sched_getaffinity(0))) // processes, 1)


def precision_of(ladder: Ladder, training: Training) -> str:
    """`bf16` or `fp32`, on the device that this process will use."""
    return resolve_precision(training.precision, resolve_device(ladder.compute.device))


def memory_bytes() -> int:
    """The memory that a model may fill here, in bytes: the machine's, or that of its largest GPU."""
    import psutil
    import torch

    cards = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    return max([psutil.virtual_memory().total, *cards])
