"""`ladder list`, `explain` and `doctor`: shipped ladders, settings, the machine."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.arguments import Json
from flows.cli.printing import begin, show


def list_ladders(as_json: Json = False) -> None:
    """List the shipped ladders."""
    from conf.loading.load import load, shipped

    ladders = [load(name).ladder for name in shipped()]
    rows = [{"name": x.name, "workload": x.workload, "stages": [s.name for s in x.stages], "description": x.description} for x in ladders]
    show(rows, as_json, lambda: "\n".join(f"{r['name']:<16}{r['workload']:<24}{r['description']}" for r in rows))


def explain(key: Annotated[str, typer.Argument(help="Dotted key, such as stages.objective.alpha; none: the whole ladder.")] = "") -> None:
    """Describe a setting: meaning, unit, type, bounds, default."""
    from conf.loading.explain import explain_key

    typer.echo(explain_key(key))


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
