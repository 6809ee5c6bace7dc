"""The students of one rung: seeds that teach the next one together.

An ensemble distilled into one student keeps most of its gain: arXiv:2509.14786.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.records.run import StageRecord


def with_members(product: StageRecord, others: Sequence[StageRecord]) -> StageRecord:
    """The record of a rung's product with its other students, and with the costs of all."""
    if not others:
        return product
    sums = {name: sum(getattr(each, name) for each in (product, *others)) for name in ("tokens", "flops", "seconds", "signal_seconds")}
    known = [each.all_signal_seconds for each in (product, *others)]
    whole = sum(seconds for seconds in known if seconds is not None) if None not in known else None
    reused = product.reused and all(each.reused for each in others)
    return product.model_copy(update={**sums, "all_signal_seconds": whole, "reused": reused, "members": tuple(others)})
