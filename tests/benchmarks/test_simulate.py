"""`python -m benchmarks.simulate`: counts of real operations grow at most linearly, simulated clocks follow their laws."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from benchmarks.simulate import PARTS, report
from benchmarks.simulated.cluster import LAWS, Law, best_interval, queue, simulate
from benchmarks.simulated.curves import LINEAR, Point, counting, exponent, growth, table
from benchmarks.simulated.parts import caches
from benchmarks.simulated.storage import stores

pytestmark = pytest.mark.thorough

CALM = Law(batch=0, spread=0.0, hiccups=0.0, mtbf=math.inf)
SIZES = (10, 40, 160)


def test_exponents() -> None:
    assert exponent((1, 10, 100), (3.0, 300.0, 30_000.0)) == pytest.approx(2.0)
    assert exponent((10, 100), (0.0, 0.0)) == 0
    assert [growth(slope) for slope in (0.0, 1.0, 1.3)] == ["constant", "at most linear", "MORE THAN LINEAR"]


def test_files_and_entries_are_counted(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text("x")
    with counting() as counts:
        (tmp_path / "0.txt").read_text()
        os.listdir(tmp_path)
        list(tmp_path.glob("*.txt"))
    (tmp_path / "1.txt").read_text()
    assert (counts.opens, counts.entries) == (1, 10)


def test_what_grows_faster_is_named() -> None:
    square = [Point(n, n**2 / 1e3, 1, n**2) for n in SIZES]
    assert table("things", {"all pairs": square}).splitlines()[-1].endswith("| MORE THAN LINEAR |")


def test_store_and_runs_grow_at_most_linearly(tmp_path: Path) -> None:
    curves = stores(tmp_path, SIZES)
    for name, points in curves.items():
        for values in ([point.opens for point in points], [point.entries for point in points]):
            assert exponent(SIZES, values) < LINEAR, name
    assert [point.opens for point in curves["store: peek at a result"]] == [1, 1, 1]
    assert [point.opens for point in curves["runs: list again (index)"]] == [1, 1, 1]
    assert curves["clean --dry-run, all kept"][-1].entries > SIZES[-1]


def test_a_cache_of_many_parts_grows_at_most_linearly(tmp_path: Path) -> None:
    found = caches(tmp_path / "cache", SIZES)
    assert len({point.opens for point in found.curves["commit another part, look its examples up"]}) == 1
    assert [point.opens for point in found.curves["index: read and sort all keys"]] == list(SIZES)
    assert [point.opens for point in found.curves["look up a batch again"]] == [0, 0, 0]
    assert found.limit == ""


@pytest.mark.parametrize("n", [1, 100])
def test_without_failures_and_stragglers_the_clock_is_the_law(n: int) -> None:
    found = simulate(CALM, n, 500)
    step = 8 * CALM.sequence_seconds + CALM.all_reduce(n)
    assert found.seconds == pytest.approx(500 * step + 2 * CALM.save(n))
    assert (found.failures, found.lost_steps) == (0, 0)
    assert found.goodput == pytest.approx(500 * 8 * CALM.sequence_seconds / found.seconds)


def test_failures_cost_steps_and_more_workers_have_more_of_them() -> None:
    law = Law(batch=0, mtbf=24 * 3600.0)
    few, many = simulate(law, 10, 5000), simulate(law, 100, 5000)
    assert few == simulate(law, 10, 5000)
    assert many.failures > few.failures
    assert many.goodput < few.goodput
    # Near Young's interval less is lost than with a tenth and with ten times as many steps between checkpoints.
    best = round(best_interval(law, 100))
    lost = [simulate(Law(batch=0, mtbf=law.mtbf, every=every), 100, 5000).seconds for every in (best // 10, best, 10 * best)]
    assert lost[1] == min(lost)


def test_the_last_of_a_queue_waits_for_all_others() -> None:
    for n in (1, 30, 300):
        found = queue(n, 0.2)
        assert n * 0.2 <= found.last <= n * (0.2 + 0.05)


def test_parts_print_their_tables(tmp_path: Path) -> None:
    for part in (part for part in PARTS if part not in ("stores", "signals")):
        base = tmp_path / part
        base.mkdir()
        lines = "\n".join(report(part, True, base)).splitlines()
        rows = [line for line in lines if line.startswith("| ")]
        assert len(rows) > 1, part
        assert len({row.count(" |") for row in rows}) == 1, part
        assert part != "workers" or all(any(f"| {name} |" in row for row in rows) for name in LAWS)
