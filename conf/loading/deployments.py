"""Deployments of `ladder serve` and `ladder deploy`, read from YAML and checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import ValidationError, field_validator, model_validator

from conf.errors import UserError, foreign_errors
from conf.loading.introspect import allowed, class_at, field_at, mapping_of, options, suggest
from conf.loading.load import load
from conf.loading.yaml_text import read_yaml_text
from conf.schema.base import Settings, setting
from conf.schema.ladder import LADDER_NAME

SHIPPED = Path(__file__).parents[1] / "deployments.yaml"
CRON_WORDS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
NAME = "^[a-z0-9][a-z0-9-]{0,63}$"
FlowName = Literal["distill", "stage", "search", "prove", "report", "compare", "export", "monitor", "redistill", "promote"]
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
INTERVAL = "a number of seconds, or a number with s, m, h or d such as 30m or 6h; at least 1 second, at most ten years"
LONGEST = 10 * 366 * 86400.0


class Timetable(Settings):
    """Schedule of a deployment: exactly one of `cron`, `interval` and `rrule`."""

    slug: str = setting(..., "Name of the schedule, its identity on the server", allowed=LADDER_NAME, pattern=NAME)
    cron: str | None = setting(None, "Cron expression: minute, hour, day, month, day of the week", allowed="text such as 0 2 * * *")
    interval: float | None = setting(None, "Time from one start to the next", "seconds", allowed=INTERVAL, ge=1, le=LONGEST)
    rrule: str | None = setting(None, "Recurrence rule of iCalendar (RFC 5545)", allowed="text such as FREQ=WEEKLY;BYDAY=SA;BYHOUR=6")
    timezone: str = setting(
        "UTC",
        "Time zone of cron and rrule; an interval counts hours that pass",
        "IANA name",
        allowed="an IANA time zone such as Europe/Berlin",
    )
    active: bool = setting(True, "Whether it starts runs; a paused schedule can be switched on in the UI")
    parameters: dict[str, Any] = setting({}, "Parameters of its runs, over those of the deployment", allowed="a mapping of flow parameters")

    @field_validator("interval", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value.strip()) if isinstance(value, str) else None
        return float(match[1]) * SECONDS[match[2]] if match else value

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        """Refuse seconds, which Prefect would read from the end, as a sixth field."""
        fields = (value or "").split()
        if value is None or len(fields) == 5 or value.strip() in CRON_WORDS:
            return value
        shorter = f"Leave out the seconds: {' '.join(fields[1:])}." if len(fields) == 6 else suggest(value.strip(), CRON_WORDS)
        allowed = f"five fields (minute, hour, day, month, day of the week), or one of {', '.join(CRON_WORDS)}"
        raise ValueError(f"got {value!r}; allowed: {allowed}. {shorter}".strip())

    @field_validator("rrule")
    @classmethod
    def _repeats(cls, value: str | None) -> str | None:
        """Refuse rules at which the parser raises its own errors, or searches for ever."""
        if value is not None and (not re.search(r"\bFREQ=", value, re.I) or re.search(r"\bINTERVAL=0*(;|$)", value, re.I | re.M)):
            raise ValueError(f"got {value!r}; allowed: a rule with FREQ, and an INTERVAL of at least 1, such as FREQ=WEEKLY;BYDAY=SA.")
        return value

    @field_validator("timezone")
    @classmethod
    def _exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):  # for unknown, malformed and forbidden names
            hint = suggest(value, available_timezones())
            raise ValueError(f"got {value!r}; allowed: an IANA time zone such as Europe/Berlin. {hint}".strip()) from None
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Timetable:
        given = [kind for kind in ("cron", "interval", "rrule") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"got {' and '.join(given) or 'none of them'}; allowed: exactly one of cron, interval and rrule.")
        return self


class Deployment(Settings):
    """A flow that can be started in the UI, over the API and by schedules."""

    name: str = setting(..., "Name of the deployment", allowed=LADDER_NAME, pattern=NAME)
    flow: FlowName = setting(
        ...,
        "Flow: `distill`, a whole ladder; `stage`, one stage from named teachers; `prove`, a ladder and its arms; "
        "`report` and `compare`, pages; `export`, a student in other formats; `monitor`, the windows of promoted models; "
        "`redistill`, a promoted ladder with its windows; "
        "`promote`, a challenger against the champion",
    )
    description: str | None = setting(None, "Shown in the UI; none: the flow's own description")
    parameters: dict[str, Any] = setting(
        {}, "Parameters of its runs, below those of a form or a schedule", allowed="a mapping of flow parameters"
    )
    tags: tuple[str, ...] = setting((), "Tags of its runs")
    concurrency_limit: int | None = setting(None, "Its runs at the same time. None: no limit", "runs", ge=1, le=10_000)
    beyond_limit: Literal["wait", "skip"] = setting(
        "wait", "A run beyond `concurrency_limit` waits, or is skipped (Cancelled), which suits a schedule that is shorter than its run"
    )
    schedules: tuple[Timetable, ...] = setting((), "Times at which it runs by itself")

    @model_validator(mode="after")
    def _different_slugs(self) -> Deployment:
        slugs = [schedule.slug for schedule in self.schedules]
        if twice := sorted({slug for slug in slugs if slugs.count(slug) > 1}):
            raise ValueError(f"got schedules with the same slug {', '.join(twice)}; allowed: a different slug for each.")
        return self

    @model_validator(mode="after")
    def _skips_beyond_a_limit(self) -> Deployment:
        if self.beyond_limit == "skip" and self.concurrency_limit is None:
            raise ValueError("got beyond_limit: skip without concurrency_limit; allowed: both. For instance concurrency_limit: 1.")
        return self


class Deployments(Settings):
    """The deployments of one file."""

    # Small: each run is a process of its own; not 1: a run that waits for another training holds its place.
    limit: int = setting(
        4, "Flow runs at the same time in the serving process, those apart that wait for a person; further ones wait", "runs", ge=1, le=256
    )
    deployments: tuple[Deployment, ...] = setting(..., "The deployments", min_length=1)

    @model_validator(mode="after")
    def _different_names(self) -> Deployments:
        names = [f"{offered.flow}/{offered.name}" for offered in self.deployments]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"got {', '.join(twice)} more than once; allowed: a different name for each deployment of a flow.")
        return self


def load_deployments(path: Path | None = None) -> Deployments:
    """Read a file of deployments.

    Args:
        path: The file; None: the shipped one.

    Raises:
        UserError: It cannot be read or parsed, or a setting in it is wrong.
    """
    path = path or SHIPPED
    example = f"{SHIPPED} is an example."
    text = read_yaml_text(path, "--deployments", example)
    with foreign_errors("--deployments", str(path), "a readable YAML file of deployments", example, "PyYAML"):
        plain = yaml.safe_load(text)
    if not isinstance(plain, dict):
        raise UserError.about("--deployments", str(path), mapping_of([Deployments]), f"{SHIPPED} is an example.")
    try:
        deployments = Deployments.model_validate(plain)
    except ValidationError as error:
        details = [dict(detail) for detail in error.errors()]
        # A list without a valid item also counts as empty; the items' own mistakes suffice.
        wanted = [d for d in details if not (d["type"] == "too_short" and d["input"] and len(details) > 1)]
        raise UserError("\n".join(dict.fromkeys(_line(detail, plain, path) for detail in wanted))) from None
    for i, offered in enumerate(deployments.deployments):
        _check_ladders(offered, f"deployments[{i}]")
    return deployments


def _check_ladders(offered: Deployment, key: str) -> None:
    """Load every ladder that is named, so that a mistake shows now and not when a schedule fires."""
    own = [(f"{key}.schedules[{j}].parameters", schedule.parameters) for j, schedule in enumerate(offered.schedules)]
    for place, parameters in [(f"{key}.parameters", {}), *own]:
        merged = {**offered.parameters, **parameters}
        ladder, overrides = merged.get("ladder"), merged.get("overrides") or ()
        if isinstance(ladder, str) and isinstance(overrides, list | tuple) and all(isinstance(text, str) for text in overrides):
            try:
                load(ladder, overrides)
            except UserError as error:
                raise UserError(f"{place}: {error}") from None


def _line(detail: dict[str, Any], plain: dict[str, Any], path: Path) -> str:
    parts, kind, value = list(detail["loc"]), detail["type"], repr(detail["input"])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    remedy = f"Correct {path}."
    if kind == "extra_forbidden":
        model = class_at(Deployments, parts[:-1], plain)
        names = list(model.model_fields) if model else []
        return f"{key}: unknown key, with the value {value}; allowed: {', '.join(names)}. {suggest(str(parts[-1]), names)}{remedy}"
    if kind == "value_error":
        return f"{key or 'deployments'}: {str(detail['msg']).removeprefix('Value error, ')} {remedy}"
    field = field_at(Deployments, parts, plain)
    words = allowed(field) if field else mapping_of([Deployments])
    if isinstance(parts[-1], int) and (model := class_at(Deployments, parts, plain)):
        words = mapping_of([model])
    if kind == "missing":
        return f"{key}: missing, and it has no default; allowed: {words}. {remedy}"
    hint = suggest(str(detail["input"]), options(field.annotation) if field else ())
    return f"{key}: got {value if len(value) < 100 else value[:97] + '...'}; allowed: {words}. {hint}{remedy}"
