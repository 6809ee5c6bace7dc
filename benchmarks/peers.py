"""Ladder beside TRL's GKDTrainer, in one run: `python -m benchmarks.peers [--pair bytes|smollm2] [--steps 8] [--repeats 3]`.

The same pair of models, the same ids, the same batch, and for both sides the precision that `auto` takes on this machine (or
`--precision`); every measurement in a process of its own, the sides in alternation, so that a machine that slows down slows all alike.
Prints tokens a second (of the median step) and peak memory, and Ladder's as ratios to TRL's, paired by repeat, with their spread.
TRL is installed in an environment of its own (`--peers FOLDER`, made where it is not there).

Pairs: `bytes`, 1.0M -> 0.4M parameters over 258 ids, batch 32 x 192; `smollm2`, the teacher of the ladder of that name -> its first
three layers, 38.9M, over 49,152 ids, batch 4 x 256 (`make smollm2` first). Live: the teacher runs beside the student. Cached: its
signals were written before (all of them over 258 ids, 50 draws over 49,152), which is timed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import automatic_precision, machine, spread
from conf.home import home
from conf.loading.load import load
from conf.native import native_settings
from conf.schema.stage.objective import Objective
from conf.schema.stage.training import Training
from models.architectures.checkpoint import load_model, save_model
from models.architectures.shapes import build, config_for
from models.base.device import resolve_device
from models.base.files import weights_sha256
from models.base.interface import Interface
from models.data.batches import TrainingBatches
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.signals.cache import SignalCache
from models.signals.codec import Coding
from models.signals.fill import fill_cache, id_order
from models.signals.sources import live, rows
from models.students.initialise import make_student
from models.training.loop import Plan, Step, train

WARM = 3  # steps that do not count, as in peers_trl.py
PAIRS = {"bytes": (32, 192), "smollm2": (4, 256)}  # batch, length
TRL = "trl>=1.16"
SIDES = ("trl", "live", "cached")


def prepare(pair: str, folder: Path, steps: int, precision: str) -> None:
    """Write a pair; dump the teacher's signals, and say what that took."""
    write_pair(pair, folder, steps)
    _dump(pair, folder, steps, precision)


def write_pair(pair: str, folder: Path, steps: int) -> None:
    """Write both models, the ids and the corpus of a pair."""
    batch, length = PAIRS[pair]
    teacher, ids, vocabulary = _smollm2() if pair == "smollm2" else _bytes()
    interface = Interface("causal-lm", length, vocabulary, 0, 0)
    student = _student(pair, teacher, interface)
    for name, model in (("teacher", teacher), ("student", student)):
        save_model(model, folder / name, None)
    stream = ids[: (WARM + steps) * batch * length + 1].astype(np.uint16)
    np.save(folder / "stream.npy", stream)
    one = np.zeros(1, dtype=np.int64)
    split = Split(stream, np.array([0, len(stream)]), one - 1, one.astype(np.int32), np.array([len(stream)]))
    lengths: dict[str, int] = dict.fromkeys(SPLITS, len(stream))
    info = CorpusInfo("causal-lm", length, vocabulary, 0, 0, (), ("all",), None, dict.fromkeys(SPLITS, 1), lengths)
    (folder / "corpus").mkdir()
    write_corpus(folder / "corpus", info, dict.fromkeys(SPLITS, split))


def _dump(pair: str, folder: Path, steps: int, precision: str) -> None:
    device = resolve_device("auto")
    teacher = load_model(folder / "teacher", "causal-lm").to(device).eval()
    batches = TrainingBatches(Corpus(folder / "corpus", pair), PAIRS[pair][0], 0)

    def logits(batch: Any) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            return rows(teacher, batch.to(torch.device(device)), batches.info.vocabulary).float()

    order = None if _kind(pair) == "full" else id_order(batches.at(0), logits, batches.info.vocabulary or 0)
    cache, began = _cache(pair, folder, order), time.perf_counter()
    fill_cache(cache, batches, WARM + steps, logits, "peers")
    took = time.perf_counter() - began
    print(f"dump, {_kind(pair)}: {cache.rows / took:,.0f} tokens/s, {cache.bytes / cache.rows:.1f} bytes a token", flush=True)


def _kind(pair: str) -> str:
    return "sampled" if pair == "smollm2" else "full"


