"""Bytes, speed and error of cached teacher signals: `python -m benchmarks.signals [--model FOLDER]`.

For each kind: bytes a token, tokens encoded and decoded a second, and the KL divergence in nats a token from what the kind keeps
of the teacher's answer to what is read back. For `sampled` that is 0, for counts are exact; its error is the spread of the draws,
which averages out. Beside them the bytes of DistillKit's cache by its own formula. Then the share of a training step that decoding
takes. Without `--model` the logits are synthetic: Zipf's law, and in each row some ids that the context makes likely.
"""

from __future__ import annotations

import argparse
import math
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import fresh_model, machine
from conf.schema.stage.objective import Objective
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.base.device import resolve_device, resolve_precision
from models.base.interface import Interface
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.losses.loss import SparseSignal
from models.signals.cache import SignalCache
from models.signals.codec import Coding, decode, encode, mass_order
from models.signals.fill import fill_cache
from models.training.loop import Plan, Step, train
from tasks.runtime.environment import processor

V, L = 49_152, 256
KINDS = (("sampled", 50), ("sampled", 100), ("top-k", 50), ("top-k", 128))
STUDENT = Shape(hidden_size=384, layers=6, heads=6, feed_forward=1024)
REPEATS = 5
DISTILLKIT = {50: 14, 128: 56}  # k -> bytes of log-probabilities, as its totals of 114 and 312 bytes at 16 bits an id imply


@dataclass(frozen=True)
class TeacherLogits:
    """Windows of ids (W, L + 1) and a teacher's logits for them (W, L, V)."""

    about: str
    windows: np.ndarray
    logits: Tensor


def synthetic(windows: int) -> TeacherLogits:
    """Logits with about the entropy, 2 nats, that a small language model has on source text."""
    generator = torch.Generator().manual_seed(0)
    frequency = 1 / (torch.randperm(V, generator=generator) + 1.0)
    logits = torch.empty(windows, L, V)
    for z in logits:
        z.copy_(frequency.log() + 1.5 * torch.randn(L, V, generator=generator))
        likely = torch.multinomial(frequency.expand(L, -1), 32, replacement=True, generator=generator)
        z.scatter_add_(1, likely, 3.2 * torch.rand(likely.shape, generator=generator))
    ids = torch.randint(0, V, (windows, L + 1), generator=generator).numpy()
    return TeacherLogits("synthetic logits: Zipf's law, and likely ids in each row", ids, logits)


def from_model(folder: Path, text: Path | None, windows: int) -> TeacherLogits:
    """The logits of a checkpoint on evenly spaced windows of a text; without one, of the standard library's source."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    files = [text] if text else sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40]
    ids = np.array(tokenizer("".join(file.read_text(encoding="utf-8") for file in files))["input_ids"])
    starts = np.linspace(0, len(ids) - L - 1, windows).astype(int)
    chosen = np.stack([ids[start : start + L + 1] for start in starts])
    with torch.no_grad():
        each = [cast(Any, model)(input_ids=torch.from_numpy(window[None, :-1])).logits[0].float() for window in chosen]
    return TeacherLogits(f"{folder.name} on {text.name if text else 'the standard library'}", chosen, torch.stack(each))


def distillkit_bytes(k: int, vocabulary: int) -> float:
    """Bytes a token of DistillKit's compressed cache, by the formula in its `distillkit/compression/config.py`.

    `ceil(k ceil(log2 V) / 8)` for the ids, and what the log-probabilities take.
    """
    return math.ceil(k * math.ceil(math.log2(vocabulary)) / 8) + DISTILLKIT[k]


def best_seconds(work: Callable[[], object]) -> float:
    """Least time of a few calls: the least disturbed one."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def error(signal: SparseSignal, logits: Tensor) -> float:
    """KL divergence from listed ids and residual as the teacher has them to those that were read, in nats a token."""
    log_p = torch.log_softmax(logits, dim=-1).gather(1, signal.ids).double()
    left = (1 - log_p.exp().sum(dim=1)).clamp(min=1e-12)
    each = (log_p.exp() * (log_p - signal.log_probs)).sum(dim=1) + left * (left.log() - signal.log_residual)
    return float(each.mean())


