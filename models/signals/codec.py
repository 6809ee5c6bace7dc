"""Encode teacher signals as few bytes: sampled, top-k and full records.

Shape legend: N rows (positions), V vocabulary or classes, K ids kept of a row, M ids kept of all rows together.

Three kinds. `sampled`: the counts of some draws from p, whose mean is p itself, so that the gradient is unbiased (random-sampling
knowledge distillation, Anshumann et al. 2025, arXiv:2503.16870). `top-k`: the k most probable ids, and one bucket for all others.
`full`: every log-probability in half precision, for small vocabularies.

Raw ids take most of the bytes of a plain cache. Here ids are first renumbered by falling mass (`mass_order`), so that ids which a
teacher often predicts lie close together; a row's numbers are sorted, and the gaps between them written in exponential-Golomb code (Teuhola
1978, Information Processing Letters 7). Probabilities are quantised on the scale of their square root: an error `d` of `sqrt(p)`
costs about `2 d^2` nats of KL divergence whatever p is, so equal steps there spend the bits where they count.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.losses.loss import SparseSignal, TeacherSignal

FORMAT = 1  # raise whenever the bytes of a record change their meaning
LEVELS = 80  # steps of sqrt(p) between 0 and 1 (top-k)
MOST_ORDER = 16  # highest order of the code that is tried
BLOCK = 256  # rows whose probabilities are held at once
BUCKET = 32  # ids whose probabilities are summed first when draws are made: near sqrt(V / draws), where that costs least
HEADER = struct.Struct("<II")  # rows, ids
STREAM = struct.Struct("<BII")  # order of the code, bytes of prefixes, bytes of suffixes

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Coding:
    """Settings for encoding records; the same to decode them.

    Attributes:
        kind: `top-k`, `sampled` or `full`.
        vocabulary: V.
        size: Ids of a row (top-k), or draws (sampled); without meaning for full.
        seed: Of the draws.
        order: (V,) ids by falling mass; none: by number.
    """

    kind: str
    vocabulary: int
    size: int = 50
    seed: int = 0
    order: Ints | None = None

    @cached_property
    def ids(self) -> Ints:
        """(V,) the id of each number."""
        return np.arange(self.vocabulary) if self.order is None else self.order.astype(np.int64)

    @cached_property
    def ranks(self) -> Tensor:
        """(V,) the number of each id."""
        return torch.from_numpy(np.argsort(self.ids))


class KeptIds(NamedTuple):
    """The kept ids of the rows of a record, row after row."""

    counts: Ints  # (N,) ids of each row
    ranks: Ints  # (M,) numbers of the ids, ascending in each row
    values: Ints  # sampled: (M,) draws of each id, less one; top-k: (M + N,) levels of sqrt(p), each row's residual after its ids


def mass_order(logits: Tensor) -> Ints:
    """Ids by falling mean probability.

    Args:
        logits: (N, V) of a sample of rows.

    Returns:
        (V,) ids.
    """
    mass = torch.stack([block.float().softmax(dim=-1).sum(dim=0) for block in logits.split(BLOCK)]).sum(dim=0)
    return torch.argsort(mass, descending=True, stable=True).cpu().numpy().astype(np.int64)


def encode(logits: Tensor, coding: Coding, key: bytes) -> bytes:
    """Write the record of some rows.

    Args:
        logits: (N, V) of the teacher, finite or -inf, on any device.
        coding: How to write.
        key: Names the rows: together with the seed it decides the draws, so that a record is the same whenever it is made.

    Returns:
        The record.
    """
    assert logits.shape[1] == coding.vocabulary
    if coding.kind == "full":
        return torch.log_softmax(logits.float(), dim=-1).half().cpu().numpy().tobytes()
    kept = _drawn(logits, coding, key) if coding.kind == "sampled" else _most_probable(logits, coding)
    first = np.cumsum(kept.counts) - kept.counts
    before = np.empty_like(kept.ranks)
    before[1:] = kept.ranks[:-1]
    before[first] = -1
    counts = kept.counts - 1 if coding.kind == "sampled" else np.empty(0, dtype=np.int64)
    streams = [_packed(numbers) for numbers in (counts, kept.ranks - before - 1, kept.values)]
    return b"".join([HEADER.pack(len(kept.counts), len(kept.ranks)), *streams])


def decode(records: Sequence[Bytes], coding: Coding) -> TeacherSignal | SparseSignal:
    """Read records.

    Args:
        records: Their bytes, such as slices of a file that is mapped into memory.
        coding: How they were written.

    Returns:
        The signal of all their rows, in that order, on the processor; dense for `full`.
    """
    if coding.kind == "full":
        raw = np.concatenate(records).view(np.float16).reshape(-1, coding.vocabulary)
        return TeacherSignal(torch.from_numpy(raw.astype(np.float32)))
    kept = _kept(records, coding)
    first = np.cumsum(kept.counts) - kept.counts
    rows, columns = np.repeat(np.arange(len(first)), kept.counts), np.arange(len(kept.ranks)) - np.repeat(first, kept.counts)
    ids = np.repeat(coding.ids[kept.ranks[first]][:, None], kept.counts.max(), axis=1)
    ids[rows, columns] = coding.ids[kept.ranks]
    log_probs = np.full(ids.shape, -np.inf, dtype=np.float32)
    if coding.kind == "sampled":
        log_probs[rows, columns] = np.log((kept.values + 1) / coding.size)
        residual = np.full(len(first), -np.inf, dtype=np.float32)
    else:
        mass = ((kept.values.reshape(len(first), -1) + 0.5) / LEVELS) ** 2
        if coding.size == coding.vocabulary:
            mass[:, -1] = 0.0
        with np.errstate(divide="ignore"):  # nothing is left where every id is kept
            logs = np.log(mass / mass.sum(axis=1, keepdims=True)).astype(np.float32)
        log_probs, residual = np.ascontiguousarray(logs[:, :-1]), np.ascontiguousarray(logs[:, -1])
    return SparseSignal(torch.from_numpy(ids), torch.from_numpy(log_probs), torch.from_numpy(residual))


def rows_in(record: Bytes, coding: Coding) -> int:
    """Rows of a record."""
    if coding.kind == "full":
        return len(record) // (2 * coding.vocabulary)
    return int(HEADER.unpack_from(record.data)[0])


def dense(signal: TeacherSignal | SparseSignal, vocabulary: int) -> Tensor:
    """The probabilities of a signal: its listed ids, and its residual spread evenly over all others.

    Returns:
        (N, V) probabilities.
    """
    if isinstance(signal, TeacherSignal):
        return torch.softmax(signal.logits.float(), dim=-1)
    listed = torch.zeros(len(signal.ids), vocabulary).scatter_add_(1, signal.ids.cpu(), torch.exp(signal.log_probs.cpu()))
    others = listed == 0
    share = torch.exp(signal.log_residual.cpu()) / others.sum(dim=1).clamp(min=1)
    return torch.where(others, share[:, None], listed)


def _drawn(logits: Tensor, coding: Coding, key: bytes) -> KeptIds:
    """`coding.size` independent draws of each row, with replacement, by inversion: the same draws on every device."""
    digest = hashlib.blake2b(key + coding.seed.to_bytes(8, "little"), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    points = torch.rand(len(logits), coding.size, dtype=torch.float64, generator=generator)
    drawn = [_inverted(torch.softmax(z.float(), dim=-1), u) for z, u in zip(logits.split(BLOCK), points.split(BLOCK), strict=True)]
    ranks = coding.ranks[torch.cat(drawn).cpu()].sort(dim=1).values.numpy()
    new = np.ones(ranks.shape, dtype=bool)
    new[:, 1:] = ranks[:, 1:] != ranks[:, :-1]
    places = np.flatnonzero(new)
    return KeptIds(new.sum(axis=1), ranks[new], np.diff(places, append=new.size) - 1)


def _inverted(p: Tensor, points: Tensor) -> Tensor:
    """Ids at which the cumulated probabilities pass `points`, (N, draws) in [0, 1): first the bucket of ids, then the id in it.

    Cumulated in double precision, for a tail is lost in single precision; in two levels, for that takes half the time.
    """
    missing, points = -p.shape[1] % BUCKET, points.to(p.device)
    p = (functional.pad(p, (0, missing)) if missing else p).unflatten(1, (-1, BUCKET))
    reached = p.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    points = points * reached[:, -1:]
    bucket = torch.searchsorted(reached, points, right=True).clamp_(max=reached.shape[1] - 1)
    rest = points - torch.where(bucket > 0, reached.gather(1, (bucket - 1).clamp(min=0)), 0.0)
    within = p.gather(1, bucket[..., None].expand(-1, -1, BUCKET)).cumsum(dim=-1, dtype=torch.float64)
    # Rounding may put a point at the end of its bucket, where the last id that has any mass is meant.
    rest = torch.minimum(rest[..., None], within[..., -1:] * (1 - 1e-15))
    return bucket * BUCKET + torch.searchsorted(within, rest, right=True).squeeze(-1)


def _most_probable(logits: Tensor, coding: Coding) -> KeptIds:
    rows, k = len(logits), coding.size
    log_p, ids = torch.topk(logits.float(), k, dim=-1, sorted=False)
    mass = torch.exp((log_p - torch.logsumexp(logits.float(), dim=-1, keepdim=True)).double()).cpu()
    ranks, order = coding.ranks[ids.cpu()].sort(dim=1)
    mass = torch.cat([mass.gather(1, order), (1 - mass.sum(dim=1, keepdim=True)).clamp(min=0)], dim=1)
    levels = (mass.sqrt() * LEVELS).long().clamp(max=LEVELS - 1)
    return KeptIds(np.full(rows, k), ranks.flatten().numpy(), levels.flatten().numpy())


def _kept(records: Sequence[Bytes], coding: Coding) -> KeptIds:
    """Read the streams of all records side by side."""
    streams: tuple[list[_Stream], ...] = ([], [], [])
    rows = 0
    for record in records:
        here, ids = HEADER.unpack_from(record.data)
        rows += here
        sizes = (here, ids, ids) if coding.kind == "sampled" else (0, ids, ids + here)
        at = HEADER.size
        for stream, numbers in zip(streams, sizes, strict=True):
            order, prefixes, suffixes = STREAM.unpack_from(record.data, at)
            at += STREAM.size
            middle, end = at + prefixes, at + prefixes + suffixes
            stream.append(_Stream(numbers, order, record[at:middle], record[middle:end]))
            at = end
    counts = _unpacked(streams[0]) + 1 if coding.kind == "sampled" else np.full(rows, coding.size)
    steps = _unpacked(streams[1]) + 1
    reached = np.cumsum(steps)
    first = np.cumsum(counts) - counts
    ranks = reached - np.repeat(reached[first] - steps[first], counts) - 1
    return KeptIds(counts, ranks, _unpacked(streams[2]))


class _Stream(NamedTuple):
    """Numbers of one record in exponential-Golomb code."""

    numbers: int
    order: int
    prefixes: Bytes
    suffixes: Bytes


def _widths(shifted: Ints) -> Ints:
    return np.frexp(shifted.astype(np.float64))[1].astype(np.int64) - 1  # the whole part of the binary logarithm


def _packed(numbers: Ints) -> bytes:
    """Exponential-Golomb code of order o of numbers n >= 0: `n + 2^o` has w + 1 bits; w - o is written in unary, then the last w bits.

    Prefixes and suffixes are written apart, so that both can be read without a loop; o is the order that takes fewest bits.
    """
    if not len(numbers):
        return STREAM.pack(0, 0, 0)
    values, times = np.unique(numbers, return_counts=True)
    costs = [int((times * (2 * _widths(values + (1 << order)) - order + 1)).sum()) for order in range(MOST_ORDER)]
    order = int(np.argmin(costs))
    shifted = numbers + (1 << order)
    widths = _widths(shifted)
    ends = np.cumsum(widths - order + 1)
    prefixes = np.zeros(ends[-1], dtype=np.uint8)
    prefixes[ends - 1] = 1
    places = np.arange(widths.max())
    suffixes = ((shifted[:, None] >> places) & 1).astype(np.uint8)[places < widths[:, None]]
    parts = [np.packbits(bits, bitorder="little").tobytes() for bits in (prefixes, suffixes)]
    return b"".join([STREAM.pack(order, *map(len, parts)), *parts])


def _unpacked(streams: Sequence[_Stream]) -> Ints:
    """The numbers of all streams, one after another."""
    numbers = np.array([stream.numbers for stream in streams])
    orders = np.repeat([stream.order for stream in streams], numbers)
    ends = np.flatnonzero(np.unpackbits(np.concatenate([stream.prefixes for stream in streams]), bitorder="little"))
    first = np.cumsum(numbers) - numbers
    before = np.empty_like(ends)
    before[1:] = ends[:-1]
    before[first] = _begins([stream.prefixes for stream in streams]) - 1
    widths = ends - before - 1 + orders
    at = np.cumsum(widths) - widths
    at += np.repeat(_begins([stream.suffixes for stream in streams]) - at[first], numbers)
    # Eight bytes from any place on, as one number: more than any suffix, which starts within the first of them.
    data = np.concatenate([*(stream.suffixes for stream in streams), np.zeros(8, dtype=np.uint8)])
    words = np.ndarray(len(data) - 7, dtype="<u8", buffer=data.data, strides=(1,))
    suffixes = (words[at >> 3] >> (at & 7).astype(np.uint64)).astype(np.int64) & ((1 << widths) - 1)
    return suffixes + (1 << widths) - (1 << orders)


def _begins(pieces: Sequence[Bytes]) -> Ints:
    """The bit at which each piece begins once all are joined."""
    sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
    return 8 * (np.cumsum(sizes) - sizes)
