import numpy as np
import pytest

from models.evaluation.compression_exemplars import compression_identified, modal


def test_the_commonest_answer_and_the_smallest_of_equals() -> None:
    assert modal(np.array([[3, 1, 2], [3, 2, 1], [0, 1, 7]])).tolist() == [3, 1, 1]


def test_only_examples_lost_by_most_students_count() -> None:
    teachers = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 5, 3]])
    students = np.array([[0, 9, 2, 3], [0, 9, 5, 9], [0, 1, 2, 3]])  # the first example: all as before; the last: one student's chance
    assert compression_identified(teachers, students).tolist() == [False, True, False, False]


def test_an_answer_as_common_as_the_commonest_is_not_lost() -> None:
    students = np.array([[7, 7, 2], [9, 9, 5], [8, 8, 9], [4, 7, 5], [6, 9, 2]])
    assert compression_identified(np.array([[7, 9, 7]]), students).tolist() == [False, False, True]


def test_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="the same examples"):
        compression_identified(np.zeros((2, 3), int), np.zeros((2, 4), int))