def codec_table(answers: TeacherLogits) -> None:
    """Bytes, speed and error of each kind; ids are ordered by the first quarter of the windows, all is measured on the rest."""
    aside = max(len(answers.logits) // 4, 1)
    order, rest = mass_order(answers.logits[:aside].flatten(0, 1)), answers.logits[aside:]
    tokens = rest.shape[0] * L
    print(f"{'kind':<20}{'bytes/token':>12}{'encoded tokens/s':>18}{'decoded tokens/s':>18}{'KL, nats/token':>16}")
    for kind, size in KINDS:
        coding = Coding(kind, V, size, order=order)
        encode(rest[0], coding, b"")
        began = time.perf_counter()
        records = [np.frombuffer(encode(z, coding, bytes([i])), dtype=np.uint8) for i, z in enumerate(rest)]
        encoding = time.perf_counter() - began
        decoding = best_seconds(lambda: decode(records, coding))  # noqa: B023
        signal = decode(records, coding)
        assert isinstance(signal, SparseSignal)
        kl = error(signal, rest.flatten(0, 1)) if kind == "top-k" else 0.0
        each = sum(map(len, records)) / tokens
        print(f"{kind + ', ' + str(size):<20}{each:>12.1f}{tokens / encoding:>18,.0f}{tokens / decoding:>18,.0f}{kl:>16.5f}")
    print(f"{'full, fp16':<20}{2 * V:>12,}")
    for k in DISTILLKIT:
        print(f"{f'DistillKit, {k}':<20}{distillkit_bytes(k, V):>12.1f}   (with 18 bits an id: {distillkit_bytes(k, 2**18):.1f})")
    print()


def one_step(answers: TeacherLogits, kind: str, size: int, device: str, precision: str) -> tuple[float, float]:
    """Seconds of a training step of a student with cached signals, and seconds of it in which the signals are read."""
    interface = Interface("causal-lm", L, V, 0, 0)
    training = Training(steps=6, batch_size=4, precision="fp32" if precision == "fp32" else "bf16", validate_every=1000)
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpus_of_windows(Path(folder) / "data", answers.windows, interface)
        (Path(folder) / "cache").mkdir()
        batches = TrainingBatches(corpus, training.batch_size, 0)
        place = {window[:-1].tobytes(): i for i, window in enumerate(batches_windows(batches))}

        def logits(batch: Batch) -> Tensor:
            return torch.cat([answers.logits[place[row.numpy().tobytes()]] for row in batch.inputs["input_ids"]])

        cache = SignalCache(Path(folder) / "cache", Coding(kind, V, size, order=mass_order(answers.logits[:2].flatten(0, 1))), [])
        fill_cache(cache, batches, -(-batches.examples // training.batch_size), logits, "benchmark")
        reading, moments = [0.0], [time.perf_counter()]

        def source(batch: Batch) -> Any:
            began = time.perf_counter()
            signal = cache.source(batch)
            reading[-1] += time.perf_counter() - began
            return signal

        def on_step(step: Step) -> None:
            moments.append(time.perf_counter())
            reading.append(0.0)

        plan = Plan(training, Objective(), 0, V, device, precision)
        train(fresh_model(STUDENT, interface), batches, plan, signals=source, on_step=on_step)
        steps = np.diff(moments)[2:]
        return float(np.median(steps)), float(np.median(reading[2:-1]))


def batches_windows(batches: TrainingBatches) -> np.ndarray:
    """Every window of a training, as ids (W, L + 1)."""
    values = np.asarray(batches.split.values, dtype=np.int64)
    return values[np.arange(batches.examples)[:, None] * L + np.arange(L + 1)]


def corpus_of_windows(folder: Path, windows: np.ndarray, interface: Interface) -> Corpus:
    """A corpus whose training windows begin as the given ones do."""
    folder.mkdir()
    values = np.append(windows[:, :-1].ravel(), windows[-1, -1]).astype(np.uint16)
    one = np.zeros(1, dtype=np.int64)
    split = Split(values, np.array([0, len(values)]), one - 1, one.astype(np.int32), np.array([len(values)]))
    info = CorpusInfo(
        *("causal-lm", L, V, interface.end_id, interface.pad_id, (), ("all",), None),
        dict.fromkeys(SPLITS, 1),
        dict.fromkeys(SPLITS, len(values)),
    )
    write_corpus(folder, info, dict.fromkeys(SPLITS, split))
    return Corpus(folder, "benchmark")


def main() -> None:
    """Measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, help="a causal LM's Hugging Face folder with 49,152 ids, and its tokenizer")
    parser.add_argument("--text", type=Path, help="a text file for it; none: the standard library's source")
    parser.add_argument("--windows", type=int, default=16, help=f"windows of {L} tokens")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="where the student is trained")
    options = parser.parse_args()
    began, device = time.monotonic(), resolve_device(options.device)
    precision = resolve_precision("auto", device)
    answers = from_model(options.model, options.text, options.windows) if options.model else synthetic(options.windows)
    entropy = torch.stack([-(torch.softmax(z, -1) * torch.log_softmax(z, -1)).sum(-1).mean() for z in answers.logits]).mean()
    print(f"{answers.about}; V = {V:,}, {options.windows} windows of {L}, entropy {entropy:.2f} nats")
    print(f"coding on {processor()}, {torch.get_num_threads()} threads\n")
    codec_table(answers)
    print(f"training step of {STUDENT.hidden_size} x {STUDENT.layers} on {machine(device)}, {precision}, batch 4 x {L}")
    print(f"{'kind':<20}{'step, ms':>12}{'reading, ms':>14}{'share':>9}")
    for kind, size in (("sampled", 50), ("top-k", 50)):
        step, reading = one_step(answers, kind, size, device, precision)
        print(f"{kind + ', ' + str(size):<20}{1e3 * step:>12.0f}{1e3 * reading:>14.1f}{reading / step:>9.1%}")
    print(f"\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
