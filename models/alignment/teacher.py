"""A teacher with a tokenizer of its own, heard in the student's ids.

For each of the student's rows the teacher's distribution over its own tokens becomes one over the student's ids: what it says of the next
bytes, given those of its token that the student has read already (docs/explanation/tokenizers.md).

Shape legend: B windows, L rows of one, N = B * L, R tokens of a group of sequences, T ids of the teacher, V ids of the student.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from conf.errors import UserError
from models.alignment.byte_tokens import GAP, ByteTokens
from models.alignment.projection import Projection
from models.alignment.spans import Aligned, AlignedRow, align
from models.architectures.configs import positions_of
from models.data.batches import IGNORE, Batch
from models.losses.loss import SortedSignal

ELEMENTS = 256 * 49152  # the teacher's logits at once
BYTE = math.log(256)  # nats of a byte that the teacher has no token for: all are alike to it
LEAST = 1e-10  # probability of an id that no token of the teacher goes to


class RowAnswers(NamedTuple):
    """RowAnswers of a teacher to all rows of a batch; of rows that do not count, any values.

    Attributes:
        log_p: (N, V) log-probabilities of the student's ids.
        nll: (N,) nats; their sum over a window is that of the teacher's own tokens, by the chain rule.
        begins: (N,) whether a span begins with the row: both tokenizations have a boundary before it.
    """

    log_p: Tensor
    nll: Tensor
    begins: Tensor


class _Group(NamedTuple):
    """Some sequences: the log-probabilities (R, T) of their tokens, of which `first` is the number of the first, and the rows within."""

    log_p: Tensor
    first: int
    rows: list[AlignedRow]


class AlignedTeacher(nn.Module):
    """A causal LM behind the tokenizer of its students.

    Args:
        model: The teacher.
        own: Its tokenizer.
        student: Theirs.
        vocabulary: V.
    """

    def __init__(self, model: nn.Module, own: ByteTokens, student: ByteTokens, vocabulary: int) -> None:
        super().__init__()
        self.model, self._own, self._student, self._vocabulary = model, own, student, vocabulary
        self._projection = Projection(own, student)

    @property
    def config(self) -> Any:
        """The teacher's configuration."""
        return cast(Any, self.model).config

    @cached_property
    def unheard(self) -> Tensor:
        """(V,) bool, ids of the student of which the teacher says nothing: no text, or bytes that it has no token for."""
        student, known = self._student, self._own.spelt.values()
        told = {index for index, word in student.spelt.items() if word in known} - {*student.prefix} | {student.end}
        bytes_of = [student.spelt.get(index, "").encode() or student.bytes_of[index] for index in range(self._vocabulary)]
        silent = [index in student.prefix or not text or not self._own.lacking.isdisjoint(text) for index, text in enumerate(bytes_of)]
        return torch.tensor([each and index not in told for index, each in enumerate(silent)])

    def answers(self, batch: Batch) -> RowAnswers:
        """Compute the teacher's answers to every row, without gradient."""
        aligned, rows, device = self._aligned(batch), batch.targets.numel(), batch.targets.device
        log_p = torch.zeros(rows, self._vocabulary, device=device)
        nll, begins = torch.zeros(rows, device=device), torch.zeros(rows, dtype=torch.bool, device=device)
        for group in self._groups(aligned, device):
            numbers = torch.tensor([row.number for row in group.rows], device=device)
            log_p[numbers], nll[numbers] = self._projected(group, aligned)
            begins[numbers] = torch.tensor([not row.begun for row in group.rows], device=device)
        for number, target, size in aligned.fixed:  # the text itself is the target
            log_p[number] = torch.full((self._vocabulary,), LEAST, device=device).log()
            log_p[number, target], nll[number] = 0.0, size * BYTE
        return RowAnswers(log_p, nll, begins)

    def largest(self, batch: Batch) -> SortedSignal:
        """The teacher's probabilities where a span begins, the largest first; other rows do not count."""
        aligned, rows, device = self._aligned(batch), batch.targets.numel(), batch.targets.device
        most = min(self._vocabulary, self._own.count)
        log_p, rest = torch.full((rows, most), -torch.inf, device=device), torch.zeros(rows, device=device)
        for group in self._groups(aligned, device):
            begun = [row for row in group.rows if not row.begun]
            numbers = torch.tensor([row.number for row in begun], dtype=torch.int64, device=device)
            theirs = group.log_p[[row.first - group.first for row in begun]]
            log_p[numbers] = theirs.topk(most, -1).values
            rest[numbers] = (1 - log_p[numbers].exp().sum(-1)).clamp(min=0.0)
        return SortedSignal(log_p, rest)

    def _aligned(self, batch: Batch) -> Aligned:
        """The batch in the teacher's ids; a window ends with its last target that counts."""
        inputs, targets = batch.inputs["input_ids"].tolist(), batch.targets.tolist()
        windows, given = [], []
        for ids, wanted in zip(inputs, targets, strict=True):
            last = max((place for place, target in enumerate(wanted) if target != IGNORE), default=-1)
            # An id without a label, at the end of a text that a student writes, is not among the inputs; any id tells what goes before it.
            after = wanted[last] if wanted[last] >= 0 else self._student.end
            windows.append([*ids[: last + 1], after] if last >= 0 else [])
            given.append(next((place for place, target in enumerate(wanted) if target != IGNORE), 0))
        return align(windows, batch.targets.shape[1], self._student, self._own, "position_ids" in batch.inputs, given)

    def _groups(self, aligned: Aligned, device: torch.device) -> Iterator[_Group]:
        """The teacher's answers, some sequences at a time."""
        most = positions_of(self.model)
        longest = max(map(len, aligned.sequences), default=0)
        if most is not None and longest - 1 > most:
            raise UserError.about(
                "data.sequence_length",
                f"a window of {longest - 1} ids of the teacher",
                f"windows of at most {most}, the positions of the teacher",
                "Shorten it.",
            )
        budget, bounds, some, rows = max(ELEMENTS // self._own.count, 1), _by_sequence(aligned), list[int](), 0
        for number, sequence in enumerate(aligned.sequences):
            some.append(number)
            rows += len(sequence)
            if rows < budget and number < len(aligned.sequences) - 1:
                continue
            first, last = bounds[some[0]][0], bounds[number][1]
            if last > first:
                within = [row for row in aligned.rows if first <= row.first < last]
                yield _Group(self._log_p(aligned, some, first, last, device), first, within)
            some, rows = [], 0

    def _log_p(self, aligned: Aligned, numbers: list[int], first: int, last: int, device: torch.device) -> Tensor:
        """Log-probabilities (R, T) of the tokens from `first` to below `last`, which are in these sequences."""
        longest = max(len(aligned.sequences[number]) for number in numbers)
        # Right padding: a causal model never looks ahead.
        ids = [aligned.sequences[n] + [self._own.end] * (longest - len(aligned.sequences[n])) for n in numbers]
        tokens = aligned.tokens[first:last]
        where = [token.sequence - numbers[0] for token in tokens]
        with torch.no_grad():
            logits = cast(Any, self.model)(input_ids=torch.tensor(ids, device=device)).logits
            return logits[where, [token.before for token in tokens], : self._own.count].float().log_softmax(-1)

    def _projected(self, group: _Group, aligned: Aligned) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the student's ids, and nll, of the rows of a group."""
        p, first, device = group.log_p.exp(), group.first, group.log_p.device
        tokens = aligned.tokens[first : first + len(p)]
        own = group.log_p.gather(1, torch.tensor([[token.id] for token in tokens], device=device))[:, 0]
        places: dict[bytes, dict[int, None]] = {}
        for row in group.rows:
            places.setdefault(row.begun, {})[row.first - first] = None
            if row.left:
                places.setdefault(row.left, {})[row.last - first] = None
        at = {(begun, token): (begun, place) for begun, some in places.items() for place, token in enumerate(some)}
        on, all_of, mass = dict[bytes, Tensor](), dict[bytes, Tensor](), dict[bytes, Tensor]()
        for begun, some in places.items():
            node, here = self._projection.node(begun), torch.tensor(list(some), device=device)[:, None]
            longer = p[here, node.longer.to(device)[None]]
            on[begun] = longer.sum(-1)
            all_of[begun] = on[begun] + p[here, node.whole.to(device)[None]].sum(-1) if begun else torch.ones_like(on[begun])
            into = torch.zeros(len(some), self._vocabulary, device=device)
            mass[begun] = into.index_add_(1, node.into.to(device), longer) / on[begun].clamp(min=LEAST)[:, None]

        def chosen(values: dict[bytes, Tensor], keys: list[tuple[bytes, int]]) -> Tensor:
            return torch.stack([values[begun][place] for begun, place in (at[key] for key in keys)])

        begins = [(row.begun, row.first - first) for row in group.rows]
        rows, before, norm = chosen(mass, begins), chosen(all_of, begins).log(), chosen(on, begins).clamp(min=LEAST).log()
        ended = torch.cat([own.new_zeros(1), own.double().cumsum(0)])
        starts = torch.tensor([row.first - first for row in group.rows], device=device)
        ends = torch.tensor([row.last - first + (not row.left) for row in group.rows], device=device)
        finished = (ended[ends] - ended[starts]).float()  # log-probabilities of the tokens that end within the row
        inside = [number for number, row in enumerate(group.rows) if row.left]
        after = torch.zeros_like(finished)
        if inside:
            after[inside] = chosen(all_of, [(group.rows[n].left, group.rows[n].last - first) for n in inside]).log()
        self._merge(rows, group, aligned, (finished + after - norm).exp())
        return rows.clamp(min=LEAST).log(), before - after - finished

    def _merge(self, mass: Tensor, group: _Group, aligned: Aligned, chain: Tensor) -> None:
        """Move to each student id that crosses the end of a token its chain probability, from the id that the token goes to."""
        crossing = [n for n, row in enumerate(group.rows) if row.last > row.first]
        for number in crossing:
            row = group.rows[number]
            origin = self._projection.goes(aligned.tokens[row.first].id, len(row.begun))
            if origin == GAP:  # the token goes nowhere, and its part of the whole is missing
                mass[number] *= 1 - chain[number]
                mass[number, row.target] += chain[number]
                continue
            moved = torch.minimum(chain[number], mass[number, origin])
            mass[number, origin] -= moved
            mass[number, row.target] += moved


def _by_sequence(aligned: Aligned) -> list[tuple[int, int]]:
    """For each sequence, where its tokens begin and end."""
    bounds, place = [], 0
    for number in range(len(aligned.sequences)):
        begin = place
        while place < len(aligned.tokens) and aligned.tokens[place].sequence == number:
            place += 1
        bounds.append((begin, place))
    return bounds


def plain(model: nn.Module) -> nn.Module:
    """The model itself, of a teacher behind another tokenizer."""
    return model.model if isinstance(model, AlignedTeacher) else model
