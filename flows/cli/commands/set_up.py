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


def init(
    teacher: Annotated[str, typer.Option(metavar="PATH|ID|package:NAME", help="Teacher: a folder, hub id, GGUF file or package.")],
    data: Annotated[list[str], typer.Option(metavar="PATH", help="Data: files, patterns, a folder, or a shipped source; may be repeated.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[PATH]...", help="Further data.")] = None,
    to: Annotated[str, typer.Option(metavar="SIZES", help="Parameters of the students, such as 40m,12m,4m; none: chosen.")] = "",
    out: Annotated[str | None, typer.Option(metavar="FILE", help="File to write; none: named after the data.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: take the likeliest answer.")] = False,
) -> None:
    """Write a ladder file for a teacher and data: look at both, guess, say why, plan."""
    import os
    import sys

    from conf.errors import UserError
    from conf.home import home
    from flows.serving.environment import prepare_environment

    prepare_environment(home())
    begin("looking at teacher and data; loading PyTorch")
    from flows.cli.show.init import InitAnswers, init_text
    from flows.cli.show.plan import plan_text
    from tasks.planning.plan import make_plan
    from tasks.runtime.runs.run_registry import PLAN, Context
    from tasks.setup.init import init_ladder

    answers = InitAnswers(asks=not yes and sys.stdin.isatty() and sys.stdout.isatty())
    sizes = [size.strip() for size in to.split(",") if size.strip()]
    context = Context(run=PLAN, ladder="init", home=str(home().root), base=os.getcwd())
    made = init_ladder(teacher, [*data, *(more or ())], sizes, out, answers, context)
    typer.echo(init_text(made, answers.taken))
    from conf.loading.load import load

    loaded = load(str(made.file))
    try:
        typer.echo(plan_text(make_plan(loaded.ladder, loaded.base, home())))
    except UserError as error:
        raise UserError(f"{error} The file {made.file} is written: correct it, then `ladder plan {made.file}`.") from error


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
    from conf.loading.load import load, shipped
    from conf.loading.yaml_output import to_yaml

    if key not in shipped() and not key.endswith((".yaml", ".yml")):
        typer.echo(explain_key(key))
        return
    loaded = load(key, overrides or [])
    from flows.serving.environment import go_offline

    go_offline()
    from conf.home import home
    from tasks.planning.students import settle_students, settled_notes
    from tasks.runtime.runs.run_registry import PLAN, Context

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
    lines = [f"{verdicts[c.ok]}  {c.name:<12} {c.found}" + (f"\n      {'':<12} remedy: {c.remedy}" if c.remedy else "") for c in checks]
    show([check.model_dump() for check in checks], as_json, lambda: "\n".join(lines))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
