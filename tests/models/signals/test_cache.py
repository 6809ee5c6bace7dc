"""Cached signals are keyed by content, whole or absent, and refused if foreign."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conf.errors import LadderError, RunCancelled, StoreError, UserError
from conf.home import Home, disk_errors
from models.base.files import allow_open_files
from models.data.batches import Batch, TrainingBatches
from models.data.corpus import Corpus
from models.losses.loss import SparseSignal, TeacherSignal
from models.signals.cache import KEY, TOLERANCE, SignalCache, keys_of
from models.signals.codec import Coding, decode, dense, encode
from models.signals.fill import fill_cache, needed_keys, select_examples
from models.signals.sources import rows
from tests.machine import child, kill, read_line, small_disk

pytestmark = pytest.mark.thorough

V = 258
IDENTITY = {"teacher": "a" * 64, "tokenizer": "b" * 64, "sequence_length": 24, "signal": "sampled", "vocabulary": V, "size": 20, "seed": 1}
FINGERPRINT = "c" * 64


@pytest.fixture
def text(lm_corpus: Callable[..., Corpus]) -> Corpus:
    """Windows that all differ, 150 of them."""
    generator = np.random.default_rng(0)
    documents = [generator.integers(0, 256, 119).tolist() for _ in range(30)]
    return lm_corpus(documents, documents[:2], length=24)


def pattern(batch: Batch) -> Tensor:
    """A teacher whose answer is a function of the id at each place."""
    ids = batch.inputs["input_ids"].flatten()
    return ((ids[:, None] * 31 + torch.arange(V) * 7) % 23).float() / 3


def made(folder: Path, **changes: Any) -> SignalCache:
    """An empty cache in a folder, as the store publishes it."""
    identity = IDENTITY | changes
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"fingerprint": FINGERPRINT, "identity": identity, "files": {}}))
    return SignalCache.open(folder, FINGERPRINT, identity, pytest.fail)


def opened(folder: Path, said: list[str] | None = None, **changes: Any) -> SignalCache:
    return SignalCache.open(folder, FINGERPRINT, IDENTITY | changes, pytest.fail if said is None else said.append)


def filled(cache: SignalCache, batches: TrainingBatches, steps: int = 1000, logits: Callable[[Batch], Tensor] = pattern, **how: Any) -> int:
    """Dump what is missing; how many examples the teacher was asked for."""
    asked = []

    def counted(batch: Batch) -> Tensor:
        asked.append(len(batch.targets))
        return logits(batch)

    fill_cache(cache, batches, needed_keys(batches, steps)[0], counted, "mine", **how)
    return sum(asked)


def expected(batch: Batch, coding: Coding, logits: Tensor) -> Tensor:
    """The probabilities that each example's own record gives."""
    keys = keys_of(batch)
    each = zip(logits.split(len(logits) // len(keys)), keys, strict=True)
    records = [np.frombuffer(encode(z, coding, bytes(key).ljust(16, b"\0")), dtype=np.uint8) for z, key in each]
    return torch.cat([dense(decode([record], coding), coding.vocabulary) for record in records])


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


DUMP = """
import sys, time
from pathlib import Path
import torch
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.signals.cache import SignalCache
from models.signals.fill import fill_cache, needed_keys
import json
folder, corpus = Path(sys.argv[1]), Corpus(Path(sys.argv[2]), "hash")
manifest = json.loads((folder / "manifest.json").read_text())
cache = SignalCache.open(folder, manifest["fingerprint"], manifest["identity"], print)
batches = TrainingBatches(corpus, 8, 0)
def pattern(batch):
    ids = batch.inputs["input_ids"].flatten()
    return ((ids[:, None] * 31 + torch.arange(258) * 7) % 23).float() / 3
def say(done):
    print(done, flush=True)
    time.sleep(0.2)
fill_cache(cache, batches, needed_keys(batches, 1000)[0], pattern, "mine", on_example=say, part_bytes=int(sys.argv[3]))
"""


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
