"""The route of a ladder: its stages as written, or rewritten in a known way."""

from __future__ import annotations

from typing import Literal

# Of routes that are the same training the one named first has the pilot, as decisions of earlier versions know it: new ones come last.
Route = Literal["as-written", "direct", "root-cached", "curriculum", "ensemble", "self", "best-of-rungs", "direct-cached", "auto"]

ROUTE_TEXT = (
    "Route from the root to the last student, which rewrites the stages: as-written; direct: the root teaches the last student alone; "
    "direct-cached: the same, from stored answers that are each read several times; "
    "root-cached: stages as written, the root's one cache teaches every student; curriculum: one training, teachers of rising size; "
    "ensemble: seeds of a student teach together; self: one more student of the last one's size, taught by it; best-of-rungs: a short "
    "trial chooses each student's teacher; auto: pilots choose the route"
)
