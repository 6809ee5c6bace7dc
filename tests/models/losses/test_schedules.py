from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.schema.stage.objective import Alpha, Objective, Temperature
from conf.schema.stage.training import Training
from models.losses.schedules import Turns, half_cosine, learning_rate_at, steps_asked, teachers_asked, value_at


def rates(steps: int, **settings) -> list[float]:
    training = Training.model_validate({"steps": steps, "learning_rate": 1.0, "warmup": 0.1, "final_ratio": 0.05} | settings)
    return [learning_rate_at(training, step) for step in range(steps)]


def test_alpha_and_temperature_reach_both_ends() -> None:
    alpha, temperature = Alpha(kind="cosine", start=0.9, end=0.1), Temperature(kind="cosine", start=4.0, end=1.0)
    assert value_at(alpha, 0, 50) == pytest.approx(0.9, abs=1e-12)
    assert value_at(alpha, 49, 50) == pytest.approx(0.1, abs=1e-12)
    assert value_at(temperature, 0, 50) == pytest.approx(4.0, abs=1e-12)
    assert value_at(temperature, 49, 50) == pytest.approx(1.0, abs=1e-12)
    assert value_at(temperature, 25, 51) == pytest.approx(2.5, abs=1e-12)  # half way
    assert {value_at(Alpha(start=0.7), step, 50) for step in range(50)} == {0.7}
    assert value_at(alpha, 0, 1) == 0.9


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 1), st.floats(0, 1))
def test_half_a_cosine_stays_between_its_ends_and_never_turns(start: float, end: float, a: float, b: float) -> None:
    low, high = min(start, end) - 1e-9, max(start, end) + 1e-9
    first, second = half_cosine(start, end, min(a, b)), half_cosine(start, end, max(a, b))
    assert low <= first <= high
    assert (second - first) * (end - start) >= -1e-9
    assert (half_cosine(start, end, -1), half_cosine(start, end, 2)) == (half_cosine(start, end, 0), half_cosine(start, end, 1))


def test_cosine_rises_linearly_and_falls_to_its_final_ratio() -> None:
    course = rates(100)
    assert course[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert course[9] == course[10] == pytest.approx(1.0)
    assert course[-1] == pytest.approx(0.05)
    assert all(a > b for a, b in pairwise(course[10:]))


def test_warmup_stable_decay_has_a_plateau_and_a_linear_fall() -> None:
    course = rates(100, schedule="warmup-stable-decay", decay=0.2)
    assert course[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert course[10:81] == [1.0] * 71
    falls = [a - b for a, b in pairwise(course[80:])]
    assert falls == pytest.approx([0.95 / 19] * 19)
    assert course[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("schedule", ["cosine", "warmup-stable-decay"])
@given(steps=st.integers(1, 60), warmup=st.floats(0, 0.5), decay=st.floats(0.01, 0.5), ratio=st.floats(0, 1))
def test_every_rate_is_positive_and_at_most_the_peak(schedule: str, steps: int, warmup: float, decay: float, ratio: float) -> None:
    course = rates(steps, schedule=schedule, warmup=warmup, decay=decay, final_ratio=ratio)
    assert all(0 <= rate <= 1 + 1e-9 for rate in course)
    assert course[0] > 0


@given(
    start=st.sampled_from([0.0, 0.3, 1.0]),
    end=st.sampled_from([None, 0.0, 0.6]),
    sizes=st.lists(st.integers(1, 3), max_size=4),
    lengths=st.none() | st.lists(st.sampled_from([0.1, 0.3, 1.0, 7.0]), min_size=4, max_size=4),
    keep=st.sampled_from([0.1, 0.75, 1.0]),
    seed=st.integers(0, 2**31 - 1),
    steps=st.integers(1, 40),
    done=st.integers(0, 40),
    features=st.booleans(),
)
def test_the_steps_in_which_a_teacher_is_asked_are_those_of_each_step_added_up(
    start: float,
    end: float | None,
    sizes: list[int],
    lengths: list[float] | None,
    keep: float,
    seed: int,
    steps: int,
    done: int,
    features: bool,
) -> None:
    alpha = {"kind": "constant" if end is None else "cosine", "start": start, "end": end}
    objective = Objective.model_validate({"alpha": alpha, "keep": keep, "features": [{"kind": "hidden"}] * features})
    done = min(done, steps)
    turns = Turns(tuple(sizes), tuple(lengths[: len(sizes)]) if lengths else ())
    asked = [teachers_asked(objective, turns, seed, step, steps) if sizes else [] for step in range(done)]
    assert steps_asked(objective, turns, seed, steps, done) == tuple(sum(i in some for some in asked) for i in range(sum(sizes)))
    assert all(step in turns.spans(steps)[model] for step, some in enumerate(asked) for model in some)
    if turns.shares:
        groups = [set(range(sum(sizes[:place]), sum(sizes[: place + 1]))) for place in range(len(sizes))]
        assert all(set(some) in groups for some in asked if some), "one teacher at a time, with all its members"


def test_teachers_hand_over_once_the_first_one_first() -> None:
    objective = Objective()
    turns = [teachers_asked(objective, Turns((1, 2, 1), (1.0, 2.0, 1.0)), 0, step, 8) for step in range(8)]
    assert turns == [[0], [0], [1, 2], [1, 2], [1, 2], [1, 2], [3], [3]]
    short = [teachers_asked(objective, Turns((1, 1, 1), (1.0, 1.0, 1.0)), 0, step, 2) for step in range(2)]
    assert short == [[0], [2]], "fewer steps than teachers"
