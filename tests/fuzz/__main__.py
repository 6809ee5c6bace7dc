"""`make fuzz`: the property tests of inputs with ever new seeds, for FUZZ_SECONDS, and a count of what was tried.

FUZZ_SEED begins at another seed; a failure prints the seed and the example that reproduces it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter


def main() -> int:
    """Run round after round; the exit code is that of the first round that fails."""
    end = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "300"))
    seed, tried = int(os.environ.get("FUZZ_SEED", time.time_ns() % 10**9)), Counter[str]()
    examples = os.environ.get("FUZZ_EXAMPLES", "100")
    while time.monotonic() < end:
        print(f"seed {seed}, {examples} examples of each kind", flush=True)
        command = [sys.executable, "-m", "pytest", "tests/fuzz", "-q", "-n0", f"--hypothesis-seed={seed}", "--hypothesis-show-statistics"]
        done = subprocess.run(command, env={**os.environ, "FUZZ_EXAMPLES": examples}, stdout=subprocess.PIPE, encoding="utf-8")
        for share, name in re.findall(r"\* ([\d.]+)%, (.+)", done.stdout):
            tried[name] += round(float(share) * int(examples) / 100)
        if done.returncode:
            print(done.stdout)
            print(f"again: FUZZ_SEED={seed} FUZZ_EXAMPLES={examples} make fuzz")
            return done.returncode
        seed += 1
    for name, number in sorted(tried.items()):
        print(f"{number:8,} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
