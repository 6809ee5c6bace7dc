"""Judge a challenger against the champion: paired quality, gate, speed, size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from conf.errors import UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from conf.schema.measures.audit import LEAST_DOCUMENTS
from conf.schema.shipping.promotion import PromotionRules
from conf.schema.workloads import answers_in_ids, refuse_unjudged
from models.base.files import weight_files
from models.evaluation.bootstrap import BootstrapEstimate, Figure, Limits, resample
from models.evaluation.paired import DocumentScores, without
from tasks.bench.bench import bench_identity
from tasks.evaluation.paired_scores import stored_scores
from tasks.records.bench import ModelBench
from tasks.records.format import milliseconds, percent
from tasks.records.promotion import Judgement
from tasks.records.run import DataRecord, StageRecord, stage_record
from tasks.registry.held_out import HeldOut, held_out, origin_of
from tasks.registry.versions import Version
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.fingerprint import fingerprint
from tasks.tracking.versions import CHALLENGER, CHAMPION

RESAMPLES = 2000


@dataclass(frozen=True)
class Contest:
    """A challenger and the champion, with the settings by which they are compared.

    Attributes:
        champion: None: there is none yet.
        ladder: Settings of the challenger's run.
        rules: Its `promotion`, perhaps with another delta.
    """

    home: Home
    challenger: Version
    champion: Version | None
    ladder: Ladder
    rules: PromotionRules
    context: Context

    @cached_property
    def versions(self) -> dict[str, Version]:
        """Both, by their aliases."""
        return {CHALLENGER: self.challenger, **({CHAMPION: self.champion} if self.champion else {})}


def contest(home: Home, challenger: Version, champion: Version | None, delta: float | None) -> Contest:
    """Set up a comparison; `delta` replaces that of the settings.

    Raises:
        UserError: The challenger's run is not in this home, or delta is not above 0.
    """
    own = origin_of(home, challenger)
    if own is None:
        remedy = "Its run, or the run's data, are not in this home: run its ladder again here, or promote in the home of the run."
        raise UserError.about("MODEL", challenger.label, "a version whose run and data are in this home", remedy)
    return Contest(home, challenger, champion, own.ladder, with_delta(own.ladder.promotion, delta), own.context)


def with_delta(rules: PromotionRules, delta: float | None) -> PromotionRules:
    """The rules with another delta; None: as they are.

    Raises:
        UserError: It is not above 0.
    """
    if delta is None:
        return rules
    if not 0 < delta <= 1000:
        raise UserError.about("--delta", delta, "a number above 0, at most 1000", "For instance --delta 0.01.")
    return rules.model_copy(update={"delta": delta})


def judge(asked: Contest, path: str | None = None) -> Judgement:
    """Compare challenger and champion on the same held-out documents, and check gate, speed and size.

    Args:
        asked: Both models and the settings.
        path: Fresh rows; None: the validation split of the challenger's run.

    Returns:
        The figures, and every reason against the challenger.

    Raises:
        UserError: The data or a model cannot be read.
    """
    refuse_unjudged(asked.ladder.workload, "MODEL", asked.challenger.label, "a comparison")
    data, rules = held_out(asked.home, asked.challenger, asked.champion, path), asked.rules
    left_out, notes = _left_out(data, asked)
    scores = {name: without(_scores(version, data.corpora[name], data, asked), left_out) for name, version in asked.versions.items()}
    quality = _quality(scores, asked)
    record, reasons = _stage_of(asked), list(quality["reasons"])
    if record is not None and record.gate in ("warned", "stopped"):
        reasons.append(f"its gate: {record.gate}, because {'; '.join(record.gate_reasons)}")
    benches = _speeds(asked)
    latency = {name: 1000 * case.whole.p50 for name, bench in benches.items() if (case := bench.case(1))}
    mib = {name: sum(file.stat().st_size for file in weight_files(version.folder)) / 2**20 for name, version in asked.versions.items()}
    reasons += _over_limits(rules, latency, mib)
    return Judgement(
        **{**quality, "reasons": tuple(reasons)},
        delta=rules.delta,
        data=data.words,
        data_fingerprint=data.corpora[CHALLENGER].content_hash,
        seen=_seen(data, asked),
        gate=None if record is None else record.gate,
        latency_ms=latency,
        mib=mib,
        notes=tuple(notes),
    )


def _seen(data: HeldOut, asked: Contest) -> str | None:
    """Whether these data had a part in making a model."""
    if data.fresh:
        return None
    validated = [version.label for version in asked.versions.values() if _validated_on(version, data, asked.home)]
    return f"{' and '.join(validated)} were validated on these rows in training, which may flatter them; --data judges on fresh rows"


def _validated_on(version: Version, data: HeldOut, home: Home) -> bool:
    origin = origin_of(home, version)
    return origin is not None and origin.corpus.content_hash == data.corpora[CHALLENGER].content_hash


def _left_out(data: HeldOut, asked: Contest) -> tuple[np.ndarray, list[str]]:
    """Numbers of the documents that a model was trained on, and what to say of them."""
    found, notes = [], []
    for name, version in asked.versions.items():
        known = data.trained_on[name]
        if known is None:
            notes.append(f"whether {version.label} was trained on some of these rows is not known: its run is not in this home")
        elif len(known):
            notes.append(f"{len(known):,} documents left out that {version.label} was trained on")
            found.append(known)
    return np.unique(np.concatenate([*found, np.zeros(0, dtype=np.int64)])), notes


def _scores(version: Version, record: DataRecord, data: HeldOut, asked: Contest) -> DocumentScores:
    """Find or compute the scores of a model."""
    log.info("%s: judged on %s", version.label, data.words)
    found = version.stage, version.folder, version.weights_sha256
    return stored_scores(*found, record, data.splits, data.examples, asked.ladder, asked.context)


def _quality(scores: dict[str, DocumentScores], asked: Contest) -> dict[str, Any]:
    """Figures of both models and their paired difference, and whether the challenger may be worse by more than delta."""
    language = answers_in_ids(asked.ladder.workload)
    own, rules = scores[CHALLENGER], asked.rules
    rows = int(own.rows.sum())
    found: dict[str, Any] = {"metric": "bits_per_byte" if language else "accuracy", "rows": rows, "documents": len(own.document)}
    if rows < rules.min_rows or len(own.document) < LEAST_DOCUMENTS:
        asks = f"promotion.min_rows asks {rules.min_rows:,}, of {LEAST_DOCUMENTS} documents at least"
        few = f"too few examples: {rows:,} of {len(own.document):,} documents; {asks}. Give more with --data"
        return found | {"champion": None, "challenger": _mean(own), "reasons": (few,)}
    found |= {"champion": _mean(scores[CHAMPION]) if CHAMPION in scores else None, "challenger": _mean(own), "reasons": ()}
    if CHAMPION not in scores:
        return found
    gain = _difference(scores[CHAMPION], own, language)
    assert gain.value is not None
    assert gain.low is not None
    found |= {"difference": gain.value, "low": gain.low, "high": gain.high}
    if gain.low < -rules.delta:
        worse = f"it may be worse than {asked.champion.label if asked.champion else ''} by {_unit(-gain.low, language)}"
        found["reasons"] = (
            f"{worse} (97.5 % confidence; measured {_signed(gain.value, language)}); promotion.delta allows {_unit(rules.delta, language)}",
        )
    return found


def _difference(champion: DocumentScores, challenger: DocumentScores, language: bool) -> Figure:
    """The gain of the challenger, with documents as the resampled unit."""
    columns = {
        "champion": champion.score,
        "champion weight": champion.weight,
        "challenger": challenger.score,
        "challenger weight": challenger.weight,
    }
    nothing = np.zeros(len(champion.document), dtype=np.int64)
    sums = resample(columns, nothing, 1, champion.document, RESAMPLES)
    ratios = {name: sums.ratio(name, f"{name} weight", share=not language) for name in (CHAMPION, CHALLENGER)}
    better, worse = (ratios[CHAMPION], ratios[CHALLENGER]) if language else (ratios[CHALLENGER], ratios[CHAMPION])
    # The limits were checked on rows; the sums of weights are bytes for language models.
    gain = better.minus(worse)
    return BootstrapEstimate(gain.value, gain.draws, gain.rows, len(champion.document), gain.within).figure(Limits(0, LEAST_DOCUMENTS))


def _mean(scores: DocumentScores) -> float:
    total = float(scores.weight.sum())
    return float(scores.score.sum()) / total if total else math.nan


def _unit(value: float, language: bool) -> str:
    return f"{value:.4f} bits/byte" if language else f"{percent(value, 2)}"


def _signed(value: float, language: bool) -> str:
    return f"{'+' if value >= 0 else '-'}{_unit(abs(value), language)}"


def _stage_of(asked: Contest) -> StageRecord | None:
    """The challenger's record in its run."""
    own = origin_of(asked.home, asked.challenger)
    models = own.record.models if own else []
    return next((model for model in models if model.weights_sha256 == asked.challenger.weights_sha256), None)


