"""The gate: may this student teach the next one, or ship?"""

from __future__ import annotations

from conf.schema import Gate
from tasks.records import StageRecord, Verdict


def judge(record: StageRecord, gate: Gate) -> tuple[Verdict | None, tuple[str, ...]]:
    """Compare a student's figures with what its gate asks.

    Returns:
        The verdict, None where the gate asks nothing, and for each requirement that was missed a sentence with its figures.
    """
    if gate.min_parent_retention is gate.min_root_retention is gate.max_parameters is None:
        return None, ()
    reasons = []
    for name, least, reached in (
        ("parent", gate.min_parent_retention, record.retention.parent),
        ("root", gate.min_root_retention, record.retention.root),
    ):
        # A figure that is missing or not a number must not open a gate.
        if least is not None and not (reached is not None and reached >= least):
            shown = "unknown" if reached is None else f"{reached:.3f}"
            reasons.append(f"{record.name} keeps {shown} of the {name}; gate.min_{name}_retention asks at least {least:g}")
    if gate.max_parameters is not None and record.parameters > gate.max_parameters:
        reasons.append(f"{record.name} has {record.parameters:,} parameters; gate.max_parameters allows at most {gate.max_parameters:,}")
    if not reasons:
        return "passed", ()
    return ("stopped" if gate.policy == "stop" else "warned"), tuple(reasons)
