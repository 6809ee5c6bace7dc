"""Judge exports by their tolerance."""

from __future__ import annotations

from conf.schema.shipping.exports import Export
from tasks.records.export import ExportDifference


def outside(export: Export, difference: ExportDifference) -> str | None:
    """Why an export is outside its tolerance, in words; None: it is inside."""
    bounds = export.bounds
    faults = []
    if not difference.kl <= bounds.kl:
        faults.append(f"a mean KL divergence of {difference.kl:.3g} nats, more than max_kl {bounds.kl:g}")
    if difference.agreement < bounds.agreement:
        faults.append(
            f"the same answer on {100 * difference.agreement:.2f} % of {difference.rows:,} rows, less than min_agreement "
            f"{100 * bounds.agreement:g} %"
        )
    if bounds.difference is not None and not difference.largest <= bounds.difference:
        faults.append(f"a log-probability that differs by {difference.largest:.3g} nats, more than max_difference {bounds.difference:g}")
    if difference.other_ids:
        faults.append(f"other ids for {difference.other_ids} of {difference.texts} held-out texts")
    return "; ".join(faults) or None
