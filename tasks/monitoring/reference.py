"""The reference of a promoted version: figures on held-out rows of its run.

They are the rows of the test split, which neither chose its weights nor its gate; the temperature of its confidences is fitted on the
validation split. The result is in the store, under the hash of weights and data.

Shapes: N rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.workloads import refuse_unserved
from models.base.files import read_json
from models.base.numerics import NUMERICS
from models.monitoring.features import Described
from tasks.records.run import DataRecord, RunRecord, StageRecord
from tasks.registry.versions import Version
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import full_record
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.store import Store

if TYPE_CHECKING:
    from tasks.monitoring.scoring import Scorer

Floats = NDArray[np.float64]
FORM = 1  # of the files of a reference
TRAINING_IDS = 2_000_000  # from which the frequencies of ids are counted
NUMBERS = "number "  # begins the names of numeric features among the arrays


@dataclass(frozen=True)
class Watched:
    """A version that is watched, with the run that made it.

    Attributes:
        version: The version.
        record: Its run.
        ladder: The settings of that run.
        data: What it learned from.
    """

    version: Version
    record: RunRecord
    ladder: Ladder
    data: DataRecord

    @property
    def metric(self) -> str:
        """The promoted metric."""
        return "bits_per_byte" if self.ladder.workload == "causal-lm" else "accuracy"

    @property
    def root(self) -> StageRecord | None:
        """The root teacher, where it is a model and its folder is there."""
        teacher = self.record.teacher
        there = teacher is not None and self.ladder.teacher.source != "answers" and (Path(teacher.folder) / "config.json").is_file()
        return teacher if there else None


@dataclass(frozen=True)
class Reference:
    """Figures at promotion.

    Attributes:
        fingerprint: Of the result in the store.
        quality: (N,) 1 for a right answer; of language models bits per byte of each sequence.
        estimate: (N,) calibrated confidences; empty for language models.
        predicted: (N,) classes; empty for language models.
        temperature: Of the confidences.
        log_frequency: (V,) of ids in the training data; empty for images.
        described: Features of the inputs (N,), of language models of the documents.
        slices: Name of the slice of each row.
    """

    fingerprint: str
    quality: Floats
    estimate: Floats
    predicted: NDArray[np.int64]
    temperature: float
    log_frequency: Floats
    described: Described
    slices: tuple[str, ...]

    @property
    def value(self) -> float:
        """The promoted metric."""
        return float(self.quality.mean())


def watched(home: Home, version: Version) -> Watched:
    """The version with its run, whose record and data must still be there.

    Raises:
        UserError: One of them is gone.
    """
    refuse_unserved(version.workload, "MODEL", version.label, "a version")
    record = full_record(home, version.run)
    settings = home.runs / version.run / "ladder.yaml"
    if record is None or not settings.is_file():
        raise UserError.about(
            "MODEL", version.label, f"a version whose run {version.run} is kept", "Run its ladder again and promote that."
        )
    if record.data is None or not (Path(record.data.folder) / "corpus.json").is_file():
        remedy = f"`ladder rerun {version.run}` prepares it again."
        raise UserError.about("MODEL", version.label, "a version whose data are in the store: its held-out rows are the reference", remedy)
    return Watched(version, record, load(str(settings)).ladder, record.data)


def find_or_compute_reference(home: Home, seen: Watched, scorer: Scorer | None = None) -> Reference:
    """The reference of a version: from the store, or computed by the model's answers to held-out rows.

    Args:
        home: Where the store is.
        seen: The version.
        scorer: Its loaded model; None: it is loaded where it is needed.

    Raises:
        UserError: The model cannot be loaded.
    """
    rows = seen.ladder.monitoring.reference_rows
    identity = _identity(seen, rows)

    def compute() -> Write:
        from tasks.monitoring.scoring import Scorer

        log.info("%s: measuring it on held-out rows, as the reference of its monitoring", seen.version.label)
        model = scorer or Scorer(seen.version.folder, seen.ladder, seen.data.corpus())
        arrays, facts = _measure(model, rows)
        return lambda folder: _write(folder, arrays, facts)

    entry = Entry("reference", seen.version.stage, identity, lambda folder: _read(folder, ""))
    found = find_or_compute(Store(home, log.warning), entry, {"run": seen.version.run, "ladder": seen.version.name}, compute)
    return _read(found.folder, entry.fingerprint)


def _identity(seen: Watched, rows: int) -> dict[str, Any]:
    return {
        "kind": "reference",
        "form": FORM,
        "numerics": NUMERICS,
        "weights": seen.version.weights_sha256,
        "data": seen.data.content_hash,
        "rows": rows,
    }


def find_or_compute_teacher_reference(home: Home, seen: Watched, own: Reference, root: StageRecord) -> dict[str, Floats]:
    """The root teacher on the same rows: `teacher`, its quality, and `agreement` with the version (N,); the root is loaded where needed."""
    rows = seen.ladder.monitoring.reference_rows
    identity = {**_identity(seen, rows), "teacher": root.weights_sha256}

    def compute() -> Write:
        from tasks.monitoring.scoring import SPLIT, Scorer

        log.info("%s: measuring its root teacher on the same rows", seen.version.label)
        model = Scorer(Path(root.folder), seen.ladder, seen.data.corpus())
        if seen.metric == "bits_per_byte":
            losses, _ = model.bits_per_byte(model.corpus, SPLIT, rows)
            return lambda folder: np.savez(folder / "teacher.npz", teacher=losses)
        answers = model.probabilities(model.corpus, SPLIT, rows).argmax(axis=1)
        labels = _labels(model, rows)
        arrays = {"teacher": (answers == labels).astype(np.float64), "agreement": (answers == own.predicted).astype(np.float64)}
        return lambda folder: np.savez(folder / "teacher.npz", **arrays)

    entry = Entry("reference", f"{seen.version.stage}-teacher", identity, _read_teacher)
    found = find_or_compute(Store(home, log.warning), entry, {"run": seen.version.run, "ladder": seen.version.name}, compute)
    return _read_teacher(found.folder)


def _read_teacher(folder: Path) -> dict[str, Floats]:
    with np.load(folder / "teacher.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _labels(model: Scorer, rows: int) -> NDArray[np.int64]:
    from models.data.held_out import evaluation_documents
    from tasks.monitoring.scoring import SPLIT

    return np.asarray(model.corpus.split(SPLIT).labels)[evaluation_documents(model.corpus, SPLIT, rows)]


def _measure(model: Scorer, rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and facts of a reference."""
    from models.data.held_out import evaluation_documents
    from models.monitoring.calibration import confidences, fit_temperature
    from models.monitoring.features import log_frequencies
    from tasks.monitoring.scoring import SPLIT

    corpus, info = model.corpus, model.corpus.info
    part = corpus.split(SPLIT)
    temperature, arrays = 1.0, {"estimate": np.zeros(0), "predicted": np.zeros(0, dtype=np.int64), "log_frequency": np.zeros(0)}
    if info.workload == "causal-lm":
        arrays["quality"], documents = model.bits_per_byte(corpus, SPLIT, rows)
    else:
        documents = evaluation_documents(corpus, SPLIT, rows)
        valid = model.probabilities(corpus, "valid", rows)
        known = np.asarray(corpus.split("valid").labels)[evaluation_documents(corpus, "valid", rows)]
        temperature = fit_temperature(valid, known)
        found = model.probabilities(corpus, SPLIT, rows)
        arrays["predicted"] = found.argmax(axis=1)
        arrays["quality"] = (arrays["predicted"] == np.asarray(part.labels)[documents]).astype(np.float64)
        arrays["estimate"] = confidences(found, temperature)
    if info.vocabulary is not None:
        arrays["log_frequency"] = log_frequencies(np.asarray(corpus.split("train").values[:TRAINING_IDS]), info.vocabulary)
    shown = np.unique(documents) if info.workload == "causal-lm" else documents
    described = model.features(corpus, SPLIT, shown, arrays["log_frequency"])
    arrays |= {f"{NUMBERS}{name}": values for name, values in described.numbers.items()}
    names = [info.slice_names[place] for place in np.asarray(part.slices)[documents]]
    return arrays, {"temperature": temperature, "kinds": described.kinds, "slices": names}


def _write(folder: Path, arrays: dict[str, Any], facts: dict[str, Any]) -> None:
    np.savez(folder / "reference.npz", **arrays)
    (folder / "reference.json").write_text(json.dumps(facts), encoding="utf-8")


def _read(folder: Path, fingerprint: str) -> Reference:
    facts = read_json(folder / "reference.json")
    with np.load(folder / "reference.npz", allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    numbers = {name.removeprefix(NUMBERS): values for name, values in found.items() if name.startswith(NUMBERS)}
    return Reference(
        fingerprint,
        found["quality"],
        found["estimate"],
        found["predicted"],
        float(facts["temperature"]),
        found["log_frequency"],
        Described(numbers, facts["kinds"]),
        tuple(facts["slices"]),
    )
