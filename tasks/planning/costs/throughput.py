"""Expected FLOP/s of a training, from earlier runs or a matrix product."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from conf.home import Home
from conf.schema.ladder import Ladder
from models.base.device import precision_of, resolve_device
from models.speed.matmul import matrix_product_peak
from tasks.records.format import operations_rate, percent
from tasks.runtime.runs.run_registry import full_record, list_runs

# Where nothing was trained here yet: the share of the measured matrix-product peak that a wide model reaches, and the width that
# reaches half of it. Narrow matrices keep a machine waiting for memory.
ASSUMED_SHARE = 0.3
HALF_WIDTH = 256


@dataclass(frozen=True)
class Throughput:
    """FLOP/s to expect of a training: those of a model of that name in an earlier run, or a share of the machine's peak."""

    measured: dict[str, float]  # by model
    peak: float  # FLOP/s of a large matrix product; 0 where nothing had to be measured
    basis: str

    def of(self, name: str, width: int) -> float:
        """FLOP/s to expect of a model whose residual stream has `width` features."""
        if name in self.measured:
            return self.measured[name]
        if not self.peak:
            return sum(self.measured.values()) / len(self.measured)
        return self.peak * ASSUMED_SHARE * width / (width + HALF_WIDTH)


def expected_throughput(home: Home, ladder: Ladder) -> Throughput:
    """Throughput of the last run of this ladder on this kind of device, or shares of a matrix product measured now."""
    device = resolve_device(ladder.compute.device)
    for listed in list_runs(home):
        run = full_record(home, listed.run) if listed.ladder == ladder.name else None
        if run is None:
            continue
        trained = [m for m in (run.teacher, *run.stages) if m and m.seconds > 0 and m.flops > 0]
        if trained and bool(run.environment.get("gpus")) == (device == "cuda"):
            spent = {m.name: m.seconds + m.signal_seconds for m in trained}  # stored answers are part of the operations
            speed = sum(m.flops for m in trained) / sum(spent.values())
            basis = f"the speed that each model reached in {run.run}, {operations_rate(speed)} on the whole"
            return Throughput({m.name: m.flops / spent[m.name] for m in trained}, 0.0, basis)
    precision = precision_of(ladder, ladder.stages[0].training)
    peak = matrix_product_peak(dtype=torch.bfloat16 if precision == "bf16" else torch.float32, device=device)
    where = (
        torch.cuda.get_device_name() if device == "cuda" else f"this machine's processor ({torch.get_num_threads()} threads, no GPU in use)"
    )
    product = f"the {operations_rate(peak)} of a {precision} matrix product measured now on {where}"
    basis = f"up to {percent(ASSUMED_SHARE, 0)} for wide models, of {product}"
    return Throughput({}, peak, basis)
