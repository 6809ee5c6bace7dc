"""Divergences between teacher and student, and the labels' cross-entropy.

Shape legend: `...` any leading shape, V vocabulary or classes.

A divergence is a sum over V for each position, in nats. Logits that enter one are divided by the temperature already. A logit of
-inf rules an id out: its probability is 0, the term takes its limit (torch's kl_div would give NaN), and no gradient flows to it. An
id that both models rule out changes nothing. Where only one does, a divergence may be infinite; `models.losses.support` refuses that.

`DIVERGENCES`, at the end, has the formula of each kind; a kind in none of the lists beside it is divided by the temperature, times
`T^2`, finite, and differentiated by autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from conf.schema.stage.objective import Objective
from models.data.batches import IGNORE

Divergence = Callable[[Tensor, Tensor, Tensor, Objective], Tensor]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the labels, in nats.

    Args:
        logits: (..., V), any real numbers.
        targets: (...) ids in [0, V), or `IGNORE`, where the result is 0.

    Returns:
        (...) values >= 0.
    """
    flat = functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return flat.view(targets.shape)


def kl_of(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`KL(p || q)` of log-probabilities (..., V)."""
    gap = (log_p - log_q).masked_fill(log_p == -torch.inf, 0.0)
    return (log_p.exp() * gap).sum(dim=-1)


def log_mix(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """`log(share a + (1 - share) b)` of log-probabilities; `share` strictly between 0 and 1. Any number where both are -inf."""
    neither = (log_a == -torch.inf) & (log_b == -torch.inf)  # logaddexp's gradient is NaN there
    return torch.logaddexp(log_a + math.log(share), log_b.masked_fill(neither, 0.0) + math.log1p(-share))


def forward_kl(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """`KL(p || q) = sum_v p_v log(p_v / q_v)` of `p = softmax(teacher)` and `q = softmax(student)`, in nats.

    Covers every mode of the teacher; its gradient by the student's logits is `q - p`. Hinton et al. 2015, arXiv:1503.02531.

    Args:
        teacher_logits: (..., V), already divided by the temperature; -inf marks an id that cannot occur.
        student_logits: (..., V), likewise.

    Returns:
        (...) values >= 0; 0 where both agree up to a constant; infinite where the student rules out an id that the teacher does not.
    """
    return kl_of(functional.log_softmax(teacher_logits, dim=-1), functional.log_softmax(student_logits, dim=-1))


def reverse_kl(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """`KL(q || p) = sum_v q_v log(q_v / p_v)`, in nats: the student keeps to modes that the teacher has.

    Infinite where the student gives mass to ids that the teacher rules out. MiniLLM, Gu et al. 2024, arXiv:2306.08543.

    Args:
        teacher_logits: (..., V), divided by the temperature.
        student_logits: (..., V), likewise.

    Returns:
        (...) values >= 0.
    """
    return kl_of(functional.log_softmax(student_logits, dim=-1), functional.log_softmax(teacher_logits, dim=-1))


def jsd(teacher_logits: Tensor, student_logits: Tensor, beta: float) -> Tensor:
    """Generalised Jensen-Shannon: `beta KL(p || m) + (1 - beta) KL(q || m)` with `m = beta p + (1 - beta) q`, in nats.

    At beta 0 and 1 it is forward and reverse KL, by definition: as beta tends to 0, `JSD / beta` tends to `KL(p || q)`. For beta in
    between it is at most `H(beta) <= log 2`. GKD, Agarwal et al. 2024, arXiv:2306.13649.

    Args:
        teacher_logits: (..., V), divided by the temperature.
        student_logits: (..., V), likewise.
        beta: Weight of the teacher's side, in [0, 1].

    Returns:
        (...) values >= 0.
    """
    if beta == 0:
        return forward_kl(teacher_logits, student_logits)
    if beta == 1:
        return reverse_kl(teacher_logits, student_logits)
    log_p, log_q = functional.log_softmax(teacher_logits, dim=-1), functional.log_softmax(student_logits, dim=-1)
    log_m = log_mix(log_p, log_q, beta)
    return beta * kl_of(log_p, log_m) + (1 - beta) * kl_of(log_q, log_m)


def skew_kl(teacher_logits: Tensor, student_logits: Tensor, skew: float) -> Tensor:
    """`KL(p || skew p + (1 - skew) q)`, in nats, at most `-log(skew)`. DistiLLM, Ko et al. 2024, arXiv:2402.03898.

    Args:
        teacher_logits: (..., V), divided by the temperature.
        student_logits: (..., V), likewise.
        skew: The teacher's share of the mixture, in (0, 1); 0 is forward KL.

    Returns:
        (...) values >= 0.
    """
    if skew == 0:
        return forward_kl(teacher_logits, student_logits)
    log_p, log_q = functional.log_softmax(teacher_logits, dim=-1), functional.log_softmax(student_logits, dim=-1)
    return kl_of(log_p, log_mix(log_p, log_q, skew))


def skew_reverse_kl(teacher_logits: Tensor, student_logits: Tensor, skew: float) -> Tensor:
    """`KL(q || (1 - skew) p + skew q)`, in nats, at most `-log(skew)`. DistiLLM, Ko et al. 2024, arXiv:2402.03898.

    Args:
        teacher_logits: (..., V), divided by the temperature.
        student_logits: (..., V), likewise.
        skew: The student's share of the mixture, in (0, 1); 0 is reverse KL.

    Returns:
        (...) values >= 0.
    """
    return skew_kl(student_logits, teacher_logits, skew)


def tvd(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Total variation distance `1/2 sum_v |p_v - q_v|`, at most 1. f-distill, Wen et al. 2023, arXiv:2307.15190.

    Args:
        teacher_logits: (..., V), divided by the temperature.
        student_logits: (..., V), likewise.

    Returns:
        (...) values in [0, 1]; a pure number.
    """
    return 0.5 * (teacher_logits.softmax(-1) - student_logits.softmax(-1)).abs().sum(-1)


def dkd(teacher_logits: Tensor, student_logits: Tensor, targets: Tensor, target_weight: float, other_weight: float) -> Tensor:
    """Decoupled distillation `a TCKD + b NCKD`, in nats, over the label's probability and over the other classes.

    `TCKD = KL(b_t || b_s)` with `b = (p_y, 1 - p_y)`; `NCKD = KL(p^_t || p^_s)` with `p^` the other classes' probabilities, summing
    to 1, and 0 where the teacher leaves no other class. Ordinary KL is `TCKD + (1 - p_y) NCKD`, in which a confident teacher's
    knowledge of the other classes weighs next to nothing; `b` restores it. Zhao et al. 2022, arXiv:2203.08679.

    Args:
        teacher_logits: (..., V), divided by the temperature.
        student_logits: (..., V), likewise.
        targets: (...) labels in [0, V).
        target_weight: a.
        other_weight: b.

    Returns:
        (...) values >= 0.
    """
    label = functional.one_hot(targets, teacher_logits.shape[-1]).bool()
    pairs = []
    for logits in (teacher_logits, student_logits):
        others = logits.masked_fill(label, -torch.inf)
        alone = (others == -torch.inf).all(-1, keepdim=True)
        others = others.masked_fill(alone, 0.0)  # the gradient of a log-sum over nothing is NaN
        rest = others.logsumexp(-1, keepdim=True).masked_fill(alone, -torch.inf)
        pairs.append((torch.cat([logits.gather(-1, targets[..., None]), rest], -1), functional.log_softmax(others, -1), alone[..., 0]))
    (binary_t, others_t, alone), (binary_s, others_s, _) = pairs
    # The label's own place keeps a finite number, so that its gradient is 0 and not 0 * inf.
    nckd = kl_of(others_t, others_s.masked_fill(label, 0.0)).masked_fill(alone, 0.0)
    return target_weight * forward_kl(binary_t, binary_s) + other_weight * nckd


def logit_mse(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """`|z_s - z_t|^2 / V` of logits centred by row, in squared logits; the limit of `2 T^2 KL` for large T.

    Ba and Caruana 2014, arXiv:1312.6184; Kim et al. 2021, arXiv:2105.08919.

    Args:
        teacher_logits: (..., V), not divided by any temperature.
        student_logits: (..., V), likewise.

    Returns:
        (...) values >= 0.
    """
    ruled_out = (teacher_logits == -torch.inf) & (student_logits == -torch.inf)
    gap, count = (student_logits - teacher_logits).masked_fill(ruled_out, 0.0), (~ruled_out).sum(-1, keepdim=True)
    centred = gap - gap.sum(-1, keepdim=True) / count
    return centred.masked_fill(ruled_out, 0.0).pow(2).sum(-1) / count[..., 0]


def cosine(teacher: Tensor, student: Tensor) -> Tensor:
    """`1 - cos(e_t, e_s)` of embeddings, in [0, 2]; their lengths do not matter.

    Args:
        teacher: (..., D).
        student: (..., D).

    Returns:
        (...) values; 0 where both point the same way.
    """
    return 1 - functional.cosine_similarity(student, teacher, dim=-1)


def mse(teacher: Tensor, student: Tensor) -> Tensor:
    """`|e_s - e_t|^2 / D` of embeddings, as the MSELoss of sentence-transformers. Reimers and Gurevych 2020, arXiv:2004.09813.

    Args:
        teacher: (..., D).
        student: (..., D).

    Returns:
        (...) values >= 0.
    """
    return (student - teacher).pow(2).mean(-1)


def similarities(embeddings: Tensor) -> Tensor:
    """Cosines of each row with all others; a row's own place is ruled out.

    Forward KL between two such matrices, divided by a temperature, compares how each row ranks the others of its batch, whatever the
    number of features and their rotation. Peng et al. 2019, "Correlation Congruence", arXiv:1904.01802; SEED, arXiv:2101.04731.

    Args:
        embeddings: (N, D) of the rows of one batch.

    Returns:
        (N, N) cosines, -inf on the diagonal.
    """
    unit = functional.normalize(embeddings, dim=-1)
    return (unit @ unit.T).masked_fill(torch.eye(len(unit), dtype=torch.bool, device=unit.device), -torch.inf)


def standardized(logits: Tensor) -> Tensor:
    """Logits as z-scores of their row, `(z - mean) / (1e-7 + std)`: scale and offset no longer matter.

    Sun et al. 2024, arXiv:2403.01427.

    Args:
        logits: (..., V); -inf marks an id that is ruled out, and is left out of mean and deviation.

    Returns:
        (..., V), mean 0 and (sample) standard deviation 1 over the ids that are not ruled out; -inf where they are.
    """
    ruled_out = logits == -torch.inf
    count = (~ruled_out).sum(-1, keepdim=True)
    mean = logits.masked_fill(ruled_out, 0.0).sum(-1, keepdim=True) / count
    centred = (logits - mean).masked_fill(ruled_out, 0.0)
    deviation = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / (count - 1).clamp(min=1).sqrt()
    return (centred / (1e-7 + deviation)).masked_fill(ruled_out, -torch.inf)


# Each takes teacher's and student's logits divided by the temperature, and the labels, which only some use.
DIVERGENCES: dict[str, Divergence] = {
    "forward-kl": lambda t, s, y, o: forward_kl(t, s),
    "reverse-kl": lambda t, s, y, o: reverse_kl(t, s),
    "jsd": lambda t, s, y, o: jsd(t, s, o.beta),
    "skew-kl": lambda t, s, y, o: skew_kl(t, s, o.skew),
    "skew-reverse-kl": lambda t, s, y, o: skew_reverse_kl(t, s, o.skew),
    "tvd": lambda t, s, y, o: tvd(t, s),
    "dkd": lambda t, s, y, o: dkd(t, s, y, o.target_weight, o.other_weight),
    "logit-mse": lambda t, s, y, o: logit_mse(t, s),
    "taid": lambda t, s, y, o: forward_kl(t, s),
    "cosine": lambda t, s, y, o: cosine(t, s),
    "mse": lambda t, s, y, o: mse(t, s),
    "similarity-kl": lambda t, s, y, o: forward_kl(t, s),  # of the similarities of rows, in place of logits
}
WITHOUT_TEMPERATURE = ("logit-mse", "cosine", "mse")
WITHOUT_SQUARE = ("tvd", "logit-mse", "cosine", "mse")  # T^2 belongs to KL forms alone


def infinite_for(objective: Objective) -> tuple[bool, bool]:
    """Whether the divergence is infinite where the teacher alone, and where the student alone, rules out an id."""
    forward = {"forward-kl": True, "dkd": True, "logit-mse": True, "jsd": objective.beta == 0, "skew-kl": objective.skew == 0}
    reverse = {"reverse-kl": True, "logit-mse": True, "jsd": objective.beta == 1, "skew-reverse-kl": objective.skew == 0}
    return reverse.get(objective.kind, False), forward.get(objective.kind, False)
