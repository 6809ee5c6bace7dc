"""The command `ladder`. Heavy libraries are imported by the commands that need them, so that help is instant."""

from __future__ import annotations

import json
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from conf.errors import LadderError, RunCancelled
from flows.cli import bench as commands_bench
from flows.cli.prove import prove
from flows.cli.report import compare, report

INTERRUPTED = 130

app = typer.Typer(
    name="ladder",
    help="Distil a large model into a small one in stages; each accepted student becomes the next teacher.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Answers(StrEnum):
    """What `ladder answer` takes."""

    approve = "approve"
    reject = "reject"
    extend = "extend"


LadderArgument = Annotated[str, typer.Argument(help="Name of a shipped ladder, or path of a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: stages.100k.objective.alpha=0.5")
]
StartAt = Annotated[str | None, typer.Option("--start-at", metavar="STAGE", help="First stage that may be computed.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed of data order and first weights.")]
RunArgument = Annotated[str, typer.Argument(help="Run, as `ladder runs` shows it.")]
Budget = Annotated[str | None, typer.Option("--budget", metavar="TIME", help="Fewer steps, so that it ends in about this time: 5m, 2h.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Compute anew what is finished already, from --start-at on.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.command()
def run(
    ladder: LadderArgument,
    overrides: Overrides = None,
    start_at: StartAt = None,
    fresh: Fresh = False,
    seed: Seed = None,
    budget: Budget = None,
) -> None:
    """Distil a ladder: reuse what is finished, go on where it stopped, compute the rest."""
    from flows.cli.launch import launch

    launch(ladder, overrides or [], start_at, fresh, seed, budget=budget)


@app.command()
def rerun(run: RunArgument, overrides: Overrides = None, start_at: StartAt = None, fresh: Fresh = False, seed: Seed = None) -> None:
    """Repeat an earlier run, with its settings and these: only what they change is computed."""
    from flows.cli.launch import relaunch

    relaunch(run, overrides or [], start_at, fresh, seed)


@app.command()
def answer(
    run: RunArgument,
    choice: Annotated[Answers, typer.Argument(help="What to do with the student.")],
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="How long to train on; none: half of training.steps.")] = None,
    by: Annotated[str, typer.Option("--by", help="Who decides, for the record.")] = "",
    note: Annotated[str, typer.Option("--note", help="Why, for the record.")] = "",
) -> None:
    """Answer a run whose gate asks a person: approve the student, reject it, or train it on."""
    from conf.home import home
    from flows.serving.environment import prepare_environment
    from tasks.runtime.run_registry import load_run

    record = load_run(home(), run)
    prepare_environment(home())
    from flows.approval import answer_run

    answer_run(record, "train longer" if choice == Answers.extend else choice.value, steps, by, note)
    typer.echo(f"{record.run}: the answer `{choice.value}` was taken")


@app.command()
def deploy(
    pool: Annotated[str, typer.Option("--work-pool", help="Work pool whose workers run it.")],
    deployments: Annotated[Path | None, typer.Option("--deployments", help="File of deployments; none: the shipped one.")] = None,
    variables: Annotated[list[str] | None, typer.Option("--job-variable", metavar="KEY=VALUE", help="For the pool's jobs.")] = None,
) -> None:
    """Offer the deployments on a work pool, for machines that only run workers."""
    from flows.serving.deploy import deploy as register

    for name in register(pool, deployments, variables or []):
        typer.echo(f"{name} on {pool}")


@app.command()
def plan(
    ladder: LadderArgument, overrides: Overrides = None, start_at: StartAt = None, fresh: Fresh = False, as_json: Json = False
) -> None:
    """Show what a run would do and cost, without doing it."""
    from conf.home import home
    from conf.loading.load import load
    from flows.serving.environment import go_offline

    loaded = load(ladder, overrides or [])
    go_offline()  # a plan fetches nothing; the libraries read this when they are imported
    from flows.cli.show_runs import plan_text
    from tasks.planning.plan import make_plan

    made = make_plan(loaded.ladder, loaded.base, home(), start_at, fresh)
    _show(made.model_dump(mode="json"), as_json, lambda: plan_text(made))


@app.command("list")
def list_ladders(as_json: Json = False) -> None:
    """Show the shipped ladders."""
    from conf.loading.load import load, shipped

    ladders = [load(name).ladder for name in shipped()]
    rows = [{"name": x.name, "workload": x.workload, "stages": [s.name for s in x.stages], "description": x.description} for x in ladders]
    _show(rows, as_json, lambda: "\n".join(f"{r['name']:<16}{r['workload']:<24}{r['description']}" for r in rows))


@app.command()
def explain(key: Annotated[str, typer.Argument(help="Dotted key, such as stages.objective.alpha; none: the top.")] = "") -> None:
    """Describe a setting: meaning, unit, type, bounds, default."""
    from conf.loading.explain import explain_key

    typer.echo(explain_key(key))


@app.command()
def cancel(run: Annotated[str | None, typer.Argument(help="Run; none: the only one that runs.")] = None) -> None:
    """Stop a run: its training writes a checkpoint and ends; a rerun goes on from there."""
    from conf.home import home
    from flows.cli.cancel import cancel_run

    typer.echo(cancel_run(home(), run))


@app.command()
def runs(as_json: Json = False) -> None:
    """Show all runs of this home, the newest first."""
    from conf.home import home
    from flows.cli.show_runs import run_row, runs_text
    from tasks.runtime.run_registry import all_runs

    records = all_runs(home())
    _show([run_row(record) for record in records], as_json, lambda: runs_text(records))


@app.command()
def show(run: Annotated[str | None, typer.Argument(help="Run; none: the last.")] = None, as_json: Json = False) -> None:
    """Show a run: its models, their quality, where they are."""
    from conf.home import home
    from flows.cli.show_runs import show_json, show_text
    from tasks.runtime.run_registry import load_run

    record = load_run(home(), run)
    _show(show_json(record), as_json, lambda: show_text(record))


app.command()(report)
app.command()(compare)


@app.command()
def serve(
    deployments: Annotated[Path | None, typer.Option("--deployments", metavar="FILE", help="What to offer; none: what is shipped.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; more than this machine only with passwords.")] = "127.0.0.1",
    prefect_port: Annotated[int | None, typer.Option("--prefect-port", min=1, max=65535, help="None: 4200, or a free one.")] = None,
    mlflow_port: Annotated[int | None, typer.Option("--mlflow-port", min=1, max=65535, help="None: 5000, or a free one.")] = None,
) -> None:
    """Put up Prefect's pages and schedules, MLflow's pages and the deployments, until Ctrl-C."""
    from flows.serving.serve import serve

    serve(deployments, host, prefect_port, mlflow_port)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check Python, torch, the store, the disk, Prefect and MLflow."""
    from conf.home import home
    from flows.cli.doctor import examine

    checks = examine(home())
    marks = {True: "ok  ", False: "FAIL"}
    text = "\n".join(f"{marks[c.ok]}  {c.name:<9} {c.found}" + (f"\n      {'':<9} remedy: {c.remedy}" if c.remedy else "") for c in checks)
    _show([c.model_dump() for c in checks], as_json, lambda: text)
    if not all(c.ok for c in checks):
        raise typer.Exit(1)


@app.command()
def clean(
    older_than: Annotated[str, typer.Option("--older-than", metavar="AGE", help="Age such as 30d, 12h or 2w; younger runs are kept.")],
    keep_promoted: Annotated[bool, typer.Option(help="Keep runs with a model that has an alias in MLflow's registry.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be freed, and free nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Free what no kept run reaches: old runs, their models, data and checkpoints, and their record in MLflow."""
    from conf.home import home
    from flows.serving.environment import prepare_environment

    prepare_environment(home())
    from tasks.lifecycle.clean import clean as free
    from tasks.lifecycle.clean import parse_age, summary

    cleaned = free(home(), parse_age(older_than), keep_promoted=keep_promoted, dry_run=dry_run)
    _show(cleaned.model_dump(mode="json"), as_json, lambda: summary(cleaned))


@app.command()
def notify(
    url: Annotated[str, typer.Argument(help="Webhook to call, http:// or https://.")] = "",
    on: Annotated[str, typer.Option("--on", metavar="EVENTS", help="When, separated by commas.")] = "failed,stopped,approval,done",
    remove: Annotated[bool, typer.Option("--remove", help="Send nothing any more.")] = False,
) -> None:
    """Have the Prefect server call a webhook when a run fails, is stopped by a gate, needs approval, or is done."""
    from conf.home import home
    from flows.serving import notify as notifying
    from flows.serving.environment import prepare_environment

    events = notifying.chosen(on)
    prepare_environment(home())
    if remove:
        typer.echo(f"removed: {', '.join(notifying.remove()) or 'nothing was there'}")
    else:
        typer.echo(f"set up: {', '.join(notifying.notify(url, events))}")


app.command()(commands_bench.bench)
app.command()(commands_bench.economics)
app.command()(prove)


def _show(document: Any, as_json: bool, text: Any) -> None:
    typer.echo(json.dumps(document, indent=1, ensure_ascii=False) if as_json else text())


def main() -> None:
    """Entry point: every known error is one message and an exit code, never a traceback."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    try:
        app(standalone_mode=True)
    except RunCancelled as error:
        typer.echo(f"{error}; what is finished is kept, the same command, or `ladder rerun`, goes on from there", err=True)
        _leave(error.exit_code)
    except LadderError as error:
        typer.echo(f"error: {error}", err=True)
        _leave(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer has made it of a KeyboardInterrupt
            typer.echo("interrupted; what is finished is kept, the same command goes on from there", err=True)
            _leave(INTERRUPTED)
        raise
    except BrokenPipeError:
        sys.exit(1)


def _leave(code: int) -> NoReturn:
    """End the process; at once where Prefect's threads would first try, for a minute, to tell a server that is gone how it went."""
    client = sys.modules.get("tasks.runtime.prefect_client")
    if client is not None and client.gave_up_after:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt() -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
