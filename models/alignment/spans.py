"""Windows of a student's ids in their teacher's ids, aligned by bytes.

Both sequences are laid over one stream: the bytes of the text, and one place for each end of a document and each other special id that
both tokenizers have. A student's id that begins a text has no place: the teacher's own beginning stands for it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from models.alignment.byte_tokens import GAP, ByteTokens


class TeacherToken(NamedTuple):
    """A predicted token of the teacher.

    Attributes:
        sequence: The sequence that it is in.
        before: Position there whose logits predict it.
        id: Of the token.
        start: Its first place in the stream of its window.
        end: The place after its last.
    """

    sequence: int
    before: int
    id: int
    start: int
    end: int


class AlignedRow(NamedTuple):
    """A row of the student, as its teacher sees it.

    Attributes:
        number: Among the rows of the batch.
        target: The student's id.
        first: The teacher's token in which its bytes begin.
        begun: Bytes of that token before them; none: a span begins here, as both tokenizations have a boundary.
        last: The token in which they end.
        left: Bytes of that token up to their end; none: they end with it.
    """

    number: int
    target: int
    first: int
    begun: bytes
    last: int
    left: bytes


@dataclass
class Aligned:
    """A batch in its teacher's ids.

    Attributes:
        sequences: What the teacher reads.
        tokens: All that it predicts.
        rows: The student's rows that the teacher answers.
        fixed: The others, with their id and how many bytes it has: none for the beginning of a text, which follows with certainty from the
            end of another, else such with bytes that the teacher has no token for.
    """

    sequences: list[list[int]] = field(default_factory=list)
    tokens: list[TeacherToken] = field(default_factory=list)
    rows: list[AlignedRow] = field(default_factory=list)
    fixed: list[tuple[int, int, int]] = field(default_factory=list)


class _Window(NamedTuple):
    """A window as pieces, a text or a teacher's special id each, and the places at which its ids begin and end."""

    pieces: list[bytes | int]
    bounds: list[int]


def align(
    windows: Sequence[Sequence[int]],
    length: int,
    student: ByteTokens,
    teacher: ByteTokens,
    apart: bool = False,
    given: Sequence[int] | None = None,
) -> Aligned:
    """Lay windows of a student and their teacher's ids over one another.

    Args:
        windows: Ids of each window, without padding; row t of a window is to predict its id t + 1.
        length: L, rows of a window.
        student: Its tokenizer.
        teacher: Its tokenizer.
        apart: The teacher reads each document by itself.
        given: Of each window the first rows that do not count, such as those of a prompt, with which the teacher then begins as the student
            does: without an end id before it; None: all count.
    """
    shared = {word: index for index, word in teacher.spelt.items()}
    known = {index: shared[word] for index, word in student.spelt.items() if word in shared} | {student.end: teacher.end}
    cut = [_pieces(ids, student, known) for ids in windows]
    encoded = iter(teacher.encode([piece for window in cut for piece in window.pieces if isinstance(piece, bytes)]))
    found = Aligned()
    for number, (ids, window) in enumerate(zip(windows, cut, strict=True)):
        first = len(found.tokens)
        counts = window.bounds[min(given[number] + 1, len(window.bounds) - 1)] if given is not None and window.bounds[1:2] != [0] else 0
        _read(window, encoded, teacher, apart, found, counts)
        _place(ids, window.bounds, number * length, found, first, teacher)
    return found


def _pieces(ids: Sequence[int], student: ByteTokens, known: dict[int, int]) -> _Window:
    pieces: list[bytes | int] = []
    bounds, begins = [0], True
    for index in ids:
        structural = index in student.prefix or index == student.end
        if structural and (begins or index != student.end):
            bounds.append(bounds[-1])
            continue
        begins = False
        if index in known:
            pieces.append(known[index])
            bounds.append(bounds[-1] + 1)
            continue
        text = student.spelt[index].encode() if index in student.spelt else student.bytes_of[index]
        bounds.append(bounds[-1] + len(text))
        if pieces and isinstance(pieces[-1], bytes):
            pieces[-1] += text
        else:
            pieces.append(text)
    return _Window(pieces, bounds)


def _read(window: _Window, encoded: Iterator[list[int]], teacher: ByteTokens, apart: bool, found: Aligned, counts: int) -> None:
    """Add the teacher's sequences and tokens of a window, whose first place that counts is `counts`."""
    beginning = [*(teacher.prefix or (teacher.end,))]
    sequence, place = list(beginning), 0
    found.sequences.append(sequence)
    for piece in window.pieces:
        ids = next(encoded) if isinstance(piece, bytes) else [piece]
        for index in ids:
            if place == 0 and not teacher.prefix and index != GAP and 0 < len(teacher.bytes_of[index]) <= counts:
                sequence[:], place = [index], len(teacher.bytes_of[index])  # given, not predicted
                continue
            if index == GAP:
                place += 1
                continue
            after = place + (len(teacher.bytes_of[index]) if isinstance(piece, bytes) else 1)
            found.tokens.append(TeacherToken(len(found.sequences) - 1, len(sequence) - 1, index, place, after))
            sequence.append(index)
            place = after
        if piece == teacher.end and apart:
            sequence = list(beginning)
            found.sequences.append(sequence)
        elif piece == teacher.end:
            sequence += teacher.prefix


def _place(ids: Sequence[int], bounds: list[int], number: int, found: Aligned, first: int, teacher: ByteTokens) -> None:
    """Add the rows of a window, whose tokens are those from `first` on."""
    starts = [token.start for token in found.tokens[first:]]
    for row, (target, start, end) in enumerate(zip(ids[1:], bounds[1:-1], bounds[2:], strict=True)):
        begin, last = first + bisect_right(starts, start) - 1, first + bisect_left(starts, end) - 1
        covered = found.tokens[begin : last + 1] if begin >= first else []
        if start == end or not _without_gap(covered, start, end):
            found.fixed.append((number + row, target, end - start))
            continue
        opening, closing = covered[0], covered[-1]
        begun = teacher.bytes_of[opening.id][: start - opening.start]
        left = teacher.bytes_of[closing.id][: end - closing.start] if end < closing.end else b""
        found.rows.append(AlignedRow(number + row, target, begin, begun, last, left))


def _without_gap(tokens: Sequence[TeacherToken], start: int, end: int) -> bool:
    """Whether the tokens cover all from one place of the stream to another."""
    if not tokens or not tokens[0].start <= start < tokens[0].end or end > tokens[-1].end:
        return False
    return all(one.end == other.start for one, other in pairwise(tokens))
