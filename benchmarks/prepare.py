"""Speed and memory of the preparation of a corpus.

    python -m benchmarks.prepare [--megabytes 20 200] [--tokenizers teacher bytes] [--threads 1 2] [--against CHECKOUT]
    python -m benchmarks.prepare --megabytes 200 --threads 1 2 --corpus 20

Writes JSON lines of synthetic text (words drawn by Zipf's law, documents of 40 to 1,000 words) and prepares them as a causal-lm corpus in a
process of its own: MB of text a second, imports included, seconds of processors,
and the most resident memory of the whole process tree, sampled every 20 ms.
`teacher` is a byte-level BPE of 8,192 ids trained on the first 2 MB beforehand. `--against` prepares the same files with another checkout
in turn, and says whether the arrays are equal to the byte. `--corpus` plans so many gigabytes, the last text under as many names as that
takes (hard links), says how much of it the plan reads, and what its preparation would take by the figures above.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
WORDS = 30_000
SHAPE = {"family": "llama", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8}
ARRAYS = [f"{split}/{name}.npy" for split in ("train", "valid", "test") for name in ("values", "offsets", "labels", "slices", "sizes")]
CHILD = """
import sys, json, pathlib
from conf.schema.ladder import Ladder
from tasks.data.build import build_corpus
ladder, base, teacher, folder = Ladder.model_validate(json.loads(sys.argv[1])), *map(pathlib.Path, sys.argv[2:])
build_corpus(ladder, base, teacher, folder, lambda line: None)
"""

PLAN = """
import sys, json, pathlib, time
from conf.home import Home
from conf.schema.ladder import Ladder
from tasks.planning.plan import make_plan
def read():
    return int(pathlib.Path("/proc/self/io").read_text().split()[1])
ladder, base = Ladder.model_validate(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2])
make_plan(ladder, base, Home(base / "home"))  # imports
before, began = read(), time.process_time()
plan = make_plan(ladder, base, Home(base / "home"))
print(json.dumps([plan.data, time.process_time() - began, read() - before, [note for note in plan.notes if note.startswith("data")]]))
"""


def texts(seed: int) -> Iterator[str]:
    """Endless documents."""
    draw = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(letters[np.minimum(draw.exponential(6, size), 25).astype(int)]) for size in draw.integers(2, 11, WORDS)]
    share = 1 / np.arange(1, WORDS + 1)
    share /= share.sum()
    while True:
        chosen = [words[i] for i in draw.choice(WORDS, int(draw.integers(40, 1000)), p=share)]
        yield "\n".join(" ".join(chosen[at : at + 12]) for at in range(0, len(chosen), 12))


def write_text(path: Path, megabytes: int) -> int:
    """Write at least so much text; returns its bytes."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for text in texts(0):
            written += len(text)
            file.write(json.dumps({"text": text}) + "\n")
            if written >= megabytes * 1_000_000:
                return written
    raise AssertionError("texts never end")


def tree_memory(process: psutil.Process) -> int:
    """Resident bytes of a process and its descendants; pages that they share count in each."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def prepare(checkout: Path, ladder: dict[str, object], base: Path, folder: Path) -> tuple[float, float, int]:
    """Prepare a corpus in a process; returns seconds, seconds of processors and the most resident bytes."""
    folder.mkdir()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", CHILD, json.dumps(ladder), str(base), str(base / "teacher"), str(folder)]
    child = subprocess.Popen(command, cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)})
    most = 0
    while child.poll() is None:
        try:
            most = max(most, tree_memory(psutil.Process(child.pid)))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    if child.wait():
        raise SystemExit("the preparation failed")
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, most


def planned(base: Path, gigabytes: float) -> tuple[int, str]:
    """Plan a corpus of so much text; returns its bytes, and what the plan said and read."""
    text, links = base / "text.jsonl", base / "links"
    links.mkdir()
    size = text.stat().st_size
    count = max(round(gigabytes * 1e9 / size), 1)
    for number in range(count):
        (links / f"{number:04d}.jsonl").hardlink_to(text)
    ladder = {**ladder_of("bytes", 1), "data": {"source": "files", "paths": ["links/*.jsonl"]}}
    done = subprocess.run([sys.executable, "-c", PLAN, json.dumps(ladder), str(base)], cwd=ROOT, capture_output=True, text=True, check=True)
    action, seconds, read, notes = json.loads(done.stdout.splitlines()[-1])
    return count * size, f"{count} files: {action}, {seconds:.2f} s of a core, {read / 1e6:.1f} MB read. {' '.join(notes)}"


def ladder_of(tokenizer: str, threads: int) -> dict[str, object]:
    """A ladder over the text, as plain settings."""
    trained = {"source": "train", "shape": SHAPE, "training": {"steps": 1}}
    return {
        "name": "prepare",
        "workload": "causal-lm",
        "data": {"source": "files", "paths": ["text.jsonl"]},
        "tokenizer": {"kind": tokenizer},
        "teacher": {"source": "checkpoint", "path": "teacher"} if tokenizer == "teacher" else trained,
        "stages": [{"name": "only", "student": {"shape": SHAPE}, "training": {"steps": 1}}],
        "compute": {"threads": threads},
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--tokenizers", nargs="+", choices=["teacher", "bytes"], default=["teacher", "bytes"])
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument(
        "--corpus", type=float, metavar="GB", help="size of a corpus that is planned, and whose preparation is extrapolated"
    )
    parser.add_argument("--against", type=Path)
    asked = parser.parse_args()
    from models.data import tokenizers

    head = f"{'tokenizer':10} {'MB':>6} {'threads':>7} {'checkout':>8} {'MB/s':>7} {'s':>7} {'CPU s':>7} {'MB/CPU s':>8}"
    print(f"{head} {'peak MiB':>9}  arrays")
    per_core: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        tokenizers.save(tokenizers.train_bpe(islice(texts(1), 650), 8192), base / "teacher")
        for megabytes in asked.megabytes:
            size = write_text(base / "text.jsonl", megabytes)
            for tokenizer, threads in product(asked.tokenizers, asked.threads):
                checkouts = {"this": ROOT} | ({"other": asked.against.absolute()} if asked.against else {})
                for label, checkout in checkouts.items():
                    folder = base / f"{tokenizer}-{megabytes}-{threads}-{label}"
                    seconds, busy, most = prepare(checkout, ladder_of(tokenizer, threads), base, folder)
                    equal = ""
                    first = base / f"{tokenizer}-{megabytes}-{asked.threads[0]}-this"
                    if folder != first:
                        equal = "equal" if filecmp.cmpfiles(folder, first, ARRAYS, shallow=False)[0] == ARRAYS else "DIFFERENT"
                    per_core[tokenizer] = size / 1e6 / busy
                    row = f"{tokenizer:10} {size / 1e6:6.0f} {threads:7} {label:>8} {size / 1e6 / seconds:7.2f} {seconds:7.1f} {busy:7.1f}"
                    print(f"{row} {per_core[tokenizer]:8.2f} {most / 2**20:9.0f}  {equal}", flush=True)
        if asked.corpus:
            whole, text = planned(base, asked.corpus)
            print(f"\nplan of {whole / 1e9:.1f} GB in {text}")
            for tokenizer, speed in per_core.items():
                print(f"{tokenizer}: at {speed:.2f} MB a second of a core, {whole / 1e6 / speed / 3600:.2f} hours of a core")


if __name__ == "__main__":
    main()
