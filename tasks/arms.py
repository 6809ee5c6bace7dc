"""The arms of a proof: each a rewriting of the ladder, run by the same flow and loop as the ladder itself."""

from __future__ import annotations

from conf.lessons import Alpha, Objective, Signals
from conf.schema import Stage


def untaught(stage: Stage) -> Stage:
    """The same student with the same first weights, data and steps, but taught by the labels alone: the control of what is inherited."""
    return stage.model_copy(update={"teachers": ("none",), "objective": Objective(alpha=Alpha(start=0.0)), "signals": Signals()})
