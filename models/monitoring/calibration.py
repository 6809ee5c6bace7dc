"""Accuracy without labels, estimated by confidences that were calibrated.

A temperature is fitted where labels are known (Guo et al. 2017, arXiv:1706.04599); the mean of the calibrated confidences then estimates
the accuracy elsewhere. It does not see when the right answers to the same inputs change.

Shapes: n rows, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST = 1e-12  # probability
RANGE = (0.05, 20.0)  # of temperatures


def fit_temperature(probabilities: Floats, target: NDArray[np.int64]) -> float:
    """The temperature that minimises the nll of labels: above 1 where the model is overconfident.

    Args:
        probabilities: (n, C).
        target: (n,) classes.
    """
    from scipy import optimize, special

    log_p = np.log(np.maximum(probabilities, LEAST))
    rows = np.arange(len(target))

    def nll(log_temperature: float) -> float:
        return -float(special.log_softmax(log_p / np.exp(log_temperature), axis=-1)[rows, target].mean())

    found = optimize.minimize_scalar(nll, bounds=(np.log(RANGE[0]), np.log(RANGE[1])), method="bounded")
    return float(np.exp(found.x))


def confidences(probabilities: Floats, temperature: float) -> Floats:
    """Calibrated probability of each row's answer, (n,)."""
    from scipy import special

    return special.softmax(np.log(np.maximum(probabilities, LEAST)) / temperature, axis=-1).max(axis=-1)
