"""Durations that environment variables set."""

from __future__ import annotations

import os

from conf.errors import UserError

MOST_SECONDS = 86400.0  # a day


def seconds_of(variable: str, default: float) -> float:
    """Seconds that an environment variable sets; `default` where it is unset or empty.

    Raises:
        UserError: It is no number of seconds from 0 to a day.
    """
    given = os.environ.get(variable) or str(default)
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise UserError.about(variable, given, f"seconds from 0 to {MOST_SECONDS:.0f}", f"Unset it for {default:.0f}.")
    return seconds
