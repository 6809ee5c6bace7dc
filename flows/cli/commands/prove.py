"""`ladder prove`: compare a ladder with its control arms over several seeds."""

from __future__ import annotations

from typing import Annotated

import typer

from conf.errors import UserError
from flows.cli.arguments import Budget, By, Fresh, LadderName, Name, Note, Overrides, Seed

Arms = Annotated[str | None, typer.Option("--arms", metavar="NAMES", help="Arms, separated by commas; none: all that the ladder can have.")]
Seeds = Annotated[int | None, typer.Option("--seeds", metavar="N", help="Replicates of each arm; none: the ladder's own number.")]
Pilot = Annotated[bool, typer.Option("--pilot", help="A tenth of every student's steps, for a first look.")]


def prove(
    ladder: LadderName,
    overrides: Overrides = None,
    arms: Arms = None,
    seeds: Seeds = None,
    budget: Budget = None,
    pilot: Pilot = False,
    fresh: Fresh = False,
    seed: Seed = None,
    name: Name = None,
    note: Note = None,
    by: By = None,
) -> None:
    """Compare a ladder with its control arms over several seeds: was it worth it?"""
    from conf.schema.measures.proof import ARMS
    from flows.cli.launch import launch
    from tasks.lifecycle.request import RunRequest, naming

    if arms is not None and not arms.strip(", "):
        raise UserError.about("--arms", arms, f"arms separated by commas: {', '.join(ARMS)}", "Leave --arms out for all that can be.")
    given = list(overrides or [])
    given += [f"proof.arms=[{arms}]"] if arms is not None else []
    given += [f"proof.seeds={seeds}"] if seeds is not None else []
    given += ["proof.pilot=true"] if pilot else []
    launch(RunRequest(ladder, tuple(given), fresh=fresh, seed=seed, budget=budget or None, proof=True, **naming(name, note, by)))
