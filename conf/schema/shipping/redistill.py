"""Settings of re-distillation: when a drop sends the ladder back to work."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from conf.schema.base import Settings, setting
from conf.schema.stage.training import Training


class Redistill(Settings):
    """Reaction to a drop that `ladder monitor` finds: the windows join the transfer data, and the ladder runs again."""

    policy: Literal["auto", "ask", "off"] = setting(
        "off",
        "auto: run the ladder again, and promote what passes; ask: run it again, a person promotes; off: nothing begins by itself",
        identity=False,
    )
    per_week: int = setting(2, "Most runs that begin by themselves in seven days", "runs", identity=False, ge=1, le=1000)
    budget: str | None = setting(
        None,
        "Wall-clock time to which such a run is shortened; none: the steps of the ladder",
        "time",
        identity=False,
        allowed="a whole number with s, m, h or d, such as 30m",
        pattern=r"^[0-9]{1,6}[smhd]$",
    )
    mix: float | None = setting(
        None,
        "Share of the examples read in an epoch that come from the windows; none: each of their rows once",
        "fraction",
        identity=False,
        gt=0,
        le=0.9,
    )
    holdout: float = setting(
        0.3, "Share of the windows' rows, drawn by content, that judge and never train", "fraction", identity=False, gt=0, lt=1
    )
    max_rows: int = setting(100_000, "Rows of the windows that are used, the newest", "rows", identity=False, ge=10, le=10**8)
    teacher_training: Training | None = setting(
        None,
        "Training of the teacher on the labelled rows, where it must be refreshed first; none: `teacher.training`, else that of the first "
        "stage",
        identity=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        """YAML reads a bare `off` as false."""
        return {**value, "policy": "off"} if isinstance(value, dict) and value.get("policy") is False else value
