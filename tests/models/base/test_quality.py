"""When a model has learned nothing."""

import pytest

from models.base.quality import baseline_figures, learned_nothing

CLASSES = {"baseline_accuracy": 0.6, "baseline_nll": 0.67, "baseline_macro_f1": 0.375}
TEXT = {"baseline_nll": 3.2, "baseline_bits_per_byte": 4.6, "baseline_accuracy": 0.15}


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({"accuracy": 0.9, "nll": 0.3, "distinct_answers": 2.0, **CLASSES}, None),
        (
            {"accuracy": 0.6, "nll": 0.7, "distinct_answers": 1.0, **CLASSES},
            "it gives the same class for every input (majority class 60.0 %)",
        ),
        ({"accuracy": 0.6, "nll": 0.7, "distinct_answers": 2.0, **CLASSES}, "it is no better than the majority class (60.0 %)"),
        ({"accuracy": 0.6, "nll": 0.5, "distinct_answers": 2.0, **CLASSES}, None),  # it knows how sure to be
        ({"accuracy": 0.7, "nll": 0.9, "distinct_answers": 2.0, **CLASSES}, None),
        ({"bits_per_byte": 2.0, "nll": 1.4, "accuracy": 0.5, **TEXT}, None),
        ({"bits_per_byte": 4.7, "nll": 3.3, "accuracy": 0.2, **TEXT}, "it is no better than unigram frequencies (4.600 bits/byte)"),
        ({"accuracy": 0.1, "nll": 9.0}, None),  # of an older version, without a baseline
    ],
)
def test_a_model_has_learned_nothing_where_a_guess_does_as_well(figures: dict[str, float], why: str | None) -> None:
    assert learned_nothing(figures) == why


def test_the_baselines_figures_have_the_names_of_a_models() -> None:
    assert baseline_figures({"nll": 1.0, **TEXT}) == {"nll": 3.2, "bits_per_byte": 4.6, "accuracy": 0.15}
