"""Settings, figures and corpora as MLflow records them; imports no mlflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.data.corpus import CorpusInfo
    from tasks.records.bench import ModelBench
    from tasks.records.run import StageRecord

LONGEST = 500  # characters of a parameter's value; the whole settings are in the run's ladder.yaml


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys and texts; texts longer than `LONGEST` characters are cut."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            flat[f"{prefix}{key}"] = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    return flat


def metrics_of(record: StageRecord) -> dict[str, float]:
    """A `StageRecord`'s figures under their names in MLflow."""
    renamed = {"agreement_parent": "valid/agreement", "kl_parent": "valid/kl_to_teacher"}
    figures = {renamed.get(key, f"valid/{key}"): value for key, value in record.metrics.items()}
    figures |= {"cost/flops": record.flops, "cost/seconds": record.seconds}
    figures |= {"model/parameters": float(record.parameters), "model/non_embedding": float(record.non_embedding)}
    if record.bench is not None:
        figures |= latency_metrics(record.bench)
    kept = {"retention/parent": record.retention.parent, "retention/root": record.retention.root}
    if record.audit is not None:
        figures |= {f"audit/{name}": figure.value for name, figure in record.audit.figures.items() if figure.value is not None}
        figures["audit/flagged"] = float(len(record.audit.flagged))
    if record.choice is not None:
        figures |= {f"choice/{trial.teacher}": trial.score for trial in record.choice.trials}
    for name, task in record.tasks.items():
        figures |= {f"task/{name}/{key.replace(',', '_')}": value for key, value in task.metrics.items()}
    for name, also in record.also.items():
        figures |= {f"also/{name}/{key}": value for key, value in also.metrics.items()}
        kept[f"retention/root/{name}"] = also.retention.root
    return figures | {key: value for key, value in kept.items() if value is not None}


def latency_metrics(bench: ModelBench) -> dict[str, float]:
    """A measured model's speed as `latency/*`: milliseconds, requests and tokens a second, by batch size; MiB."""
    figures = {"latency/file_mib": bench.file_bytes / 2**20}
    for case in bench.cases:
        size = f"batch_{case.batch_size}"
        for part, spread in (("whole", case.whole), ("prefill", case.prefill), ("decode", case.decode)):
            if spread is not None:
                named = {"p50": spread.p50, "p95": spread.p95, "p99": spread.p99}
                figures |= {f"latency/{size}/{part}_{name}_ms": 1000 * value for name, value in named.items()}
        figures[f"latency/{size}/requests_per_second"] = case.requests_per_second
        if case.tokens_per_second is not None:
            figures[f"latency/{size}/tokens_per_second"] = case.tokens_per_second
    if bench.loading is not None:
        figures |= {"latency/load_seconds": bench.loading.load_seconds, "latency/peak_mib": bench.loading.peak_bytes / 2**20}
    return figures


def dataset_of(info: CorpusInfo, content_hash: str, folder: Path) -> dict[str, str]:
    """A corpus as fields of MLflow's data set: its content hash as digest, its folder as source, its columns and size."""
    return {
        "digest": content_hash[:36],
        "source_type": "local",
        "source": json.dumps({"uri": str(folder)}),
        "schema": json.dumps(schema_of(info)),
        "profile": json.dumps(profile_of(info)),
    }


def schema_of(info: CorpusInfo) -> dict[str, Any]:
    """A corpus's columns in the form that MLflow's page of a dataset shows."""
    if info.image_shape is not None:
        columns = [{"name": "image", "type": f"float32 {list(info.image_shape)}"}, {"name": "label", "type": "long"}]
    else:
        columns = [{"name": "text", "type": "string"}, *([{"name": "label", "type": "long"}] if info.label_names else [])]
    return {"mlflow_colspec": columns}


def profile_of(info: CorpusInfo) -> dict[str, Any]:
    """A corpus's size: documents and tokens in each split, sequence length, vocabulary or classes."""
    return {
        "documents": info.documents,
        "tokens": info.tokens,
        "sequence_length": info.sequence_length,
        "vocabulary": info.vocabulary,
        "classes": info.classes,
        "slices": len(info.slice_names),
    }
