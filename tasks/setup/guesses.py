"""A draft of settings, each with its reason, and questions left open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Question(NamedTuple):
    """A question with several possible answers, the likeliest first.

    Attributes:
        key: Setting that it decides.
        text: The question.
        choices: The answers, each with the reason for it.
    """

    key: str
    text: str
    choices: tuple[tuple[str, str], ...]


Ask = Callable[[Question], str]


@dataclass
class Draft:
    """Settings of a ladder in the short form, each with the reason for it.

    Attributes:
        settings: As YAML holds them.
        reasons: Dotted key -> reason.
        warnings: Points that a person has to decide or correct.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
