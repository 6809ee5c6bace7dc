"""The parameters of the flows: their types make the forms of the Prefect UI, and what a form refuses the API refuses in the same words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from conf.home import home
from conf.loading.load import Loaded, load, load_whole, shipped
from conf.schema.ladder import STAGE_NAME_PATTERN, Ladder

LadderChoice = Annotated[
    str,
    Field(
        min_length=1,
        json_schema_extra={
            "anyOf": [
                {"title": "shipped", "type": "string", "enum": list(shipped())},
                {"title": "path of a YAML file", "type": "string", "pattern": r"\.ya?ml$"},
            ]
        },
    ),
]
Override = Annotated[str, Field(pattern=r"^\s*[^=\s]+\s*=")]
Overrides = tuple[Override, ...]
StageName = Annotated[str, Field(pattern=STAGE_NAME_PATTERN)]
# Empty text and -1 stand for "none": a field that may also be null is refused by a form with no reason but that nothing fits.
OptionalStage = Annotated[str, Field(pattern=rf"^$|{STAGE_NAME_PATTERN}")]
TeacherNames = tuple[Annotated[str, Field(min_length=1)], ...]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
OptionalRun = Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
OptionalBudget = Annotated[str, Field(pattern=r"^$|^[0-9]{1,6}[smhd]$")]
OptionalSeed = Annotated[int, Field(ge=-1, lt=2**31)]


def chosen(ladder: str, whole: Ladder | None, overrides: Sequence[str], seed: int, served: bool) -> tuple[Loaded, tuple[str, ...]]:
    """The ladder that the parameters of a run ask for, and all its overrides, the seed's among them.

    Args:
        ladder: Name or path; not looked at when `whole` is given.
        whole: A ladder given in full.
        overrides: `key=value`.
        seed: Over the ladder's own; -1: the ladder's own.
        served: Whether the parameters come from a server, not from the machine's own command line: their paths are confined.

    Raises:
        UserError: Something is wrong with them.
    """
    given = tuple(text for text in overrides if text.strip()) + ((f"seed={seed}",) if seed >= 0 else ())
    if not served:
        return load(ladder, given) if whole is None else load_whole(whole, given), given
    from conf.path_policy import check_source, confine

    allowed = roots()
    if whole is None:
        check_source(ladder, allowed)
    loaded = load(ladder, given) if whole is None else load_whole(whole, given)
    confine(ladder, loaded.ladder, loaded.base, allowed)
    return loaded, given


def budgeted(loaded: Loaded, given: tuple[str, ...], budget: str) -> tuple[Loaded, tuple[str, ...], str | None]:
    """A ladder shortened to a budget, the overrides that did it among the others, and what was done in words; as it was without one.

    Raises:
        UserError: The budget is no time, or too short.
    """
    if not budget:
        return loaded, given, None
    from tasks.planning.budget import fit_budget
    from tasks.runtime.logs import log

    found = fit_budget(loaded, budget, home())
    log.info("budget %s", found.words)
    return load_whole(loaded.ladder, found.overrides)._replace(base=loaded.base), (*given, *found.overrides), found.words


def refuse_early(loaded: Loaded, start_at: str | None, fresh: bool, proof: bool = False) -> None:
    """Refuse what can be known to be wrong before anything is recorded or computed.

    Raises:
        UserError: A stage is larger than its teacher, `start_at` names no stage, or an arm of a proof is named that cannot be.
    """
    if proof:
        from tasks.proof.arms import refuse

        for arm in loaded.ladder.proof.arms:
            refuse(arm, loaded.ladder)
    from tasks.runtime.run_registry import Context, all_runs
    from tasks.training.identity import settings_hash

    # What ran to its end passed this check, which takes seconds; a checkpoint may be another one by now.
    marks = [settings_hash(loaded.ladder, proof) for proof in (False, True)]
    done = any(record.settings_hash in marks and record.status == "done" for record in all_runs(home()))
    if done and loaded.ladder.teacher.source == "train" and start_at is None:
        return
    from tasks.planning.preflight import check_ladder

    context = Context(run="", ladder=loaded.ladder.name, home=str(home().root), base=str(loaded.base), start_at=start_at, fresh=fresh)
    check_ladder(loaded.ladder, context)
    if proof:
        from tasks.proof.proof import refuse_unfit

        refuse_unfit(loaded.ladder, context)


def roots() -> list[Path]:
    """Folders that path parameters of served runs may lie in: `LADDER_ROOTS`, else the working directory and the home."""
    text = os.environ.get("LADDER_ROOTS")
    return [Path(part).absolute() for part in text.split(os.pathsep) if part] if text else [Path.cwd(), home().root]
