"""Answers on disk: whole after a kill, found by their text, written by any number of threads and processes."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from models.generation.answer_file import AnswerFile, Rows


def key(number: int) -> bytes:
    return sha256(bytes([number])).digest()


def rows(number: int) -> Rows:
    generator = torch.Generator().manual_seed(number)
    return torch.randint(50_000, (number + 1, 3), generator=generator), torch.randn(number + 1, 3, generator=generator)


def same(one: Rows | None, other: Rows) -> bool:
    return one is not None and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_threads_add_and_another_process_finds_all(tmp_path: Path) -> None:
    first = AnswerFile(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: first.add(key(number % 40), rows(number % 40)), range(80)))
    assert len(first) == 40
    size = (tmp_path / "answers-0.bin").stat().st_size
    assert size == sum(44 + 8 * 3 * (number + 1) for number in range(40)), "each once"
    second = AnswerFile(tmp_path, writer=1)
    second.add(key(40), rows(40))
    assert all(same(second.get(key(number)), rows(number)) for number in range(41))
    assert second.get(key(41)) is None
    assert len(AnswerFile(tmp_path)) == 41


@pytest.mark.parametrize("cut", [1, 30, 44, 60])
def test_half_an_answer_does_not_count_and_the_next_one_takes_its_place(tmp_path: Path, cut: int) -> None:
    made = AnswerFile(tmp_path)
    for number in (0, 1, 2):
        made.add(key(number), rows(number))
    made.close()
    file = tmp_path / "answers-0.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    again = AnswerFile(tmp_path)
    assert [again.get(key(number)) is not None for number in (0, 1, 2)] == [True, True, False]
    again.add(key(2), rows(2))
    again.close()
    assert file.read_bytes() == whole


def test_a_changed_answer_is_asked_for_again_with_all_behind_it(tmp_path: Path) -> None:
    made = AnswerFile(tmp_path)
    for number in (0, 1, 2):
        made.add(key(number), rows(number))
    made.close()
    file = tmp_path / "answers-0.bin"
    content = bytearray(file.read_bytes())
    content[44 + 24 + 44 + 5] ^= 1
    file.write_bytes(content)
    assert [AnswerFile(tmp_path).get(key(number)) is not None for number in (0, 1, 2)] == [True, False, False]
