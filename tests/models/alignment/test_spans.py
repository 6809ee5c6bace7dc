"""Rows and spans of two tokenizations, beside a search of every boundary."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.alignment.spans import align
from tests.models.alignment.tokens import KINDS, of

WORDS = st.sampled_from(["the ", "cat", " mat", "then", "Zoë", "🌙", "猫", "e\u0301", "\n", "<|end|>", "▁", " "])
TEXT = st.lists(WORDS | st.text(st.characters(codec="utf-8"), max_size=4), min_size=1, max_size=12).map("".join)


def positions(kind: str, ids: list[int]) -> list[int]:
    """Byte at which each id ends, the ids decoded one by one."""
    return list(accumulate(len(of(kind).bytes_of[index]) for index in ids))


@pytest.mark.parametrize("student", KINDS)
@pytest.mark.parametrize("teacher", KINDS)
@given(text=TEXT, cut=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_rows_are_where_a_search_of_all_boundaries_finds_them(student: str, teacher: str, text: str, cut: int) -> None:
    own, theirs = of(student), of(teacher)
    (ids,) = own.encode([text.encode()])
    window = ids[cut:]  # begins anywhere, perhaps within a letter
    if len(window) < 2:
        return
    found = align([window], len(window), own, theirs)
    data = b"".join(own.bytes_of[index] for index in window)
    read = [token.id for token in found.tokens]
    assert b"".join(theirs.bytes_of[index] for index in read) == data
    assert found.sequences == [[*(theirs.prefix or [theirs.end]), *read]]
    ends, their_ends = positions(student, window), positions(teacher, read)
    assert [row.number for row in found.rows] == list(range(len(window) - 1))
    for row, (start, end) in zip(found.rows, pairwise(ends), strict=True):
        first = next(number for number, place in enumerate(their_ends) if place > start)
        last = next(number for number, place in enumerate(their_ends) if place >= end)
        opening = their_ends[first] - len(theirs.bytes_of[read[first]])
        closing = their_ends[last] - len(theirs.bytes_of[read[last]])
        assert (row.first, row.begun) == (first, data[opening:start])
        assert (row.last, row.left) == (last, b"" if end == their_ends[last] else data[closing:end])
        assert (not row.begun) == (start in {0, *their_ends})


def test_ends_are_the_teachers_ends_and_a_beginning_is_its_own() -> None:
    own, theirs = of("bytes"), of("sentence pieces")
    window = [own.end, *b"the", own.end, *b"cat", own.end]
    found = align([window], len(window), own, theirs)
    the, cat = (theirs.encode([text])[0] for text in (b"the", b"cat"))
    begin = list(theirs.prefix)
    assert found.sequences == [[*begin, *the, theirs.end, *begin, *cat, theirs.end, *begin]]
    ends = [row for row in found.rows if row.target == own.end]
    assert [found.tokens[row.first].id for row in ends] == [theirs.end, theirs.end]
    assert not any(row.begun or row.left for row in ends)
    apart = align([window], len(window), own, theirs, apart=True)
    assert apart.sequences[:2] == [[*begin, *the, theirs.end], [*begin, *cat, theirs.end]]
    assert apart.rows == found.rows


def test_a_beginning_of_the_students_follows_with_certainty() -> None:
    own, theirs = of("sentence pieces"), of("bytes")
    (begin,) = own.prefix
    window = [begin, *own.encode([b"the cat"])[0], own.end, begin, *own.encode([b"the"])[0]]
    found = align([window], len(window), own, theirs)
    assert found.sequences == [[theirs.end, *b"the cat", theirs.end, *b"the"]]
    assert [(target, size) for _, target, size in found.fixed] == [(begin, 0)]
    assert window[found.fixed[0][0] + 1] == begin


def test_a_special_string_of_both_stays_one_id_and_is_spelt_out_else() -> None:
    pieces, other = of("sentence pieces"), of("bytes")
    user = next(index for index, word in pieces.spelt.items() if word == "<|user|>")
    window = [*pieces.encode([b"cat"])[0], user, *pieces.encode([b"the"])[0]]
    assert user in align([window], 20, pieces, pieces).sequences[0]
    assert align([window], 20, pieces, other).sequences == [[other.end, *b"cat<|user|>the"]]


def test_a_prompt_begins_without_an_end_id_for_the_teacher_too() -> None:
    own, theirs = of("bytes"), of("merges")
    window = [*b"the cat sat", own.end]
    (read,) = theirs.encode([b"the cat sat"])
    first = len(theirs.bytes_of[read[0]])
    found = align([window], len(window), own, theirs, given=[8])
    assert found.sequences == [[*read, theirs.end]]
    assert [token.id for token in found.tokens] == [*read[1:], theirs.end]
    assert [row.number for row in found.rows] == list(range(first - 1, len(window) - 1))
    assert align([window], len(window), own, theirs, given=[first - 2]).sequences == [[theirs.end, *read, theirs.end]], "a target before"
    sentences = of("sentence pieces")
    assert align([window], len(window), own, sentences, given=[8]).sequences[0][: len(sentences.prefix)] == list(sentences.prefix)
