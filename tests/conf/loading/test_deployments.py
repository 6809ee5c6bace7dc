"""The file of deployments: the shipped one is valid; mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from conf.errors import UserError
from conf.loading.deployments import Deployments, Timetable, load_deployments


def offered(schedules: str, more: str = "") -> str:
    return f"deployments: [{{name: a, flow: distill, schedules: [{schedules}]{more}}}]"


def test_what_is_shipped_trains_nothing_unasked():
    found = load_deployments()
    others = [(name, name) for name in ("stage", "search", "prove", "report", "compare", "export", "redistill", "promote", "monitor")]
    names = [(deployment.flow, deployment.name) for deployment in found.deployments]
    assert names == [("distill", "distill"), ("distill", "scheduled"), *others]
    schedules = [schedule for deployment in found.deployments for schedule in deployment.schedules]
    assert {kind for s in schedules for kind in ("cron", "interval", "rrule") if getattr(s, kind) is not None} == {
        "cron",
        "interval",
        "rrule",
    }
    assert not any(schedule.active for schedule in schedules)


@pytest.mark.parametrize(("text", "seconds"), [(1.5, 1.5), ("45", 45), ("45s", 45), ("30m", 1800), ("6h", 21600), ("2 d", 172800)])
def test_an_interval_is_seconds_or_has_a_unit(text: object, seconds: float):
    assert Timetable.model_validate({"slug": "x", "interval": text}).interval == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit: 0\ndeployments: [{name: a, flow: stage}]", "limit: got 0; allowed: a whole number in [1, 256]"),
        ("limit: 1", "deployments: missing"),
        ("deployments: []", "deployments: got []; allowed: a list of settings, not empty"),
        ("deployments: [{name: a, flow: stage}, {name: a, flow: stage}]", "deployments: got stage/a more than once"),
        ("deployments: [{name: A b, flow: stage}]", "deployments[0].name: got 'A b'; allowed: 1 to 64 lower-case letters"),
        ("deployments: [{name: a, flow: stage, concurrency_limit: 0}]", "deployments[0].concurrency_limit: got 0; allowed: a whole number"),
        ("deployments: [{name: a, flow: stage, tag: [x]}]", "deployments[0].tag: unknown key, with the value ['x']; allowed: name, flow"),
        (offered("{slug: x}"), "deployments[0].schedules[0]: got none of them; allowed: exactly one of cron, interval and rrule"),
        (offered("{slug: x, cron: 0 2 * * *, interval: 3}"), "deployments[0].schedules[0]: got cron and interval; allowed: exactly one"),
        (
            offered("{slug: x, interval: 3x}"),
            "deployments[0].schedules[0].interval: got '3x'; allowed: a number of seconds, or",
        ),
        (offered("{slug: x, interval: true}"), "deployments[0].schedules[0].interval: got True; allowed: a number of seconds"),
        (offered("{slug: x, interval: 11000d}"), "interval: got 950400000.0; allowed: a number of seconds"),
        (offered("{slug: x, interval: 0}"), "deployments[0].schedules[0].interval: got 0; allowed: a number of seconds"),
        (offered("{slug: x, interval: 3, timezone: Europe/Berlinn}"), "timezone: got 'Europe/Berlinn'; allowed: an IANA time zone"),
        (offered("{slug: x, interval: 3, timezone: ../../etc/passwd}"), "timezone: got '../../etc/passwd'; allowed: an IANA time zone"),
        (offered("{slug: x, interval: 3}, {slug: x, interval: 4}"), "deployments[0]: got schedules with the same slug x; allowed"),
        (
            offered("{slug: x, cron: 0 0 2 * * *}"),
            "cron: got '0 0 2 * * *'; allowed: five fields (minute, hour, day, month, day of the week), or",
        ),
        (offered("{slug: x, cron: 0 0 2 * * *}"), "Leave out the seconds: 0 2 * * *."),
        (offered("{slug: x, cron: 0 2 * *}"), "cron: got '0 2 * *'; allowed: five fields"),
        (offered("{slug: x, cron: '@dayly'}"), "cron: got '@dayly'; allowed: five fields"),
        (offered("{slug: x, cron: '@dayly'}"), "Did you mean '@daily'?"),
        (offered("{slug: x, rrule: BYDAY=SA}"), "rrule: got 'BYDAY=SA'; allowed: a rule with FREQ"),
        (
            offered("{slug: x, rrule: FREQ=DAILY;INTERVAL=0}"),
            "rrule: got 'FREQ=DAILY;INTERVAL=0'; allowed: a rule with FREQ, and an INTERVAL",
        ),
        (
            "deployments:\n  - name: a\n    flow: stage\n    tags: [x]\n    tags: [y]",
            "deployments[0].tags: got 'a key that is written twice, in lines 4 and 5 of ",
        ),
        (offered("{slug: x, interval: 3, slug: y}"), "deployments[0].schedules[0].slug: got 'a key that is written twice"),
        (offered("", ", parameters: {ladder: digitss}"), "deployments[0].parameters: ladder: got 'digitss'; allowed: a shipped ladder"),
        (
            offered("{slug: x, interval: 3, parameters: {overrides: [seed=-1]}}", ", parameters: {ladder: digits}"),
            "deployments[0].schedules[0].parameters: seed: got -1; allowed: a whole number",
        ),
        ("- name: a", "--deployments: got "),
        ("deployments: [", "--deployments: got "),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "deployments.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load_deployments(path)
    assert message in str(refused.value)
    assert str(refused.value).count("\n") == 0


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"--deployments: got '.*missing.yaml'; allowed: a readable YAML file"):
        load_deployments(tmp_path / "missing.yaml")


def test_it_is_frozen():
    found = load_deployments()
    assert isinstance(found, Deployments)
    with pytest.raises(ValidationError, match="frozen"):
        found.limit = 5  # pyright: ignore[reportAttributeAccessIssue]
