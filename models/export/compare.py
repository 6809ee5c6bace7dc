"""Compare an export with its student in a process of its own.

`python -m models.export.compare JOB` reads a JSON file with a `Job`, and prints JSON. The job of the student comes first: it writes the
held-out rows with its log-probabilities; that of an export reads them, and imports no torch where its format needs none.

Shape legend: B examples, L ids, N rows that count, V ids or classes.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base.files import read_json
from models.export.runners import Runner, runner_of
from models.speed.startup_probe import peak_resident

META = "meta.json"
TEXTS = 100  # held-out texts whose ids are compared
TEXT_IDS = 400  # of each of them, at most
# Beside them: what cuts into words differ in, and a special string, which is plain text here.
PROBES: tuple[str, ...] = (
    "  two  spaces\n\n\ttab ",
    "12345 3.14e-10",
    "it's WE'LL don't",
    "é世🧪 naïve\u00a0x",
    "a<|end|>b</s>",
    "x=f(y)[0]#!?...",
)
MOST_KEPT = 2**26  # log-probabilities that are kept on disk, 256 MiB
MOST_AT_ONCE = 2**23  # log-probabilities in memory, in double precision 64 MiB
REQUEST_SECONDS = 5.0  # of measured requests, one of which counts in any case
WARM = 3  # requests before them


@dataclass(frozen=True)
class Job:
    """Specification of a comparison process; plain JSON.

    Attributes:
        name: Format, such as `onnx-int8`; `student`: the student itself, whose rows are written.
        folder: Of the export, or of the student.
        workload: The ladder's.
        rows: Folder of the held-out rows.
        threads: Processor threads.
        examples: Held-out examples to compare (student).
        batch_size: Examples at once (student).
        corpus: Folder and content hash of the data (student).
        prompt_tokens: Ids of a measured prompt of a language model.
        new_tokens: Ids written in answer.
        requests: Measured requests.
        length: Ids of the longest held-out example.
    """

    name: str
    folder: str
    workload: str
    rows: str
    threads: int
    examples: int = 0
    batch_size: int = 1
    corpus: tuple[str, str] = ("", "")
    prompt_tokens: int = 64
    new_tokens: int = 32
    requests: int = 50
    length: int = 0


@dataclass(frozen=True)
class Rows:
    """A batch of held-out rows: inputs of B examples, the N rows that count (of examples, or of B * L positions), and their targets."""

    inputs: dict[str, NDArray[Any]]
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]

    def save(self, file: Path, log_p: NDArray[np.float32]) -> None:
        """Write them with the student's log-probabilities (N, V)."""
        named = {f"input.{name}": values for name, values in self.inputs.items()}
        np.savez(file, allow_pickle=False, rows=self.rows, targets=self.targets, log_p=log_p, **named)

    @classmethod
    def load(cls, file: Path) -> tuple[Rows, NDArray[np.float32]]:
        """Read what `save` wrote."""
        with np.load(file, allow_pickle=False) as held:
            inputs = {name.removeprefix("input."): held[name] for name in held.files if name.startswith("input.")}
            return cls(inputs, held["rows"], held["targets"]), held["log_p"]


def main(job_file: str) -> None:
    """Do a job."""
    raw = read_json(Path(job_file))
    job = Job(**{**raw, "corpus": tuple(raw["corpus"])})
    found = measure_student(job) if job.name == "student" else measure_export(job)
    sys.stdout.write(json.dumps(found) + "\n")


def measure_student(job: Job) -> dict[str, Any]:
    """Write the held-out rows with the student's log-probabilities, and measure it."""
    runner, found = _loaded(job)
    place, tally = Path(job.rows), _Tally()
    place.mkdir(parents=True, exist_ok=True)
    vocabulary, per_byte, batches = held_out(job)
    for number, rows in enumerate(batches):
        if number == 0:
            found |= _requests(runner, rows.inputs, job)
        log_p = log_softmax(runner.logits(rows.inputs, rows.rows)[:, :vocabulary])
        rows.save(place / f"{number:06d}.npz", log_p)
        tally.add(rows, log_p)
    meta = {"vocabulary": vocabulary, "per_byte": per_byte, "rows": tally.rows, "texts": held_out_texts(job) if vocabulary else []}
    (place / META).write_text(json.dumps(meta), encoding="utf-8")
    return {**found, "quality": tally.quality(per_byte)}


