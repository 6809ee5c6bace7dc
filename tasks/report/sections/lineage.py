"""Section of the lineage: the origin of each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.records.run import RunRecord

CHAIN = 12  # models; of more, the chain shows the ends


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The chain of models, root first; of a long one its ends, and how many are between."""
    models = record.models
    if not models:
        return None
    long = len(models) > CHAIN
    return {
        "head": models[: CHAIN // 2] if long else models,
        "left_out": len(models) - CHAIN if long else 0,
        "tail": models[-CHAIN // 2 :] if long else [],
    }
