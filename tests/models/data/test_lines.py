"""Lines of held-out texts that stand in the training texts too."""

import numpy as np

from models.data.lines import LEAST, SAMPLED, USUAL, line_hashes, sampling_rate, shared_lines

TRAIN = [f"a line that stands in training {n}\n  Another Sentence of it, number {n}. And one more of these {n}" for n in range(4000)]


def test_lines_and_sentences_count_without_case_and_space_but_not_short_ones() -> None:
    hashes = line_hashes(["One line that is long enough\n\tONE LINE that is long enough  \nshort\n", "x" * LEAST + ". " + "y" * LEAST], 1.0)
    assert len(hashes) == 4
    assert hashes[0] == hashes[1]
    assert len(set(hashes.tolist())) == 3


def test_a_sample_estimates_the_share() -> None:
    held_out = [*TRAIN[:1000], *(f"a line that only is held out, number {n}" for n in range(3000))]
    whole = shared_lines(line_hashes(held_out, 1.0), line_hashes(TRAIN, 1.0))
    assert whole is not None
    assert abs(whole - 0.5) < 0.01
    few = line_hashes(held_out, 0.2)
    assert 1000 < len(few) < 1400
    assert set(few.tolist()) < set(line_hashes(held_out, 1.0).tolist())
    sampled = shared_lines(few, line_hashes(TRAIN, 0.2))
    assert sampled is not None
    assert abs(sampled - 0.5) < 0.05, "three standard errors"


def test_the_sample_does_not_grow_with_the_texts() -> None:
    assert sampling_rate(1000) == 1
    assert sampling_rate(2 * 10**9) * 2 * 10**9 / USUAL == SAMPLED
    assert shared_lines(np.empty(0, np.uint64), np.empty(0, np.uint64)) is None
