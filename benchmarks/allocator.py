"""Savings by the C library's settings: `python -m benchmarks.allocator [--pair bytes|smollm2] [--steps 8] [--repeats 5]`.

Trains the student of a pair of `benchmarks.peers` on-policy, with its live teacher and from cached signals, each measurement in a process
of its own, in alternation: with glibc's own settings, with large freed blocks kept, and with small free blocks joined as well, as
`conf.native` sets it. Prints processor seconds of the timed steps and the process's peak memory, and their ratios to glibc's own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import automatic_precision, machine, spread
from benchmarks.peers import PAIRS, prepare
from conf.native import ALLOCATOR, KEEP, TUNABLES

SETTINGS = {"glibc's own": "", "large blocks kept": KEEP, "Ladder's": ALLOCATOR[TUNABLES]}
WORK = {"on-policy": ("on_policy", "ladder"), "live": ("peers", "live"), "cached": ("peers", "cached")}


def measure(work: str, setting: str, pair: str, folder: Path, steps: int, precision: str) -> dict[str, float]:
    """One training, in a process of its own."""
    module, side = WORK[work]
    command = [sys.executable, "-m", f"benchmarks.{module}", "--pair", pair, "--side", side, "--folder", str(folder)]
    env = {**os.environ, **ALLOCATOR, TUNABLES: SETTINGS[setting], "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*command, "--steps", str(steps), "--precision", precision], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{work} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"seconds": found.get("busy", found["seconds"]), "peak": found["peak_mib"]}


def main() -> None:
    """Measure in alternation, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pair", choices=[*PAIRS], default="bytes")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a measurement, a multiple of 4")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=["bf16", "fp32"], help="by default that which `auto` takes here")
    options = parser.parse_args()
    precision = options.precision or automatic_precision()
    print(f"{options.pair}, {precision}, {machine('cpu')}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ladder-allocator-") as name:
        prepare(options.pair, Path(name), options.steps, precision)
        for work in WORK:
            found = [
                {setting: measure(work, setting, options.pair, Path(name), options.steps, precision) for setting in SETTINGS}
                for _ in range(options.repeats)
            ]
            for setting in SETTINGS:
                words = [f"{work:10} {setting:18}"]
                for figure, unit in (("seconds", "s"), ("peak", "MiB")):
                    ratios = spread([each[setting][figure] / each["glibc's own"][figure] for each in found], "{:.2f}")
                    words.append(f"{spread([each[setting][figure] for each in found], '{:,.1f}')} {unit}, {ratios} of glibc's own;")
                print(*words, flush=True)


if __name__ == "__main__":
    main()