def _speeds(asked: Contest) -> dict[str, ModelBench]:
    """Measurements of both models: those of their runs if they can be compared, else made now in turn where a limit asks for them."""
    known: dict[str, ModelBench] = {}
    for name, version in asked.versions.items():
        origin = origin_of(asked.home, version)
        models = origin.record.models if origin else []
        bench = next((m.bench for m in models if m.weights_sha256 == version.weights_sha256 and m.bench), None)
        if bench is not None:
            known[name] = bench
    rules, first = asked.rules, next(iter(known.values()), None)
    alike = first is not None and all(
        (b.machine, b.tokens, b.new_tokens) == (first.machine, first.tokens, first.new_tokens) for b in known.values()
    )
    wanted = rules.max_latency_ms is not None or rules.max_slower is not None
    in_turn = rules.max_slower is None or CHAMPION not in asked.versions or all(len(bench.beside) > 1 for bench in known.values())
    if not wanted or (alike and in_turn and len(known) == len(asked.versions)):
        return known if alike else {name: bench for name, bench in known.items() if name == CHALLENGER}
    return _measured(asked)


def _request(bench: ModelBench) -> tuple[object, ...]:
    return bench.machine, bench.tokens, bench.new_tokens


def _measured(asked: Contest) -> dict[str, ModelBench]:
    """Find or make a short measurement of both models in turn."""
    weights = [version.weights_sha256 for version in asked.versions.values()]
    identity = {**bench_identity(asked.ladder, weights), "kind": "bench", "in_turn": True}

    def compute() -> Write:
        from tasks.bench.measure import measure_in_turn

        records = [
            stage_record(version.folder).model_copy(update={"name": name, "folder": str(version.folder)})
            for name, version in asked.versions.items()
        ]
        made = measure_in_turn(records, asked.ladder)
        return lambda folder: [
            (folder / f"{bench.name}.json").write_text(bench.model_dump_json(indent=1), encoding="utf-8") for bench in made
        ]

    log.info("measuring %s in turn", " and ".join(version.label for version in asked.versions.values()))
    found = find_or_compute(store_of(asked.context), Entry("bench", fingerprint(identity)[:8], identity), asked.context.made, compute)
    return {name: ModelBench.model_validate_json((found.folder / f"{name}.json").read_bytes()) for name in asked.versions}


def _over_limits(rules: PromotionRules, latency: dict[str, float], mib: dict[str, float]) -> Sequence[str]:
    reasons, own = [], latency.get(CHALLENGER)
    if rules.max_latency_ms is not None and not (own is not None and own <= rules.max_latency_ms):
        reached = "an unknown time" if own is None else f"{milliseconds(own / 1000)} ms"
        reasons.append(f"it takes {reached} for a request; promotion.max_latency_ms allows {rules.max_latency_ms:g}")
    if rules.max_slower is not None and CHAMPION in latency and own is not None and own / latency[CHAMPION] > rules.max_slower:
        reasons.append(
            f"it takes {own / latency[CHAMPION]:.2f} times the champion's time; promotion.max_slower allows {rules.max_slower:g}"
        )
    if rules.max_mib is not None and mib[CHALLENGER] > rules.max_mib:
        reasons.append(f"its weights have {mib[CHALLENGER]:.2f} MiB; promotion.max_mib allows {rules.max_mib:g}")
    return reasons
