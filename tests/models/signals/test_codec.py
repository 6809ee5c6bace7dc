"""Laws of the codec: round trips, unbiased draws, few bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses.loss import SparseSignal, TeacherSignal
from models.signals.codec import LEVELS, Coding, _packed, _Stream, _unpacked, decode, dense, encode, mass_order
from models.signals.codec import STREAM as HEAD

pytestmark = pytest.mark.thorough

V = 300  # no multiple of a bucket, and more than one


def logits(rows: int, vocabulary: int = V, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def language(rows: int, vocabulary: int) -> torch.Tensor:
    """Logits like a language model's: Zipf's law, and in each row some ids that the context makes likely; about two nats of entropy."""
    generator = torch.Generator().manual_seed(0)
    frequency = 1 / (torch.randperm(vocabulary, generator=generator) + 1.0)
    z = frequency.log() + 1.5 * torch.randn(rows, vocabulary, generator=generator)
    likely = torch.multinomial(frequency.expand(rows, -1), 32, replacement=True, generator=generator)
    return z.scatter_add_(1, likely, 3.2 * torch.rand(likely.shape, generator=generator))


def bytes_of(record: bytes) -> np.ndarray:
    return np.frombuffer(record, dtype=np.uint8)


def sparse(records: Sequence[bytes], coding: Coding) -> SparseSignal:
    signal = decode([bytes_of(record) for record in records], coding)
    assert isinstance(signal, SparseSignal)
    return signal


def stream(numbers: list[int]) -> _Stream:
    packed = bytes_of(_packed(np.array(numbers, dtype=np.int64)))
    order, prefixes, suffixes = HEAD.unpack_from(packed)
    middle = HEAD.size + prefixes
    assert len(packed) == middle + suffixes
    return _Stream(len(numbers), order, packed[HEAD.size : middle], packed[middle:])


@given(st.lists(st.lists(st.one_of(st.integers(0, 3), st.integers(0, 2**31)), min_size=1, max_size=40), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_the_code_gives_back_any_numbers_of_any_streams(lists: list[list[int]]) -> None:
    assert _unpacked([stream(numbers) for numbers in lists]).tolist() == [number for numbers in lists for number in numbers]


class TestSampled:
    coding = Coding("sampled", V, 50, seed=3)

    def test_a_row_holds_its_draws(self) -> None:
        z = logits(20)
        signal = sparse([encode(z[:7], self.coding, b"a"), encode(z[7:], self.coding, b"b")], self.coding)
        counts = torch.exp(signal.log_probs) * 50
        assert torch.allclose(counts, counts.round(), atol=1e-4)
        assert torch.allclose(counts.sum(1), torch.full((20,), 50.0), atol=1e-4)
        assert torch.isinf(signal.log_residual).all()
        for ids, log_probs in zip(signal.ids, signal.log_probs, strict=True):
            used = ids[log_probs > -torch.inf]
            assert len(set(used.tolist())) == len(used)
            assert set(ids.tolist()) == set(used.tolist())

    def test_the_mean_over_draws_is_p_and_the_mean_gradient_is_that_of_p(self) -> None:
        from models.losses.loss import forward_kl

        rows, times = 4, 400
        z, student = logits(rows, seed=1), logits(rows, seed=2).requires_grad_()
        p, q = torch.softmax(z, -1), torch.softmax(student, -1).detach()
        drawn = [dense(sparse([encode(z, self.coding, bytes([i % 256, i // 256]))], self.coding), V) for i in range(times)]
        mean = torch.stack(drawn).mean(0)
        spread = (p * (1 - p) / (50 * times)).sqrt()  # of the mean of independent draws
        assert ((mean - p).abs() < 5 * spread + 1 / (50 * times)).all()
        total = sum(torch.autograd.grad(forward_kl(target.log(), student).sum(), student)[0] for target in drawn)
        assert ((torch.as_tensor(total) / times - (q - p)).abs() < 5 * spread + 1 / (50 * times) + 1e-6).all()

    def test_the_variance_is_that_of_independent_draws(self) -> None:
        z = torch.tensor([[0.0, 0.0, 0.0, 0.0]])
        coding = Coding("sampled", 4, 50)
        drawn = torch.stack([dense(sparse([encode(z, coding, bytes([i % 256, i // 256]))], coding), 4)[0] for i in range(1000)])
        assert torch.allclose(drawn.var(0), torch.full((4,), 0.25 * 0.75 / 50), rtol=0.25)

    def test_an_id_that_cannot_occur_is_never_drawn(self) -> None:
        z = logits(8)
        z[:, 10:] = -torch.inf
        z[:, 0] = -torch.inf
        signal = sparse([encode(z, self.coding, b"a")], self.coding)
        assert int(signal.ids.min()) >= 1
        assert int(signal.ids.max()) <= 9

    def test_draws_belong_to_key_and_seed_and_nothing_else(self) -> None:
        z = logits(300)  # more than one block
        record = encode(z, self.coding, b"a")
        assert record == encode(z, self.coding, b"a")
        assert record != encode(z, self.coding, b"b")
        assert record != encode(z, replace(self.coding, seed=4), b"a")


class TestTopK:
    def test_the_most_probable_ids_and_what_is_left(self) -> None:
        z, coding = logits(40), Coding("top-k", V, 20)
        signal = sparse([encode(z, coding, b"")], coding)
        best = torch.topk(torch.softmax(z, -1), 20)
        assert [set(row) for row in signal.ids.tolist()] == [set(row) for row in best.indices.tolist()]
        assert torch.allclose(signal.log_probs.exp().sum(1) + signal.log_residual.exp(), torch.ones(40))
        assert torch.allclose(signal.log_residual.exp(), 1 - best.values.sum(1), atol=0.03)

    def test_an_error_of_the_root_of_p_costs_what_the_formula_says(self) -> None:
        z, coding = logits(200), Coding("top-k", V, 20)
        signal = sparse([encode(z, coding, b"")], coding)
        p = torch.softmax(z, -1).gather(1, signal.ids)
        left = 1 - p.sum(1)
        kl = (p * (p.log() - signal.log_probs)).sum(1) + left * (left.log() - signal.log_residual)
        assert (kl > -1e-5).all()
        assert kl.mean() < 21 / (6 * LEVELS**2)  # 2 d^2 for each of 21 numbers, d uniform within a step

    def test_with_all_ids_it_is_dense(self) -> None:
        z, coding = logits(30, 12), Coding("top-k", 12, 12)
        signal = sparse([encode(z, coding, b"")], coding)
        assert torch.isinf(signal.log_residual).all()
        assert torch.allclose(dense(signal, 12), torch.softmax(z, -1), atol=0.02)


class TestFull:
    def test_it_is_dense_to_half_precision_and_keeps_what_cannot_occur(self) -> None:
        z, coding = logits(30, 10), Coding("full", 10)
        z[:, 3] = -torch.inf
        records = [encode(z[:10], coding, b""), encode(z[10:], coding, b"")]
        signal = decode([bytes_of(record) for record in records], coding)
        assert isinstance(signal, TeacherSignal)
        assert sum(map(len, records)) == 30 * 10 * 2
        kept = [i for i in range(10) if i != 3]
        assert torch.allclose(signal.logits[:, kept], torch.log_softmax(z, -1)[:, kept], rtol=1e-3, atol=1e-3)
        assert torch.isinf(signal.logits[:, 3]).all()


@pytest.mark.parametrize("kind", ["sampled", "top-k"])
def test_records_decoded_together_equal_records_decoded_alone(kind: str) -> None:
    z = logits(60)
    coding = Coding(kind, V, 20, order=mass_order(z))
    records = [encode(part, coding, bytes([i])) for i, part in enumerate(z.split([1, 30, 4, 25]))]
    together = dense(sparse(records, coding), V)
    assert torch.equal(together, torch.cat([dense(sparse([record], coding), V) for record in records]))


@pytest.mark.parametrize("kind", ["sampled", "top-k"])
def test_the_order_changes_bytes_and_not_the_signal(kind: str) -> None:
    z = language(64, 5000)
    plain, ordered = Coding(kind, 5000, 50), Coding(kind, 5000, 50, order=mass_order(z))
    records = [encode(z, coding, b"a") for coding in (plain, ordered)]
    assert torch.allclose(dense(sparse(records[:1], plain), 5000), dense(sparse(records[1:], ordered), 5000))
    assert len(records[1]) < len(records[0])


def test_ids_by_falling_mass() -> None:
    assert mass_order(torch.tensor([[0.0, 5.0, 1.0], [0.0, 5.0, 1.0]])).tolist() == [1, 2, 0]


@pytest.mark.parametrize(("kind", "most"), [("sampled", 40.0), ("top-k", 80.0)])
def test_bytes_of_a_token_of_a_large_vocabulary(kind: str, most: float) -> None:
    z = language(256, 49_152)
    coding = Coding(kind, 49_152, 50, order=mass_order(z[:128]))
    assert len(encode(z[128:], coding, b"")) / 128 < most
