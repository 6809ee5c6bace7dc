"""Splits drawn by the hash of each document's key, and limits drawn by seed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from conf.errors import UserError
from conf.schema.data import StdlibData
from models.data.corpus import SPLITS, SplitName
from tasks.data.splits import DROPPED, split_documents
from tasks.data.spool import NONE, place_of


def parts_of(keys: list[str], **data: Any) -> NDArray[np.uint8]:
    """The part of each document with these keys, where the source gives none."""
    return split_documents(np.array([place_of(key) for key in keys], dtype=np.uint64), np.full(len(keys), NONE), StdlibData(**data))


def keys_of(keys: list[str], **data: Any) -> dict[SplitName, list[str]]:
    parts = parts_of(keys, **data)
    return {name: [key for key, part in zip(keys, parts, strict=True) if part == index] for index, name in enumerate(SPLITS)}


@given(st.lists(st.text(max_size=5), min_size=3, max_size=60, unique=True), st.randoms(use_true_random=False))
def test_every_document_has_a_part_and_one_key_one_part(keys: list[str], random: Any) -> None:
    repeated = [*keys, *random.choices(keys, k=len(keys))]
    splits = keys_of(repeated)
    assert all(splits.values())
    assert sum(map(len, splits.values())) == len(repeated)
    assert sum(len(set(split)) for split in splits.values()) == len(keys)


def test_the_hash_of_the_key_decides_the_split() -> None:
    splits = keys_of([f"package/module{n}.py" for n in range(2000)], valid_fraction=0.1, test_fraction=0.2)
    bounds: dict[SplitName, tuple[float, float]] = {"valid": (0.0, 0.1), "test": (0.1, 0.3), "train": (0.3, 1.0)}
    for name, (low, high) in bounds.items():
        place = [int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) / 2**64 for key in splits[name]]
        assert low <= min(place) < max(place) < high
    assert 160 < len(splits["valid"]) < 240


def test_added_documents_move_no_other() -> None:
    keys = [f"module{n}.py" for n in range(300)]
    before, after = keys_of(keys), keys_of([f"new{n}.py" for n in range(300)] + keys)
    for name in SPLITS:
        assert set(before[name]) == set(after[name]) & set(keys)


@pytest.mark.parametrize("keys", [["a", "b"], ["a", "b", "a", "b"]])
def test_three_different_documents_are_needed(keys: list[str]) -> None:
    with pytest.raises(UserError, match=rf"data: got '{len(set(keys))} different documents'; allowed: at least 3"):
        parts_of(keys)


def test_a_limit_draws_by_seed_and_more_documents_include_fewer() -> None:
    keys = [f"text {n}" for n in range(500)]
    drawn = {n: {key for key, part in zip(keys, parts_of(keys, max_documents=n), strict=True) if part != DROPPED} for n in (50, 60, 500)}
    assert [len(chosen) for chosen in drawn.values()] == [50, 60, 500]
    assert drawn[50] < drawn[60]
    assert drawn[50] != set(keys[:50])
    other = {key for key, part in zip(keys, parts_of(keys, max_documents=50, seed=1), strict=True) if part != DROPPED}
    assert len(other & drawn[50]) < 15, "another seed draws others"
    places = [keys.index(key) / 500 for key in drawn[50]]
    assert 0.35 < sum(places) / 50 < 0.65, "from the whole source"


def test_a_limit_of_the_training_part_leaves_the_others() -> None:
    keys = [f"text {n}" for n in range(500)]
    whole, limited = keys_of(keys), keys_of(keys, max_train_documents=20)
    assert (limited["valid"], limited["test"]) == (whole["valid"], whole["test"])
    assert len(limited["train"]) == 20
    assert set(limited["train"]) < set(keys_of(keys, max_train_documents=30)["train"]) < set(whole["train"])
    assert set(limited["train"]) != set(keys_of(keys, max_train_documents=20, seed=3)["train"])


def test_a_limit_counts_copies_of_a_text_as_documents() -> None:
    parts = parts_of(["one", "two", "three", *["four"] * 30], max_documents=10)
    assert (parts != DROPPED).sum() == 10


@pytest.mark.parametrize("missing", [(), ("valid",), ("test",), ("valid", "test")])
def test_given_splits_stay_and_missing_ones_are_drawn_from_train(missing: tuple[SplitName, ...]) -> None:
    chosen = [n for n in range(500) if ("train", "train", "train", "valid", "test")[n % 5] not in missing]
    given = np.array([(0, 0, 0, 1, 2)[n % 5] for n in chosen], dtype=np.uint8)
    places = np.array([place_of(f"k{n}") for n in chosen], dtype=np.uint64)
    parts = split_documents(places, given, StdlibData(valid_fraction=0.1, test_fraction=0.2))
    for index, name in enumerate(SPLITS):
        assert set(given[parts == index]) == {0 if name in missing else index}
    assert ("valid" in missing) == (10 < (parts == 1).sum() < 60)
    assert ("test" in missing) == (30 < (parts == 2).sum() < 95)
    few = np.array([0, *[1] * 40], dtype=np.uint8)
    with pytest.raises(UserError, match=r"at least 2: one to train on, and one for what is drawn from train"):
        split_documents(places[: len(few)], few, StdlibData())
