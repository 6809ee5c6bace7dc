"""Settings of the gate: bounds that a student must reach, and its policy."""

from __future__ import annotations

from typing import Literal

from conf.schema.base import Settings, setting
from conf.schema.measures.audit import AuditLimit, Bound, bounds

Policy = Literal["stop", "warn", "ask", "extend", "insert"]


class Gate(Settings):
    """Thresholds that a student must reach before it may teach the next one, or ship."""

    min_parent_retention: float | None = setting(
        None, "Lowest retention against the stage's teacher; none: not checked", "ratio", ge=0, le=2
    )
    min_root_retention: float | None = setting(None, "Lowest retention against the root teacher; none: not checked", "ratio", ge=0, le=2)
    min_also_retention: float | None = setting(
        None, "Lowest retention against the root on each corpus of evaluation.also; none: not checked", "ratio", added=True, ge=0, le=2
    )
    max_task_drop: float | None = setting(
        None,
        "Largest drop of the main figure of each of evaluation.tasks below the root's, at the upper end of its interval; none: not checked",
        "as the figure",
        added=True,
        ge=0,
        le=1e06,
    )
    max_parameters: int | None = setting(None, "Largest number of parameters; none: no limit", "parameters", ge=1, le=10**14)
    max_slice_amplification: float | None = setting(
        None,
        "Largest excess of a slice's gap over the teachers', at the upper end of its interval; none: not checked",
        "ratio",
        ge=0,
        le=1e06,
    )
    max_confidently_wrong_excess: float | None = setting(
        None,
        "Largest excess, over the untaught control, of confidently wrong answers shared with a teacher, at the upper end of its interval",
        "share",
        ge=-1,
        le=1,
    )
    max_ece: float | None = setting(None, "Largest expected calibration error, at the upper end of its interval", "ratio", ge=0, le=1)
    audited: tuple[AuditLimit, ...] = setting((), "Bounds of other audited figures; see docs/explanation/audits.md", "bounds")
    policy: Policy = setting(
        "stop",
        "Where a threshold is missed: stop: end the ladder (exit code 3); warn: warn and go on; ask: pause for a person's decision; "
        "extend: train on; insert: teach through an assistant of a size between teacher and student",
    )
    ask_hours: float = setting(24.0, "Time that a question waits for its answer (ask)", "hours", gt=0, le=24 * 365)
    unanswered: Literal["reject", "approve"] = setting("reject", "Decision where nobody answers in that time (ask)")
    extend_steps: int | None = setting(None, "Steps of one extension; none: half of training.steps (extend)", "steps", ge=1, le=100_000_000)
    max_extensions: int = setting(2, "Largest number of extensions of one student (extend)", "extensions", ge=1, le=100)
    max_inserts: int = setting(1, "Largest number of assistants before one student (insert)", "stages", ge=1, le=8)

    def audit_bounds(self, thresholds: tuple[float, ...]) -> list[Bound]:
        """Bounds of audited figures; confidently wrong answers at all thresholds."""
        return bounds(self.max_slice_amplification, self.max_confidently_wrong_excess, self.max_ece, self.audited, thresholds)
