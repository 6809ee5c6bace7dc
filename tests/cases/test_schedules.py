"""Timetables: a daily schedule starts one run a day, also where the clock changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from conf.loading.deployments import Timetable
from flows.serving.deployments import schedule_of

CHANGES = [("Europe/Berlin", (2026, 3, 29)), ("Europe/Berlin", (2026, 10, 25)), ("America/New_York", (2026, 11, 1))]
DAYS = 4


def starts(timetable: Timetable, first: datetime) -> set[datetime]:
    """Every time at which Prefect's server starts a run, asked every few hours for what comes next, as its scheduler asks."""
    from prefect.server.schemas import schedules

    made = schedule_of(timetable)
    served = getattr(schedules, type(made).__name__)(**made.model_dump())
    hours = [first + timedelta(hours=hour) for hour in range(0, 24 * DAYS, 5)]
    found = [asyncio.run(served.get_dates(start=hour, end=first + timedelta(days=DAYS))) for hour in hours]
    return {each.astimezone(UTC) for dates in found for each in dates}


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize(
    "kind",
    [{"cron": "30 2 * * *"}, {"cron": "0 3 * * *"}, {"cron": "@daily"}, {"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0"}],
    ids=lambda kind: next(iter(kind.values())),
)
def test_once_a_day_through_both_changes_of_the_clock(zone: str, day: tuple[int, int, int], kind: dict[str, str]) -> None:
    first = datetime(*day, tzinfo=ZoneInfo(zone)) - timedelta(days=1)
    fired = starts(Timetable.model_validate({"slug": "daily", "timezone": zone, **kind}), first)
    a_day = Counter(each.astimezone(ZoneInfo(zone)).date() for each in fired if each < first + timedelta(days=3))
    assert list(a_day.values()) == [1, 1, 1]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_an_interval_of_a_day_is_24_hours_in_every_zone(zone: str, day: tuple[int, int, int]) -> None:
    first = datetime(*day, tzinfo=ZoneInfo(zone)) - timedelta(days=1)
    fired = sorted(starts(Timetable(slug="daily", timezone=zone, interval=86400), first))
    assert {(later - earlier).total_seconds() for earlier, later in pairwise(fired)} == {86400}
