"""The command `ladder`: its commands by panel, its version, its errors."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated, Any, NoReturn

import typer

from conf.errors import LadderError, RunCancelled, RunInterrupted
from conf.native import prepare_process
from flows.cli.commands import bench, look, make, operate, prove, search, set_up, ship, watch

INTERRUPTED = 130
# A command imports heavy libraries itself, so that help and completion are instant.
PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Make": {"run": make.run, "rerun": make.rerun, "plan": make.plan},
    "Look": {"runs": look.runs, "show": look.show, "report": look.report, "compare": look.compare},
    "Choose": {"search": search.search},
    "Prove": {"prove": prove.prove, "bench": bench.bench, "economics": bench.economics},
    "Ship": {
        "export": ship.export,
        "promote": ship.promote,
        "rollback": ship.rollback,
        "models": ship.models,
        "serve-model": ship.serve_model,
    },
    "Watch": {"monitor": watch.monitor, "redistill": watch.redistill},
    "Operate": {
        "serve": operate.serve,
        "join": operate.join,
        "deploy": operate.deploy,
        "notify": operate.notify,
        "answer": operate.answer,
        "cancel": operate.cancel,
        "clean": operate.clean,
    },
    "Set up": {"init": set_up.init, "list": set_up.list_ladders, "explain": set_up.explain, "doctor": set_up.doctor},
}

app = typer.Typer(
    name="ladder",
    help="Distil a large model into a small one in stages; each accepted student becomes the next teacher.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for panel, commands in PANELS.items():
    for name, function in commands.items():
        app.command(name, rich_help_panel=panel)(function)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ladder {version('ladder-distillation')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Entry point: every expected error is one message and an exit code, never a traceback."""
    prepare_process(sys.argv[1:])
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal's encoding lacks is no reason to fail
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    try:
        code = app(prog_name="ladder", standalone_mode=False)
    except typer.TyperException as error:
        _leave(_usage_error(error))
    except RunInterrupted as error:
        code = error.exit_code
    except RunCancelled as error:
        typer.echo(f"{error}; finished models stay in the store, and the same command, or `ladder rerun`, continues from there", err=True)
        _leave(error.exit_code)
    except LadderError as error:
        typer.echo(_readable(f"error: {error}"), err=True)
        _leave(error.exit_code)
    if code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
        typer.echo("interrupted; finished models stay in the store, and the same command continues from there", err=True)
        _leave(code)
    sys.exit(code)


def _usage_error(error: Any) -> int:
    """Print a mistake in options or arguments like every other error; returns its exit code."""
    text = error.format_message()
    if text:  # empty where `ladder` alone has printed the help
        typer.echo(f"error: {text.rstrip('.')}. `{error.ctx.command_path} --help` shows what is allowed.", err=True)
    return error.exit_code


def _readable(text: str) -> str:
    """A message for standard error, broken between words on a terminal."""
    if not sys.stderr.isatty():
        return text
    from tasks.records.format import lines_of

    return "\n".join(lines_of(text, shutil.get_terminal_size().columns))


def _leave(code: int) -> NoReturn:
    """End the process; at once where Prefect's threads would first try, for a minute, to reach a server that is gone."""
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
