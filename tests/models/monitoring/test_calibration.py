"""Accuracy estimated without labels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from models.monitoring.calibration import confidences, fit_temperature


def overconfident(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that claim three times the logits that the labels were drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.2, (rows, 4))
    target = np.array([rng.choice(4, p=p) for p in special.softmax(logits, axis=1)])
    return special.softmax(3 * logits, axis=1), target


def test_the_temperature_of_an_overconfident_model_is_found() -> None:
    probabilities, target = overconfident(4000, 0)
    temperature = fit_temperature(probabilities, target)
    assert temperature == pytest.approx(3.0, rel=0.1)
    accuracy = (probabilities.argmax(axis=1) == target).mean()
    assert probabilities.max(axis=1).mean() - accuracy > 0.1
    assert confidences(probabilities, temperature).mean() == pytest.approx(accuracy, abs=0.02)


def test_certain_answers_have_finite_figures() -> None:
    probabilities, target = np.array([[1.0, 0.0], [0.0, 1.0]] * 20), np.array([0, 1] * 20)
    assert np.isfinite(confidences(probabilities, fit_temperature(probabilities, target))).all()
