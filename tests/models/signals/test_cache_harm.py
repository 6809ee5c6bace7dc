"""Cached signals that are damaged, cut off or foreign: named, done again, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conf.errors import StoreError, UserError
from conf.home import Home, disk_errors
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.signals.cache import TOLERANCE, SignalCache
from models.signals.codec import dense
from models.signals.fill import select_examples
from tests.machine import child, kill, read_line, small_disk
from tests.models.signals.caches import DUMP, FINGERPRINT, IDENTITY, V, filled, made, opened, pattern

pytestmark = pytest.mark.thorough


class TestHarm:
    @pytest.mark.processes
    def test_a_killed_dump_goes_on_at_the_next_part(self, text: Corpus, tmp_path: Path) -> None:
        batches = TrainingBatches(text, 8, seed=0)
        whole = made(tmp_path / "whole")
        every = filled(whole, batches, part_bytes=8000)
        killed = made(tmp_path / "killed")
        with child(DUMP, killed.folder, text.folder, 8000) as process:
            while len(list(killed.folder.glob("part-*.json"))) < 2:
                assert read_line(process)
            kill(process)
        resumed = opened(killed.folder)
        kept = sum(part.examples for part in resumed.parts)
        assert 0 < kept < every
        assert filled(resumed, batches, part_bytes=8000) == every - kept
        names = sorted(path.name for path in whole.folder.glob("part-*.bin"))
        assert [(killed.folder / name).read_bytes() for name in names] == [(whole.folder / name).read_bytes() for name in names]
        assert sorted(path.name for path in killed.folder.glob("part-*.bin")) == names

    @pytest.mark.parametrize("suffix", [".bin", ".npy"])
    @pytest.mark.parametrize("harm", ["truncated", "changed", "gone"])
    def test_a_damaged_part_is_named_and_redone(self, text: Corpus, tmp_path: Path, suffix: str, harm: str) -> None:
        cache, batches = made(tmp_path / "cache"), TrainingBatches(text, 8, seed=0)
        filled(cache, batches, part_bytes=8000)
        before = dense(cache.source(batches.at(2)), V)
        path = tmp_path / "cache" / f"part-00001{suffix}"
        raw = path.read_bytes()
        path.unlink()
        if harm != "gone":
            path.write_bytes(raw[:-7] if harm == "truncated" else raw[:-1] + bytes([raw[-1] ^ 1]))
        said: list[str] = []
        again = opened(tmp_path / "cache", said)
        assert len(said) == 1
        assert f"damaged part of cached signals {tmp_path / 'cache' / 'part-00001'}" in said[0]
        assert filled(again, batches) == cache.parts[1].examples
        assert torch.equal(dense(opened(tmp_path / "cache").source(batches.at(2)), V), before)

    def test_a_part_without_a_manifest_does_not_exist(self, text: Corpus, tmp_path: Path) -> None:
        cache, batches = made(tmp_path / "cache"), TrainingBatches(text, 8, seed=0)
        filled(cache, batches, steps=2)
        (tmp_path / "cache" / "part-00000.json").unlink()
        assert filled(opened(tmp_path / "cache"), batches, steps=2) == 16

    def test_a_full_disk_is_one_clear_error_and_finished_parts_stay(self, text: Corpus, tmp_path: Path) -> None:
        batches = TrainingBatches(text, 8, seed=0)
        with small_disk(tmp_path / "small", "300k") as place:
            cache = made(place / "cache", signal="full")
            with pytest.raises(StoreError, match="No space left on device"), disk_errors(Home(place)):
                filled(cache, batches, part_bytes=1)
            again = opened(place / "cache", signal="full")
            assert len(again.parts) == len(list((place / "cache").glob("part-*.bin"))) >= 1
            assert torch.allclose(dense(again.source(batches.at(0)), V), torch.softmax(pattern(batches.at(0)), -1), atol=1e-3)


class TestRefused:
    @pytest.mark.parametrize(("key", "value"), [("teacher", "d" * 64), ("tokenizer", "e" * 64), ("sequence_length", 48), ("size", 50)])
    def test_a_cache_of_another_kind(self, tmp_path: Path, key: str, value: Any) -> None:
        made(tmp_path / "cache")
        with pytest.raises(UserError) as error:
            SignalCache.open(tmp_path / "cache", "d" * 64, IDENTITY | {key: value}, pytest.fail)
        assert FINGERPRINT in str(error.value)
        assert "d" * 64 in str(error.value)
        assert f"{key} {IDENTITY[key]} instead of {value}" in str(error.value)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_a_teacher_that_answers_nan(self, text: Corpus, tmp_path: Path, value: float) -> None:
        def broken(batch: Batch) -> Tensor:
            z = pattern(batch)
            z[5, 3] = value
            return z

        cache = made(tmp_path / "cache")
        with pytest.raises(UserError, match="logits that are NaN or infinite in 1 of 192 rows"):
            filled(cache, TrainingBatches(text, 8, seed=0), logits=broken)
        assert cache.parts == []

    @pytest.mark.parametrize("kind", ["sampled", "top-k", "full"])
    def test_another_teacher_is_far_and_rounding_is_near(self, text: Corpus, tmp_path: Path, kind: str) -> None:
        cache, batches = made(tmp_path / "cache", signal=kind), TrainingBatches(text, 8, seed=0)
        filled(cache, batches)
        few = select_examples(batches.at(0), range(4))
        rounded = cache.distance(few, lambda batch: pattern(batch).bfloat16().float())
        assert rounded < TOLERANCE
        assert cache.distance(few, lambda batch: 1.3 * pattern(batch).flip(1)) > 2 * TOLERANCE
