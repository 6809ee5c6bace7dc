"""How fast a training will be: as it was before on this machine, or a share of what a large matrix product reaches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from conf.home import Home
from conf.schema.ladder import Ladder
from models.base.device import precision_of, resolve_device
from models.speed.matmul import matrix_product_peak
from tasks.runtime.run_registry import all_runs

# Where nothing was trained here yet: the share of the measured matrix-product peak that a wide model reaches, and the width that
# reaches half of it. Narrow matrices keep a machine waiting for memory.
ASSUMED_SHARE = 0.3
HALF_WIDTH = 256


@dataclass(frozen=True)
class Pace:
    """FLOP/s to expect of a training: what a model of that name reached before, or a share of the machine's peak."""

    known: dict[str, float]
    peak: float  # FLOP/s of a large matrix product; 0 where nothing had to be measured
    basis: str

    def of(self, name: str, width: int) -> float:
        """What to expect of a model whose residual stream has `width` features."""
        if name in self.known:
            return self.known[name]
        if not self.peak:
            return sum(self.known.values()) / len(self.known)
        return self.peak * ASSUMED_SHARE * width / (width + HALF_WIDTH)


def expected_pace(home: Home, ladder: Ladder) -> Pace:
    """What was reached before on this kind of device, or shares of what a matrix product reaches now."""
    device = resolve_device(ladder.compute.device)
    for run in all_runs(home):
        trained = [m for m in (run.teacher, *run.stages) if m and m.seconds > 0 and m.flops > 0]
        if run.ladder == ladder.name and trained and bool(run.environment.get("gpus")) == (device == "cuda"):
            speed = sum(m.flops for m in trained) / sum(m.seconds for m in trained)
            basis = f"the speed that each model reached in {run.run}, {_rate(speed)} on the whole"
            return Pace({m.name: m.flops / m.seconds for m in trained}, 0.0, basis)
    precision = precision_of(ladder, ladder.stages[0].training)
    peak = matrix_product_peak(dtype=torch.bfloat16 if precision == "bf16" else torch.float32, device=device)
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"this machine's processor ({torch.get_num_threads()} threads, no GPU in use)"
    )
    basis = f"up to {ASSUMED_SHARE:.0%} for wide models, of the {_rate(peak)} of a {precision} matrix product measured now on {where}"
    return Pace({}, peak, basis)


def _rate(speed: float) -> str:
    return f"{speed / 1e12:.3g} TFLOP/s" if speed >= 1e12 else f"{speed / 1e9:.3g} GFLOP/s"
