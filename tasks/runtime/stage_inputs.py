"""The inputs that the steps of a ladder run share."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.ladder import Ladder
from tasks.records.run import DataRecord
from tasks.runtime.runs.run_registry import Context


@dataclass(frozen=True)
class StageInputs:
    """The inputs that all steps of a ladder share.

    Attributes:
        ladder: The whole ladder, resolved.
        data: The prepared corpus.
        context: The run.
    """

    ladder: Ladder
    data: DataRecord
    context: Context
