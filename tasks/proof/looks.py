"""Finds the earlier looks at the seeds of two arms: proofs of the same students."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from conf.home import Home
from conf.schema.measures.proof import Arm
from models.base.looks import LEAST
from tasks.records.proof import Proof, Replicate, SeedLook, read_proof
from tasks.runtime.runs.run_registry import list_runs

Key = tuple[int, tuple[str, ...], tuple[str, ...]]  # a seed, and the fingerprints of both arms' students


def earlier_proofs(home: Home, run: str) -> list[Proof]:
    """The finished proofs of a home but for one run's, in the order in which they ended."""
    records = [record for record in list_runs(home) if record.proof and record.run != run and record.finished]
    proofs = [read_proof(record) for record in sorted(records, key=lambda record: record.finished or "")]
    return [proof for proof in proofs if proof is not None and proof.finished]


class Looks(NamedTuple):
    """The looks at the seeds of two arms.

    Attributes:
        taken: Run and seeds of each, the first one first.
        added: Places, among this proof's pairs, of those that each look added, which are what is judged; empty: too few for a verdict.
        number: Of this look, from 1; that of the earlier one where its seeds are looked at again.
    """

    taken: tuple[SeedLook, ...]
    added: tuple[tuple[int, ...], ...]
    number: int


def looks_at(run: str, arms: tuple[Arm, Arm], pairs: Sequence[tuple[Replicate, Replicate]], earlier: Sequence[Proof] = ()) -> Looks:
    """The looks at the seeds of two arms, this one among them.

    The first look shows three seeds or more, and each later one adds two at least: how far seeds scatter cannot be told from fewer. A look
    at fewer seeds than an earlier one had is one more look at these.

    Args:
        run: This run.
        arms: Which.
        pairs: Their replicates, paired by seed.
        earlier: Finished proofs, the oldest first.
    """
    mine = [_key(pair) for pair in pairs]
    before = [(look, keys) for proof in earlier for look, keys in _shown(proof, arms) if keys & set(mine)]
    taken: list[SeedLook] = []
    unions: list[set[Key]] = [set()]
    added: list[tuple[int, ...]] = []
    for look, keys in (*before, (_look(run, pairs), set(mine))):
        new = keys - unions[-1]
        if len(new) >= (2 if taken else LEAST):
            taken.append(look)
            unions.append(unions[-1] | new)
            added += [tuple(place for place, key in enumerate(mine) if key in new)] if new & set(mine) else []
    judged = unions[-1] & set(mine)
    number = next((i for i, union in enumerate(unions) if union == judged), len(unions))
    return Looks(tuple(taken), tuple(places for places in added if len(places) > 1), max(number, 1))


def _key(pair: tuple[Replicate, Replicate]) -> Key:
    return pair[0].seed, pair[0].fingerprints, pair[1].fingerprints


def _look(run: str, pairs: Sequence[tuple[Replicate, Replicate]]) -> SeedLook:
    return SeedLook(run=run, seeds=tuple(first.seed for first, _ in pairs))


def _shown(proof: Proof, arms: tuple[Arm, Arm]) -> Iterator[tuple[SeedLook, set[Key]]]:
    """The looks that a proof has recorded of two arms; its own where it is of a version that recorded none."""
    contrast = next((each for each in proof.contrasts if {each.first, each.second} == set(arms)), None)
    if contrast is None:
        return
    replicates = {arm.arm: arm.replicates for arm in proof.arms}
    pairs = list(zip(*(replicates[arm] for arm in arms), strict=True))
    for look in contrast.looks or (_look(proof.run, pairs),):
        yield look, {_key(pair) for pair in pairs if pair[0].seed in look.seeds}
