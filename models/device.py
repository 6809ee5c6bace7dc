"""Which device and which precision a training uses when the settings say `auto`."""

from __future__ import annotations

import torch

from conf.errors import UserError


def resolve_device(device: str) -> str:
    """`cpu` or `cuda`.

    Raises:
        UserError: `cuda` is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError.about("compute.device", device, "cpu or auto on this machine, which shows torch no GPU", "Set compute.device=auto.")
    return "cuda" if available and device != "cpu" else "cpu"


def resolve_precision(precision: str, device: str) -> str:
    """`bf16` or `fp32`. Auto takes bf16 where the hardware multiplies bf16 matrices (GPU, AVX512-BF16, AMX), else fp32."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    capabilities = torch.backends.cpu.get_cpu_capability()
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or "AMX" in capabilities else "fp32"