def measure_export(job: Job) -> dict[str, Any]:
    """Compare an export with the student's log-probabilities, row by row, and measure it."""
    runner, found = _loaded(job)
    files = sorted(Path(job.rows).glob("*.npz"))
    meta = json.loads((Path(job.rows) / META).read_text(encoding="utf-8"))
    found |= _requests(runner, Rows.load(files[0])[0].inputs, job)
    tally, student, same, kl, largest = _Tally(), _Tally(), 0, 0.0, 0.0
    most = None if runner.most is None else max(runner.most // meta["vocabulary"], 1)
    step = 1 if most is None else -(-meta["rows"] // most)
    for file in files:
        rows, log_p = Rows.load(file)
        if step > 1:
            rows, log_p = Rows(rows.inputs, rows.rows[::step], rows.targets[::step]), log_p[::step]
        log_q = log_softmax(runner.logits(rows.inputs, rows.rows)[:, : meta["vocabulary"]])
        if log_q.shape != log_p.shape:
            raise ValueError(f"it has {log_q.shape[1]} answers to choose from, its student {log_p.shape[1]}")
        tally.add(rows, log_q)
        student.add(rows, log_p)
        gap = np.abs(log_p - log_q)
        largest = max(largest, float(gap.max())) if bool(np.isfinite(gap).all()) else math.inf
        kl += float((np.exp(log_p) * (log_p - log_q)).sum(dtype=np.float64))
        same += int((log_q.argmax(1) == log_p.argmax(1)).sum())
    told = [(runner.ids(text), ids) for text, ids in meta["texts"]]
    runner.close()
    difference = {
        "examples": tally.examples,
        "rows": tally.rows,
        "largest": largest,
        "agreement": same / tally.rows,
        "kl": max(kl / tally.rows, 0.0),
        "quality": student.quality(meta["per_byte"]),
        "texts": sum(own is not None for own, _ in told),
        "other_ids": sum(own is not None and own != ids for own, ids in told),
    }
    return {**found, "quality": tally.quality(meta["per_byte"]), "difference": difference}


class _Tally:
    """Sums over rows, from which quality is computed."""

    def __init__(self) -> None:
        self.examples, self.rows, self.nll, self.right = 0, 0, 0.0, 0

    def add(self, rows: Rows, log_p: NDArray[np.float32]) -> None:
        """Count a batch with a model's log-probabilities (N, V)."""
        self.examples += len(next(iter(rows.inputs.values())))
        self.rows += len(rows.targets)
        self.nll -= float(np.take_along_axis(log_p, rows.targets[:, None], 1).sum(dtype=np.float64))
        self.right += int((log_p.argmax(1) == rows.targets).sum())

    def quality(self, per_byte: float | None) -> dict[str, float]:
        """The ladder's metric: `accuracy`, or `bits_per_byte` of language models; and `nll`, in nats."""
        nll = self.nll / self.rows
        main = {"accuracy": self.right / self.rows} if per_byte is None else {"bits_per_byte": nll / math.log(2) * per_byte}
        return {**main, "nll": nll}


def held_out(job: Job) -> tuple[int | None, float | None, Iterator[Rows]]:
    """Ids that logits are cut to, ids for each byte (None for classifiers), and the held-out rows, as many as may be kept on disk."""
    from models.data.corpus import Corpus
    from models.data.held_out import evaluation_batches
    from models.evaluation.evaluation import ids_per_byte
    from models.students.vocabulary import read_kept, reduce_corpus

    corpus = reduce_corpus(Corpus(Path(job.corpus[0]), job.corpus[1]), read_kept(Path(job.folder)))
    info, vocabulary = corpus.info, corpus.interface.output_ids
    examples, batch_size, per_byte = job.examples, job.batch_size, None
    if vocabulary is not None:
        valid, each = corpus.split("valid"), vocabulary * info.sequence_length
        per_byte = ids_per_byte(valid, np.ones(len(valid), dtype=bool), len(info.prefix))
        examples, batch_size = max(min(examples, MOST_KEPT // each), 1), max(min(batch_size, MOST_AT_ONCE // each), 1)

    def batches() -> Iterator[Rows]:
        for batch in evaluation_batches(corpus, "valid", examples, batch_size):
            targets = batch.targets.flatten().numpy()
            counted = np.flatnonzero(targets >= 0)
            if len(counted):
                yield Rows({name: values.numpy() for name, values in batch.inputs.items()}, counted, targets[counted])

    return vocabulary, per_byte, batches()


def held_out_texts(job: Job) -> list[tuple[str, list[int]]]:
    """Held-out texts, and a few that tokenizers disagree on, with their ids by the student's tokenizer; special strings are text."""
    from models.data import tokenizers
    from models.data.corpus import Corpus
    from models.students.vocabulary import read_kept, reduce_corpus

    folder = Path(job.folder)
    if not (folder / "tokenizer.json").is_file():
        return []
    corpus = reduce_corpus(Corpus(Path(job.corpus[0]), job.corpus[1]), read_kept(folder))
    tokenizer, split = tokenizers.load(folder), corpus.split("valid")
    texts: list[str] = list(PROBES)
    for number in np.linspace(0, len(split) - 1, min(TEXTS, len(split))).astype(int):
        begin, end = int(split.offsets[number]), int(split.offsets[number + 1])
        texts.append(str(tokenizer.decode(list(map(int, split.values[begin : min(end, begin + TEXT_IDS)])), skip_special_tokens=True)))
    return [(text, list(map(int, ids))) for text, ids in zip(texts, tokenizers.encode(tokenizer, texts), strict=True)]


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float32]:
    """Log-probabilities of logits, or of log-probabilities, (N, V)."""
    wide = logits.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(1, keepdims=True))
    return wide.astype(np.float32)


def _loaded(job: Job) -> tuple[Runner, dict[str, Any]]:
    libraries = {"onnx": ("onnxruntime",), "gguf": ("xllamacpp",)}
    for module in libraries.get(job.name[:4], ("torch", "transformers")):
        __import__(module)
    before, began = peak_resident(), time.perf_counter()
    runner = runner_of(job.name, Path(job.folder), job.workload, job.threads, max(job.length, job.prompt_tokens + job.new_tokens) + 8)
    return runner, {"load_seconds": time.perf_counter() - began, "library_bytes": before}


def _requests(runner: Runner, batch: dict[str, NDArray[Any]], job: Job) -> dict[str, Any]:
    """Seconds of requests, one after another, to the examples of a batch in turn; and the memory that they took at most."""
    size = len(next(iter(batch.values())))
    times: list[float] = []
    began = time.perf_counter()
    for number in range(WARM + job.requests):
        example = {name: values[number % size : number % size + 1] for name, values in batch.items()}
        if job.workload == "causal-lm":
            example = {"input_ids": np.ascontiguousarray(example["input_ids"][:, : job.prompt_tokens])}
        elif "attention_mask" in example:
            length = int(example["attention_mask"].sum())
            example = {name: np.ascontiguousarray(values[:, :length]) for name, values in example.items()}
        moment = time.perf_counter()
        runner.request(example, job.new_tokens)
        if number >= WARM:
            times.append(time.perf_counter() - moment)
        if times and time.perf_counter() - began > REQUEST_SECONDS:
            break
    return {"requests": times, "peak_bytes": peak_resident()}


def job_text(job: Job) -> str:
    """The job as the process reads it."""
    return json.dumps(asdict(job))


if __name__ == "__main__":
    main(*sys.argv[1:])
