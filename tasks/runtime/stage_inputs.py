"""The inputs that the steps of a ladder run share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from conf.schema.ladder import Ladder
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.runs.run_registry import Context


@dataclass(frozen=True)
class StageInputs:
    """The inputs that all steps of a ladder share.

    Attributes:
        ladder: The whole ladder, resolved.
        data: The prepared corpus.
        context: The run.
        first_weights: Models whose weights students begin with, by the name of the stage, in place of their initialisation.
    """

    ladder: Ladder
    data: DataRecord
    context: Context
    first_weights: Mapping[str, StageRecord] = field(default_factory=dict[str, StageRecord])
