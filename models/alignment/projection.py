"""Mapping of the probability mass of a teacher's tokens to the student's ids.

Shape legend: m tokens of a node, V ids of the student.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import torch
from torch import Tensor

from models.alignment.byte_tokens import GAP, ByteTokens


class Node(NamedTuple):
    """The teacher's tokens that go on after some bytes.

    Attributes:
        longer: (m,) tokens that begin with these bytes and have more.
        into: (m,) the student's id that the rest of each begins with.
        whole: Tokens that are these bytes.
    """

    longer: Tensor
    into: Tensor
    whole: Tensor


class Projection:
    """Teacher's tokens, ordered by their bytes, with the student's id for every rest of one.

    A rest goes to the student's id of the same bytes, where there is one, else to the first id of the student's own encoding of it. The
    teacher's end goes to the student's, and a special string that both have to itself; other specials, ids without text, and rests whose
    first byte the student has no id for, go nowhere.
    """

    def __init__(self, teacher: ByteTokens, student: ByteTokens) -> None:
        self._student, self._all = student, teacher.bytes_of
        ordered = sorted((word, index) for index, word in enumerate(teacher.bytes_of) if word)
        self._words, self._ids = [word for word, _ in ordered], [index for _, index in ordered]
        self._beyond = b"\xff" * (1 + max(map(len, self._words)))
        own = {word: index for index, word in student.spelt.items()}
        self.specials = {index: own[word] for index, word in teacher.spelt.items() if word in own} | {teacher.end: student.end}
        alike = ((index, student.words.get(word)) for word, index in teacher.words.items())
        self._alike = {index: other for index, other in alike if other is not None and student.bytes_of[other] == teacher.bytes_of[index]}
        self._first: dict[bytes, int] = {}
        self._nodes: dict[bytes, Node] = {}

    def node(self, begun: bytes) -> Node:
        """The tokens that begin with these bytes; all that go anywhere, where there are none."""
        if begun not in self._nodes:
            first, last = bisect_left(self._words, begun), bisect_left(self._words, begun + self._beyond)
            more = next((place for place in range(first, last) if self._words[place] != begun), last)
            ids, into = self._ids[more:last], self._into([word[len(begun) :] for word in self._words[more:last]])
            ids, into = [index for index, other in zip(ids, into, strict=True) if other != GAP], [other for other in into if other != GAP]
            if not begun:  # of several ids of the same bytes the one that is written alike
                into = [self._alike.get(index, other) for index, other in zip(ids, into, strict=True)]
                ids, into = [*ids, *self.specials], [*into, *self.specials.values()]
            self._nodes[begun] = Node(*(torch.tensor(each, dtype=torch.int64) for each in (ids, into, self._ids[first:more])))
        return self._nodes[begun]

    def goes(self, index: int, begun: int) -> int:
        """The student's id that a token of the teacher goes to after so many of its bytes."""
        if index in self.specials:
            return self.specials[index]
        into = self._into([self._all[index][begun:]])[0]
        return into if begun else self._alike.get(index, into)

    def _into(self, rests: list[bytes]) -> list[int]:
        known, first = self._student.id_of, self._first
        new = list(dict.fromkeys(rest for rest in rests if rest not in known and rest not in first))
        first.update((rest, ids[0]) for rest, ids in zip(new, self._student.encode(new), strict=True))
        return [known[rest] if rest in known else first[rest] for rest in rests]
