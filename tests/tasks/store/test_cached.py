"""A result is found or computed once; `fresh` computes anew what another run has made."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from conf.home import Home
from tasks.store.cached import Entry, StoredResult, Write, find_or_compute, find_stored, reuse_noted
from tasks.store.store import Store

ENTRY = Entry("evaluation", "one", {"weights": "abc"})


class Computations:
    """A store, and how often something was computed into it."""

    def __init__(self, home: Path) -> None:
        self.store, self.count, self.finished = Store(Home(home)), 0, 0

    def result(self, run: str, fresh: bool = False) -> StoredResult:
        def compute() -> Write:
            self.count += 1
            return lambda folder: (folder / "figures.json").write_text(f"{run} {self.count}") and None

        def finish() -> None:
            self.finished += 1
            assert self.store.peek(ENTRY.kind, ENTRY.fingerprint), "published by now"

        return find_or_compute(self.store, ENTRY, {"run": run, "ladder": "tiny"}, compute, fresh=fresh, finish=finish)


@pytest.fixture
def computations(tmp_path: Path) -> Computations:
    return Computations(tmp_path)


def test_a_result_is_computed_once_and_then_found(computations: Computations):
    first = computations.result("a")
    assert (first.reused, reuse_noted()) == (False, None)
    again = computations.result("b")
    assert (again.reused, again.folder, again.manifest["run"]) == (True, first.folder, "a")
    assert reuse_noted() == f"reused {ENTRY.fingerprint[:12]} of a"
    assert (computations.count, computations.finished) == (1, 1)


def test_fresh_computes_anew_what_another_run_made_but_nothing_twice_in_a_run(computations: Computations):
    computations.result("a")
    anew = computations.result("b", fresh=True)
    assert (anew.reused, anew.manifest["run"], (anew.folder / "figures.json").read_text()) == (False, "b", "b 2")
    assert computations.result("b", fresh=True).reused
    assert computations.count == 2


def test_a_failed_computation_publishes_nothing_and_frees_the_lock(computations: Computations):
    def fail() -> Write:
        raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        find_or_compute(computations.store, ENTRY, {"run": "a", "ladder": "tiny"}, fail)
    assert find_stored(computations.store, ENTRY.kind, ENTRY.fingerprint) is None
    assert not computations.result("a").reused


def test_two_at_once_compute_once(computations: Computations):
    results: list[StoredResult] = []
    threads = [threading.Thread(target=lambda run=run: results.append(computations.result(run))) for run in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.reused for result in results) == [False, True]
    assert computations.count == 1
