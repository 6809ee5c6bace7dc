"""A request for a run, and the same request with its ladder loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from conf.errors import UserError
from conf.loading.introspect import suggest
from conf.schema.ladder import Ladder
from tasks.records.run import Kind, RunRecord, StageRecord
from tasks.tracking.runs import user
from tasks.training.teaching import member_name

RUN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # that a person gives; a folder is named by it
NOTE_LENGTH, PERSON_LENGTH = 1000, 100  # characters


@dataclass(frozen=True)
class RunRequest:
    """A request for a run by a person or a deployment.

    Attributes:
        source: Name of a shipped ladder, or path of a YAML file; not read where `inline_ladder` is given.
        overrides: Settings to change, `key=value` with dotted keys.
        start_at: First stage that may be computed; None: any.
        fresh: Whether to compute anew, from `start_at` on, even results that are stored.
        seed: Seed of data order and first weights; None: the ladder's own.
        budget: Wall-clock time such as `5m`, to which the ladder is shortened; None: no limit.
        only: The one stage to make; None: the whole ladder.
        teachers: Names of the finished models that teach `only`, the nearest first; none: all that stand above it.
        inline_ladder: A ladder given in full.
        repeats: Name of the run that this one repeats.
        name: Name that a person gives the run; None: one is made.
        note: Why it is made, for the record.
        by: Who asks for it, for the record.
        proof: Whether the ladder is compared with its control arms.
        search: Whether better settings of its stages are searched.
        served: Whether a deployment asks: its parameters come from a server, and their paths are confined.
    """

    source: str
    overrides: tuple[str, ...] = ()
    start_at: str | None = None
    fresh: bool = False
    seed: int | None = None
    budget: str | None = None
    only: str | None = None
    teachers: tuple[str, ...] = ()
    inline_ladder: Ladder | None = None
    repeats: str | None = None
    name: str | None = None
    note: str | None = None
    by: str | None = None
    proof: bool = False
    search: bool = False
    served: bool = False

    @property
    def kind(self) -> Kind:
        """Kind of the request: a whole ladder, one stage of it, a proof, or a search."""
        return "proof" if self.proof else "search" if self.search else "stage" if self.only else "ladder"


@dataclass(frozen=True)
class ResolvedRequest:
    """A request and its ladder.

    Attributes:
        request: The request.
        ladder: Its ladder, with every override applied.
        base: Folder that relative paths of the ladder count from.
        overrides: All overrides applied, those of the seed and of the budget among them.
        shortened: How the budget has shortened the ladder, in words.
        teachers: The models that teach the one stage, the root first; none: the ladder's own.
    """

    request: RunRequest
    ladder: Ladder
    base: Path
    overrides: tuple[str, ...]
    shortened: str | None = None
    teachers: tuple[StageRecord, ...] = ()

    @property
    def recorded_source(self) -> str:
        """The ladder's name or path; of an inline ladder its name."""
        return self.request.source if self.request.inline_ladder is None else self.ladder.name

    @property
    def recorded_overrides(self) -> tuple[str, ...]:
        """The overrides of the source; none for an inline ladder, which is recorded with them applied."""
        return self.overrides if self.request.inline_ladder is None else ()

    def is_like(self, record: RunRecord) -> bool:
        """Whether an earlier run had the same parameters; the ladder's file may have changed since."""
        return self._asked == (record.source, record.kind, record.only, _values(record.overrides), record.start_at, record.fresh)

    @property
    def _asked(self) -> tuple[object, ...]:
        request = self.request
        return (
            self.recorded_source,
            request.kind,
            request.only,
            _values(self.recorded_overrides),
            request.start_at,
            request.fresh,
        )


def _values(overrides: Iterable[str]) -> dict[str, str]:
    parts = (text.partition("=") for text in overrides)
    return {key: value for key, _, value in parts}


class Naming(TypedDict):
    """Name, note and author of a request."""

    name: str | None
    note: str | None
    by: str | None


def naming(name: str | None, note: str | None, by: str | None) -> Naming:
    """Name, note and author of a command line, as parts of a request.

    Raises:
        UserError: The name is no name of a folder, or a text is too long.
    """
    if name and not re.fullmatch(RUN_NAME, name):
        allowed = "letters, digits, '.', '_' and '-', a letter or digit first, at most 64"
        raise UserError.about("--name", name, allowed, "It names the run's folder; a sentence goes into --note.")
    for option, text, most in (("--note", note, NOTE_LENGTH), ("--by", by, PERSON_LENGTH)):
        if text and len(text) > most:
            raise UserError.about(option, f"{text[:40]}...", f"at most {most} characters", f"It has {len(text)}.")
    return {"name": name or None, "note": note or None, "by": by or user()}


def kept_before(ladder: Ladder, start_at: str | None) -> tuple[str, ...]:
    """Names of the models before `start_at`, the teacher and the members of rungs among them.

    Raises:
        UserError: No stage has that name.
    """
    if start_at is None:
        return ()
    names = [stage.name for stage in ladder.stages]
    if start_at not in names:
        raise UserError.about("--start-at", start_at, f"a stage of this ladder: {', '.join(names)}", suggest(start_at, names).strip())
    above = ladder.stages[: names.index(start_at)]
    return ("teacher", *(member_name(stage.name, member) for stage in above for member in range(stage.members)))