def _cache(pair: str, folder: Path, order: Any = None) -> SignalCache:
    """The pair's cache: made when an order is given, else opened."""
    place = folder / "signals"
    vocabulary = json.loads((folder / "teacher" / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    identity = {"signal": _kind(pair), "vocabulary": vocabulary, "size": 50, "seed": 0, "teacher": weights_sha256(folder / "teacher")}
    if not place.exists():
        place.mkdir()
        (place / "manifest.json").write_text(json.dumps({"fingerprint": pair, "identity": identity}), encoding="utf-8")
        if order is not None:
            np.save(place / "order.npy", order)
        return SignalCache(place, Coding(_kind(pair), vocabulary, 50, 0, order), [])
    return SignalCache.open(place, pair, identity, print)


def _bytes() -> tuple[Any, np.ndarray, int]:
    ladder = load("python-stdlib").ladder
    interface = Interface("causal-lm", 192, 258, 256, 257)
    torch.manual_seed(0)
    assert ladder.teacher.shape
    text = b"".join(path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py")))
    return build(config_for(ladder.teacher.shape, interface), "causal-lm"), np.frombuffer(text, dtype=np.uint8), 258


def _smollm2() -> tuple[Any, np.ndarray, int]:
    from transformers import AutoTokenizer

    from tasks.runtime.runs.run_registry import Context
    from tasks.teachers.teacher_source import resolve_checkpoint

    loaded = load("smollm2")
    context = Context(run="peers", ladder="smollm2", home=str(home().root), base=str(loaded.base))
    assert loaded.ladder.teacher.source == "checkpoint"
    folder = resolve_checkpoint(loaded.ladder.teacher, context)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(os.__file__).parent.glob("[a-h]*.py")))
    ids = np.array(tokenizer(text, verbose=False)["input_ids"])
    return load_model(folder, "causal-lm"), ids, tokenizer.vocab_size


def _student(pair: str, teacher: Any, interface: Interface) -> Any:
    if pair == "bytes":
        shape = load("python-stdlib").ladder.stages[0].student.shape
        assert shape
        torch.manual_seed(1)
        return build(config_for(shape, interface), "causal-lm")
    stage = load("smollm2").ladder.stages[0].student.model_copy(update={"initialisation": "layers", "vocabulary": "teacher"})
    return make_student(stage, teacher, interface, 0, "student").model


def ours(pair: str, folder: Path, side: str, steps: int, precision: str, recompute: bool = False) -> dict[str, float]:
    """Train a few steps with Ladder's loop; the figures of this process."""
    batch, _ = PAIRS[pair]
    device = resolve_device("auto")
    corpus, moments = Corpus(folder / "corpus", pair), list[float]()
    vocabulary = corpus.info.vocabulary
    if side == "live":
        source = live(load_model(folder / "teacher", "causal-lm").to(device), vocabulary, precision)
    else:
        source = _cache(pair, folder).source
    student = load_model(folder / "student", "causal-lm")
    training = Training(steps=WARM + steps, batch_size=batch, learning_rate=1e-4, recompute=recompute)
    plan = Plan(training, Objective.model_validate({"alpha": 1.0}), 0, vocabulary, device, precision)
    before = peak_mib()

    def on_step(step: Step) -> None:
        moments.append(time.perf_counter())

    train(student, TrainingBatches(corpus, batch, 0), plan, signals=source, on_step=on_step)
    return {"seconds": steps * float(np.median(np.diff(moments[WARM - 1 :]))), "before_mib": before, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """Peak resident memory of this process; `ru_maxrss` would begin with the peak of the process that started it."""
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(pair: str, folder: Path, side: str, steps: int, python: Path, precision: str, recompute: bool) -> dict[str, float]:
    """One side, once, in a process of its own."""
    batch, length = PAIRS[pair]
    own = {} if side == "trl" else native_settings({})  # the other side runs as its users run it
    env = {key: value for key, value in os.environ.items() if key not in native_settings({})}
    env = {**env, **own, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    if side == "trl":
        script = Path(__file__).with_name("peers_trl.py")
        command = [python, script, folder / "teacher", folder / "student", folder / "stream.npy"]
        command += ["--length", length, "--batch-size", batch, "--steps", steps, "--precision", precision]
    else:
        command = [sys.executable, "-m", "benchmarks.peers", "--pair", pair, "--side", side, "--folder", folder, "--steps", steps]
        command += ["--precision", precision]
        command += ["--recompute"] if recompute else []
    done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {**found, "tokens_per_second": steps * batch * length / found["seconds"]}


def environment_of_peers(place: Path) -> Path:
    """The interpreter of the peers' environment; installs it first where it is not there."""
    python = place / "bin" / "python"
    if not python.exists():
        print(f"installing TRL into {place}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        constraints = Path(__file__).parents[1] / "constraints.txt"
        pinned = next(line for line in constraints.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
        for wanted in ([pinned], [pinned, TRL]):  # torch first, so that TRL finds this build of it
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
    return python


def main() -> None:
    """Prepare, measure in alternation, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pair", choices=[*PAIRS], action="append", help="one pair only")
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side")
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="environment of the peers")
    parser.add_argument("--precision", choices=["bf16", "fp32"], help="of both sides; by default that which `auto` takes here")
    parser.add_argument("--recompute", action="store_true", help="Ladder's sides with training.recompute=true")
    parser.add_argument("--side", choices=SIDES[1:], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    precision = options.precision or automatic_precision()
    if options.side:
        print(json.dumps(ours(options.pair[0], options.folder, options.side, options.steps, precision, options.recompute)))
        return
    python = environment_of_peers(options.peers.absolute())
    for pair in options.pair or PAIRS:
        with tempfile.TemporaryDirectory(prefix="ladder-peers-") as name:
            folder = Path(name)
            print(f"\n{pair}: batch {' x '.join(map(str, PAIRS[pair]))}, {precision}, {machine(resolve_device('auto'))}", flush=True)
            prepare(pair, folder, options.steps, precision)
            found = [
                {side: measure(pair, folder, side, options.steps, python, precision, options.recompute) for side in SIDES}
                for _ in range(options.repeats)
            ]
        for side in SIDES:
            speed = spread([each[side]["tokens_per_second"] for each in found])
            memory = spread([each[side]["peak_mib"] for each in found])
            faster = spread([each[side]["tokens_per_second"] / each["trl"]["tokens_per_second"] for each in found], "{:.2f}")
            smaller = spread([each[side]["peak_mib"] / each["trl"]["peak_mib"] for each in found], "{:.2f}")
            print(f"{side:7} {speed} tokens/s, {memory} MiB at its peak; to TRL {faster} in speed, {smaller} in memory", flush=True)


if __name__ == "__main__":
    main()
