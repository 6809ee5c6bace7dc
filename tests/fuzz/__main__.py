"""`make fuzz`: the property tests of inputs with ever new seeds, for FUZZ_SECONDS, and a count of what was tried.

FUZZ_SEED begins at another seed; a failure prints the seed and the example that reproduces it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.tried import COUNTS


def main() -> int:
    """Run round after round; the exit code is that of the first round that fails."""
    end = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "300"))
    seed, tried = int(os.environ.get("FUZZ_SEED", time.time_ns() % 10**9)), Counter[str]()
    examples = os.environ.get("FUZZ_EXAMPLES", "100")
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts.json"
        while time.monotonic() < end:
            print(f"seed {seed}, {examples} examples of each kind", flush=True)
            command = [sys.executable, "-m", "pytest", "tests/fuzz", "-q", "-n0", f"--hypothesis-seed={seed}"]
            env = {**os.environ, "FUZZ_EXAMPLES": examples, COUNTS: str(counts)}
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, encoding="utf-8")
            if done.returncode:
                print(done.stdout)
                print(f"again: FUZZ_SEED={seed} FUZZ_EXAMPLES={examples} make fuzz")
                return done.returncode
            tried.update(json.loads(counts.read_text(encoding="utf-8")))
            seed += 1
    for name, number in sorted(tried.items()):
        print(f"{number:8,} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
