"""`ladder list`, `explain` and `doctor`: shipped ladders, settings, the machine."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.arguments import Json, Overrides
from flows.cli.printing import begin, show


def list_ladders(as_json: Json = False) -> None:
    """List the shipped ladders."""
    from conf.loading.load import load, shipped

    ladders = [load(name).ladder for name in shipped()]
    rows = [{"name": x.name, "workload": x.workload, "stages": [s.name for s in x.stages], "description": x.description} for x in ladders]
    show(rows, as_json, lambda: "\n".join(f"{r['name']:<16}{r['workload']:<24}{r['description']}" for r in rows))


def explain(
    key: Annotated[
        str,
        typer.Argument(
            metavar="[KEY|LADDER]",
            help="Dotted key, such as stages.objective.alpha; or a ladder, to see it in full; none: the whole schema.",
        ),
    ] = "",
    overrides: Overrides = None,
) -> None:
    """Describe a setting: meaning, unit, type, bounds, default; or print a ladder with every short form written out."""
    from conf.loading.explain import explain_key
    from conf.loading.load import load, shipped, to_yaml

    if key not in shipped() and not key.endswith((".yaml", ".yml")):
        typer.echo(explain_key(key))
        return
    loaded = load(key, overrides or [])
    from flows.serving.environment import go_offline

    go_offline()
    from conf.home import home
    from tasks.planning.students import settle_students, settled_notes
    from tasks.runtime.run_registry import PLAN, Context

    settled = settle_students(loaded.ladder, Context(run=PLAN, ladder=loaded.ladder.name, home=str(home().root), base=str(loaded.base)))
    for note in settled_notes(loaded.ladder, settled):
        typer.echo(f"# {note}")
    typer.echo(to_yaml(settled), nl=False)


def doctor(as_json: Json = False) -> None:
    """Check Python, PyTorch, the store, the disk, Prefect and MLflow."""
    begin("checking Python, PyTorch, the store, the disk, Prefect and MLflow")
    from conf.home import home
    from flows.cli.doctor import examine

    checks = examine(home())
    verdicts = {True: "ok  ", False: "FAIL"}
    lines = [f"{verdicts[c.ok]}  {c.name:<9} {c.found}" + (f"\n      {'':<9} remedy: {c.remedy}" if c.remedy else "") for c in checks]
    show([check.model_dump() for check in checks], as_json, lambda: "\n".join(lines))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
