"""The price of the pilots of `route: auto`, said before a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf.errors import UserError
from conf.home import Home, free_bytes
from conf.schema.ladder import Ladder
from models.base.interface import Interface
from models.data.corpus import Corpus
from tasks.data.prepare import content_hash, data_identity, read_corpus
from tasks.planning.costs.estimates import cache_bytes
from tasks.planning.plan import no_room
from tasks.planning.preflight import expected_interface
from tasks.planning.students import settle_students
from tasks.records.format import byte_size, operations, percent
from tasks.routing.candidates import RouteCandidates
from tasks.routing.search import plan_of, routes_to_search
from tasks.runtime.runs.run_registry import PLAN, Context
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Store
from tasks.teachers.teacher_source import NotConverted


def search_notes(ladder: Ladder, base: Path, home: Home) -> tuple[str, ...]:
    """Lines on the pilots, their price and the bound of the total; none where the route is not auto.

    Raises:
        UserError: A route that is named cannot be.
    """
    if ladder.route != "auto":
        return ()
    context = Context(run=PLAN, ladder=ladder.name, home=str(home.root), base=str(base))
    corpus = _prepared(ladder, context, home)
    known = routes_to_search(settle_students(ladder, context), context, corpus)
    plan, share = plan_of(ladder, known), ladder.routing.share
    left_out = [f"route {route} is not tried: {reason}" for route, reason in {**known.left_out, **plan.too_dear}.items()]
    if not plan.sizes:
        cheapest = known.untried
        if len(known.routes) == 1:
            return (f"route auto: it will be {cheapest}, the only route that this ladder can have", *left_out)
        stored = _cache_notes(known, [cheapest], "its stored answers take", expected_interface(ladder, corpus), home)
        return (f"route auto: no two pilots fit into {percent(share)} of the stages' FLOPs, so it will be {cheapest}", *stored, *left_out)
    rounds = ", then ".join(f"{size} pilots of {operations(price)}" for size, price in zip(plan.sizes, plan.prices, strict=True))
    seeds = f" with each of {ladder.routing.seeds} seeds" if ladder.routing.seeds > 1 else ""
    bound = f"pilots and final training together take the {operations(known.price)} of the stages as written at most"
    most = f"at most {operations(share * known.price)} ({percent(share)})"
    searched = f"route auto: {rounds}{seeds}, {most}, of {', '.join(plan.routes)}; {bound}"
    words = "pilots and final training share stored answers,"
    return (searched, *_cache_notes(known, plan.routes, words, expected_interface(ladder, corpus), home), *left_out)


def _cache_notes(known: RouteCandidates, routes: Sequence[str], words: str, interface: Interface, home: Home) -> list[str]:
    """Size on disk of the largest caches of signals of these routes, after some words."""
    tried = [known.routes[route] for route in routes]
    cached = [[stage.signals.source == "cached" for stage in each.ladder.stages] for each in tried]
    sizes = [
        cache_bytes(each.ladder, stored, each.positions, interface, known.examples) for each, stored in zip(tried, cached, strict=True)
    ]
    if not (most := max(sizes)):
        return []
    return [f"{words} {byte_size(most)} at most", *([no_room(most, free)] if most > (free := free_bytes(home)) else [])]


def _prepared(ladder: Ladder, context: Context, home: Home) -> Corpus | None:
    """The corpus, where it is prepared already."""
    try:
        found = Store(home).peek("data", fingerprint(data_identity(ladder, context)), read_corpus)
    except (UserError, NotConverted):
        return None
    return Corpus(found.folder, content_hash(found)) if found else None
