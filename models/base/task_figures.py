"""A model's figures in a task of lm-eval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskFigures:
    """Figures of a model in a task of lm-eval.

    Attributes:
        metrics: By lm-eval's name, with its filter where that is not `none`: `acc`, `exact_match,strict`.
        errors: Standard errors of those that have one.
        main: Name of the figure that models are compared by.
        higher: Whether more of it is better.
        examples: Judged.
    """

    metrics: dict[str, float]
    errors: dict[str, float]
    main: str
    higher: bool
    examples: int
