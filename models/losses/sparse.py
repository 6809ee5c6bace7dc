"""Losses against sparse signals: listed ids and a residual bucket.

Shape legend: N rows, K listed places of a row, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class SparseSignal(NamedTuple):
    """A teacher's distribution at temperature 1: some ids of each row, and the mass of all others in one bucket."""

    ids: Tensor  # (N, K) int64; unused places repeat an id of the row and have log-probability -inf
    log_probs: Tensor  # (N, K), -inf in unused places
    log_residual: Tensor  # (N,) log of the mass that no listed id has; -inf where there is none


def tempered(signal: SparseSignal, temperature: float, vocabulary: int) -> SparseSignal:
    """The signal at another temperature, summing to 1 again.

    Listed log-probabilities are divided by T. The spread of the residual is unknown; it is taken as even over the other `V - K`
    ids, `log_residual_T = log(V - K) + (log_residual - log(V - K)) / T`: the largest mass that the bucket can have for T > 1 and the
    smallest for T < 1.

    Args:
        signal: At temperature 1.
        temperature: T > 0.
        vocabulary: V.
    """
    ids, log_probs, log_residual = signal
    if temperature == 1:
        return signal
    others = (vocabulary - (log_probs > -torch.inf).sum(-1)).clamp(min=1).to(log_probs.dtype).log()
    listed, residual = log_probs / temperature, others + (log_residual - others) / temperature
    total = torch.cat([listed, residual[:, None]], -1).logsumexp(-1)
    return SparseSignal(ids, listed - total[:, None], residual - total)


def sparse_forward_kl(signal: SparseSignal, student_logits: Tensor) -> Tensor:
    """`sum_k p_k log(p_k / q_k) + r log(r / r_q)`, in nats; `r` and `r_q` are the probabilities of all other ids together.

    With every id listed it is forward KL; with fewer it is a lower bound of it (data processing inequality), zero only where the
    student agrees on each listed id *and* on the mass of the rest. Without the bucket, top-1 would cost nothing whatever the
    student predicts, and it would grow over-confident. For signals sampled at random (counts / N, no residual; arXiv:2503.16870) it is the
    unbiased cross-entropy less the sample's own entropy, and its gradient has the expectation `q - p`.

    Args:
        signal: At the loss's temperature, see `tempered`.
        student_logits: (N, V), divided by that temperature.

    Returns:
        (N,) values >= 0.
    """
    ids, log_p, log_r = signal
    log_q = functional.log_softmax(student_logits, dim=-1)
    elsewhere = (log_q > -torch.inf).scatter_(-1, ids, False)  # ids that are neither listed nor ruled out by the student
    per_id = torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q.gather(-1, ids)), 0.0)
    # A row that lists every id has no bucket, whatever rounding left in the residual.
    bucket = (log_r > -torch.inf) & elsewhere.any(-1)
    log_r_q = log_q.masked_fill(~elsewhere & bucket[:, None], -torch.inf).logsumexp(-1)
    rest = torch.where(bucket, log_r.exp() * (torch.where(bucket, log_r, 0.0) - log_r_q), 0.0)
    return per_id.sum(-1) + rest


def lumped(signal: SparseSignal, student_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Teacher and student over the listed ids of a row and one more outcome, all other ids together.

    An f-divergence of the two (KL either way, Jensen-Shannon, skewed ones, total variation) is a lower bound of the same divergence over
    all ids (data processing inequality), and equal to it where every id is listed.

    Args:
        signal: At the loss's temperature, see `tempered`.
        student_logits: (N, V), divided by that temperature.

    Returns:
        Log-probabilities (N, K + 1) of both; -inf in unused places, and in the last one of a row that lists every id.
    """
    ids, log_p, log_r = signal
    log_q = functional.log_softmax(student_logits, dim=-1)
    elsewhere = (log_q > -torch.inf).scatter_(-1, ids, False)
    bucket = elsewhere.any(-1)
    # Finite where there is no bucket, so that no gradient is NaN.
    log_r_q = log_q.masked_fill(~elsewhere & bucket[:, None], -torch.inf).logsumexp(-1)
    listed = log_q.gather(-1, ids).masked_fill(log_p == -torch.inf, -torch.inf)
    rests = (torch.where(bucket, rest, -torch.inf)[:, None] for rest in (log_r, log_r_q))
    teacher, student = (torch.cat(parts, -1) for parts in zip((log_p, listed), rests, strict=True))
    return teacher, student


def sparse_gradient_(logits: Tensor, signal: SparseSignal, weight: float) -> tuple[Tensor, Tensor]:
    """Put `q - weight * target` in the place of the logits; the gradient of forward KL at weight 1.

    The bucket's target is spread as the student spreads its own mass there, `r q_j / r_q`. One exponential for each logit, no second
    pass for the teacher, and the student's bucket summed and not taken as a difference from 1.

    Args:
        logits: (N, V), overwritten.
        signal: At the loss's temperature.
        weight: The teacher's share.

    Returns:
        The divergence and the student's log-partition, both (N,).
    """
    ids, log_p, log_r = signal
    used, tiny = log_p > -torch.inf, torch.finfo(logits.dtype).tiny
    listed_logits = logits.gather(-1, ids)
    top = logits.amax(-1, keepdim=True)
    logits.sub_(top).exp_()
    listed = logits.gather(-1, ids).masked_fill_(~used, 0.0)
    logits.scatter_(-1, ids, 0.0)
    others = logits.sum(-1)
    total = others + listed.sum(-1)
    lse = total.log() + top[:, 0]
    p = log_p.exp()
    residual = torch.where(others > 0, log_r.exp(), 0.0)
    others = others.clamp(min=tiny)
    per_id = torch.where(used, p * (log_p - listed_logits + lse[:, None]), 0.0).sum(-1)
    rest = torch.where(residual > 0, residual * (log_r - others.log() + total.log()), 0.0)
    logits.mul_((1 / total - weight * residual / others)[:, None])
    logits.scatter_add_(-1, ids, listed / total[:, None] - weight * p)
    return per_id + rest, lse
