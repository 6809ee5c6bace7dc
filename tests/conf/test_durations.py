"""Durations that environment variables set."""

from __future__ import annotations

import pytest

from conf.durations import seconds_of
from conf.errors import UserError


def test_a_number_of_seconds_or_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, expected in {"": 300.0, "0": 0.0, "1.5": 1.5, "86400": 86400.0}.items():
        monkeypatch.setenv("LADDER_SOME", given)
        assert seconds_of("LADDER_SOME", 300) == expected
    monkeypatch.delenv("LADDER_SOME")
    assert seconds_of("LADDER_SOME", 300) == 300
    for wrong in ("5m", "-1", "nan", "86401"):
        monkeypatch.setenv("LADDER_SOME", wrong)
        with pytest.raises(UserError, match=r"LADDER_SOME: got '.*'; allowed: seconds from 0 to 86400. Unset it for 300\."):
            seconds_of("LADDER_SOME", 300)
