"""Weights of classes in the cross-entropy: balanced, or given by name."""

from __future__ import annotations

from collections.abc import Sequence

from conf.errors import UserError
from conf.schema.stage.objective import CLASS_WEIGHTS, ClassWeights


def weights_of(setting: ClassWeights, names: Sequence[str], counts: Sequence[int], key: str) -> tuple[float, ...] | None:
    """The weight of each class; None: all alike.

    `balanced` is `rows / (classes * rows of the class)`, as scikit-learn's `class_weight` of that name; a class without a training row has
    the weight 1, which no row uses.

    Args:
        setting: As in the ladder.
        names: Of the classes, by number.
        counts: Labelled training rows of each class.
        key: Dotted key of the setting.

    Raises:
        UserError: A name that no class has.
    """
    if isinstance(setting, dict):
        unknown = [name for name in setting if name not in names]
        if unknown:
            shown = f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
            remedy = f"The classes of the data are: {shown}. Name one of them."
            raise UserError.about(f"{key}.class_weights", ", ".join(unknown), CLASS_WEIGHTS, remedy)
        return tuple(setting.get(name, 1.0) for name in names)
    if setting == "none":
        return None
    rows = sum(counts)
    return tuple(rows / (len(names) * count) if count else 1.0 for count in counts)
