"""`ladder serve`, `join`, `deploy`, `notify`, `answer`, `cancel`, `clean`."""

from __future__ import annotations

import signal
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.arguments import Json, RunName, complete_run
from flows.cli.printing import begin, show


class AnswerChoice(StrEnum):
    """The answers that `ladder answer` accepts."""

    approve = "approve"
    reject = "reject"
    extend = "extend"


Deployments = Annotated[Path | None, typer.Option("--deployments", metavar="FILE", help="YAML file of deployments; none: the shipped one.")]


def serve(
    deployments: Deployments = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; more than this machine: see docs/security.md.")] = "127.0.0.1",
    prefect_port: Annotated[int | None, typer.Option("--prefect-port", min=1, max=65535, help="None: 4200, or a free one.")] = None,
    mlflow_port: Annotated[int | None, typer.Option("--mlflow-port", min=1, max=65535, help="None: 5000, or a free one.")] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Ask for no password: whoever reaches a port can run code as you.")] = False,
) -> None:
    """Serve Prefect's UI and schedules, MLflow's UI and the deployments, until Ctrl-C."""
    from flows.serving.serve import serve

    serve(deployments, host, prefect_port, mlflow_port, auth=not no_auth)


def join() -> None:
    """Share the trainings of runs on other machines that see the same home (compute.nodes), until Ctrl-C."""
    from conf.home import home

    begin(f"waiting for trainings in {home().root}, until Ctrl-C; loading PyTorch")
    from tasks.training.workers.join import join as share

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        share(home(), typer.echo)


def deploy(
    pool: Annotated[str, typer.Option("--work-pool", help="Work pool whose workers run them.")],
    deployments: Deployments = None,
    variables: Annotated[list[str] | None, typer.Option("--job-variable", metavar="KEY=VALUE", help="For the pool's jobs.")] = None,
) -> None:
    """Register the deployments on a work pool, for machines that only run workers."""
    from flows.serving.deploy import deploy as register

    for line in register(pool, deployments, variables or []):
        typer.echo(line)


def notify(
    url: Annotated[str, typer.Argument(help="Webhook to call, http:// or https://.")] = "",
    on: Annotated[str, typer.Option("--on", metavar="EVENTS", help="When, separated by commas.")] = "failed,stopped,approval,done",
    remove: Annotated[bool, typer.Option("--remove", help="Remove the notifications.")] = False,
) -> None:
    """Have Prefect's server call a webhook when a run fails, stops, asks or is done."""
    from conf.home import home
    from flows.serving import notify as notifications
    from flows.serving.environment import prepare_environment

    events = notifications.chosen(on)
    if not remove:
        notifications.check_url(url)
    begin(f"{'removing' if remove else 'setting up'} notifications; loading Prefect")
    prepare_environment(home())
    if remove:
        typer.echo(f"removed: {', '.join(notifications.remove()) or 'nothing was there'}")
    else:
        typer.echo(f"set up: {', '.join(notifications.notify(url, events))}")


def answer(
    run: RunName,
    choice: Annotated[AnswerChoice, typer.Argument(help="Action on the student.")],
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps to train on; none: half of training.steps.")] = None,
    by: Annotated[str, typer.Option("--by", help="Who decides, for the record.")] = "",
    note: Annotated[str, typer.Option("--note", help="Why, for the record.")] = "",
) -> None:
    """Answer a run that asks a person: approve the student, reject it, or train it on."""
    from conf.home import home
    from flows.serving.environment import prepare_environment
    from tasks.runtime.runs.run_registry import load_run

    record = load_run(home(), run)
    begin(f"{record.run}: answering `{choice.value}`; loading Prefect")
    prepare_environment(home())
    from flows.approval import answer_run

    answer_run(record, "train longer" if choice == AnswerChoice.extend else choice.value, steps, by, note)
    typer.echo(f"{record.run}: the answer `{choice.value}` was taken")


def cancel(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run; none: the only one.", autocompletion=complete_run)] = None,
) -> None:
    """Stop a run: its training writes a checkpoint and ends; `ladder rerun` resumes it."""
    from conf.home import home
    from flows.cli.cancel import cancel_run

    typer.echo(cancel_run(home(), run))


def clean(
    older_than: Annotated[str, typer.Option("--older-than", metavar="AGE", help="Age such as 30d, 12h or 2w; younger runs are kept.")],
    keep_promoted: Annotated[bool, typer.Option(help="Keep runs with a model that has an alias in MLflow's registry.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the candidates, and remove nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Remove old runs, and the models, data and checkpoints that no kept run uses."""
    from conf.home import home
    from flows.serving.environment import prepare_environment

    begin(f"looking in {home().root} for results that no kept run uses; loading MLflow")
    prepare_environment(home())
    from tasks.lifecycle.clean import clean as remove
    from tasks.lifecycle.clean import parse_age, summary

    cleaned = remove(home(), parse_age(older_than), keep_promoted=keep_promoted, dry_run=dry_run)
    show(cleaned.model_dump(mode="json"), as_json, lambda: summary(cleaned))
