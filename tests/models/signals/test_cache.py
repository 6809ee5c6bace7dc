"""Cached signals are keyed by content, whole or absent, and refused if foreign."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conf.errors import LadderError, RunCancelled
from models.base.files import allow_open_files
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.losses.loss import SparseSignal, TeacherSignal
from models.signals.cache import KEY, SignalCache, keys_of
from models.signals.codec import dense
from models.signals.fill import needed_keys
from models.signals.sources import rows
from tests.models.signals.caches import V, expected, filled, made, opened, pattern

pytestmark = pytest.mark.thorough


class TestRows:
    @pytest.mark.parametrize("kind", ["sampled", "top-k", "full"])
    def test_every_row_is_its_own_in_any_order_epoch_and_part(self, text: Corpus, tmp_path: Path, kind: str) -> None:
        cache = made(tmp_path / "cache", signal=kind)
        batches = TrainingBatches(text, 8, seed=0)
        assert filled(cache, batches) == batches.examples
        other = TrainingBatches(text, 6, seed=5)
        for batch in (batches.at(0), batches.at(500), other.at(3), other.at(90).part(1, 3), other.at(2).part(1, 2)):
            assert torch.equal(dense(cache.source(batch), V), expected(batch, cache.coding, pattern(batch)))

    def test_padding_does_not_matter(self, sentences: Corpus, tmp_path: Path) -> None:
        def teacher(batch: Batch) -> Tensor:
            lengths = batch.inputs["attention_mask"].sum(1).float()
            return torch.stack([lengths, batch.inputs["input_ids"][:, 0].float() / 100], 1)

        cache = made(tmp_path / "cache", signal="full", vocabulary=2)
        filled(cache, TrainingBatches(sentences, 10, seed=0), logits=teacher)
        batches = TrainingBatches(sentences, 3, seed=7)  # padded to other lengths
        for step in range(20):
            signal = cache.source(batches.at(step))
            assert isinstance(signal, TeacherSignal)
            assert torch.allclose(signal.logits, torch.log_softmax(teacher(batches.at(step)), -1), rtol=1e-3, atol=1e-3)

    def test_full_signals_of_a_model_are_its_own(self, images: Corpus, model_for: Callable[..., Any], tmp_path: Path) -> None:
        teacher = model_for(images).eval()

        def logits(batch: Batch) -> Tensor:
            with torch.no_grad():
                return rows(teacher, batch, None)

        cache, batches = made(tmp_path / "cache", signal="full", vocabulary=3), TrainingBatches(images, 16, seed=0)
        filled(cache, batches, logits=logits)
        batch = TrainingBatches(images, 5, seed=3).at(4)
        assert torch.allclose(dense(cache.source(batch), 3), torch.softmax(logits(batch), -1), atol=1e-3)
        assert cache.distance(batch, logits) < 1e-3

    def test_an_example_that_is_not_there_is_named(self, text: Corpus, tmp_path: Path) -> None:
        cache = made(tmp_path / "cache")
        filled(cache, TrainingBatches(text, 8, seed=0), steps=1)
        with pytest.raises(LadderError, match=r"has no signal of 8 of 8 examples"):
            cache.source(TrainingBatches(text, 8, seed=0).at(1))


class TestMore:
    def test_a_later_training_adds_what_is_missing_and_no_more(self, text: Corpus, tmp_path: Path) -> None:
        cache = made(tmp_path / "cache")
        batches, other = TrainingBatches(text, 8, seed=0), TrainingBatches(text, 8, seed=1)
        assert filled(cache, batches, steps=3) == 24
        assert filled(cache, batches, steps=5) == 16
        again = opened(tmp_path / "cache")
        assert filled(again, batches, steps=5) == 0
        lacking = int(again.missing(needed_keys(other, 1000)[1]).sum())
        assert filled(again, other) == lacking > 0
        assert filled(again, batches) == 0
        assert opened(tmp_path / "cache").made_for("mine")[0] == 24 + 16 + lacking

    def test_a_stop_keeps_what_is_done(self, text: Corpus, tmp_path: Path) -> None:
        cache, batches = made(tmp_path / "cache"), TrainingBatches(text, 8, seed=0)
        answers = iter([False, False, True])
        with pytest.raises(RunCancelled, match="24 examples done"):
            filled(cache, batches, should_stop=lambda: next(answers))
        assert int((~opened(tmp_path / "cache").missing(needed_keys(batches, 1000)[1])).sum()) == 24

    def test_what_is_open_stays_readable_when_the_folder_is_removed(self, text: Corpus, tmp_path: Path) -> None:
        cache, batches = made(tmp_path / "cache"), TrainingBatches(text, 8, seed=0)
        filled(cache, batches)
        again = opened(tmp_path / "cache")
        before = dense(again.source(batches.at(0)), V)
        shutil.rmtree(tmp_path / "cache")
        assert torch.equal(dense(again.source(batches.at(0)), V), before)


def test_processes_fill_a_cache_together_with_the_bits_of_one(text: Corpus, tmp_path: Path) -> None:
    batches = TrainingBatches(text, 4, seed=0)
    one = made(tmp_path / "one")
    every = filled(one, batches)
    made(tmp_path / "three")
    writers = [opened(tmp_path / "three") for _ in range(3)]  # all of them before any has added to it
    asked = [filled(cache, batches, share=(number, 3), part_bytes=2000) for number, cache in enumerate(writers)]
    assert sum(asked) == every
    assert all(some > every / 6 for some in asked)
    three = opened(tmp_path / "three")
    keys = needed_keys(batches, 1000)[1]
    assert not three.missing(keys).any()
    assert all(np.array_equal(*pair) for pair in zip(three.records(keys), one.records(keys), strict=True))
    assert three.made_for("mine")[0] == every
    names = [part.name for part in three.parts]
    assert len(set(names)) == len(names) > 3
    again = [opened(tmp_path / "three") for _ in range(2)]
    assert [filled(cache, batches, share=(number, 2)) for number, cache in enumerate(again)] == [0, 0]


def test_the_index_that_grew_with_its_parts_is_that_of_the_cache_opened_anew(text: Corpus, tmp_path: Path) -> None:
    cache, batches = made(tmp_path / "cache"), TrainingBatches(text, 4, 0)
    filled(cache, batches, part_bytes=1)
    assert len(cache.parts) > 2
    again = opened(tmp_path / "cache")
    for grown, read in zip(cache._index, again._index, strict=True):
        assert np.array_equal(grown, read)
    keys = keys_of(batches.at(1))
    assert [record.tobytes() for record in cache.records(keys)] == [record.tobytes() for record in again.records(keys)]


def test_a_cache_has_more_parts_than_a_process_has_files_open_as_a_rule(tmp_path: Path) -> None:
    cache = made(tmp_path / "cache")
    cache.append(np.frombuffer(bytes(range(16)), dtype=KEY), [bytes(4)], 1, 0.0, "mine")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))
    try:
        assert len(SignalCache(cache.folder, cache.coding, cache.parts * 400).parts) == 400
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with pytest.raises(LadderError, match=r"1,000,000,000 files have to be open at once, and this system allows [\d,]+ \(`ulimit -Hn`\)"):
        allow_open_files(10**9)


def test_the_signal_is_on_the_batchs_device_and_in_its_order(text: Corpus, tmp_path: Path) -> None:
    cache, batches = made(tmp_path / "cache"), TrainingBatches(text, 8, seed=0)
    filled(cache, batches)
    signal = cache.source(batches.at(1))
    assert isinstance(signal, SparseSignal)
    assert signal.ids.shape[0] == batches.at(1).targets.numel()
    assert signal.ids.device == batches.at(1).targets.device


def test_records_that_were_read_do_not_count_as_memory_of_the_process(text: Corpus, tmp_path: Path) -> None:
    """Otherwise a training's resident memory grows to the size of the cache."""
    batches = TrainingBatches(text, 8, 0)
    filled(made(tmp_path / "cache"), batches, 3)
    cache = opened(tmp_path / "cache")
    records = cache.records(keys_of(batches.at(0)))
    assert sum(int(record.sum()) for record in records) > 0
    assert resident(tmp_path / "cache") > 0
    first = cache.source(batches.at(0))
    assert resident(tmp_path / "cache") == 0
    assert all(torch.equal(a, b) for a, b in zip(first, cache.source(batches.at(0)), strict=True))


def resident(folder: Path) -> int:
    """KiB of a folder's mapped files that count as memory of this process."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = f"{folder}/part-" in line
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


@pytest.mark.parametrize("kind", ["sampled", "top-k", "full"])
def test_answers_to_the_same_examples_are_copied_from_another_cache(tmp_path: Path, text: Corpus, kind: str) -> None:
    batches = TrainingBatches(text, 10, 0)
    first, second = made(tmp_path / "first", signal=kind), made(tmp_path / "second", signal=kind)
    filled(first, batches, 6)
    _, keys = needed_keys(batches, 15)
    assert second.copy(first, keys) == 60
    assert (second.rows, second.bytes, second.made_for("")[0]) == (first.rows, first.bytes, 60)
    assert second.seconds_an_example == pytest.approx(first.seconds_an_example)
    assert second.copy(first, keys) == 0
    again = opened(tmp_path / "second", signal=kind)
    mine = keys[~again.missing(keys)]
    assert [record.tobytes() for record in again.records(mine)] == [record.tobytes() for record in first.records(mine)]
    assert filled(again, batches, 15) == len(keys) - 60
