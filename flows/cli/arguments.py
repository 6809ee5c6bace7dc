"""Arguments and options that several commands share, with shell completion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer


def complete_ladder(incomplete: str) -> Iterator[str]:
    """Names of the shipped ladders; the shell itself completes paths where none fits."""
    from conf.loading.load import shipped

    return (name for name in shipped() if name.startswith(incomplete))


def complete_run(incomplete: str) -> list[str]:
    """Names of the runs of this home, the newest first."""
    from conf.home import home

    records = sorted(home().runs.glob("*/record.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.name for path in records if path.parent.name.startswith(incomplete)]


def complete_stage(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the stages of the ladder, or of the ladder of the run, that the line names."""
    from conf.errors import UserError
    from conf.home import home
    from conf.loading.load import load

    given = next(iter(context.args), "")  # typer parses no arguments where the last option lacks its value
    settings = home().runs / given / "ladder.yaml"
    try:
        ladder = load(str(settings) if settings.is_file() else given).ladder
    except UserError:  # half a name: there is nothing to complete yet
        return []
    return [stage.name for stage in ladder.stages if stage.name.startswith(incomplete)]


LadderName = Annotated[
    str, typer.Argument(metavar="LADDER", help="Name of a shipped ladder, or path of a YAML file.", autocompletion=complete_ladder)
]
OptionalLadder = Annotated[
    str | None,
    typer.Argument(metavar="[LADDER]", help="Name of a shipped ladder, or path of a YAML file.", autocompletion=complete_ladder),
]


def overrides_of_files(given: list[str] | None) -> list[str] | None:
    """The overrides, with the lines of each `@FILE` in its place, such as the winner of a search; empty ones and comments left out.

    Raises:
        UserError: A file cannot be read.
    """
    from pathlib import Path

    from conf.errors import UserError

    found: list[str] = []
    for text in given or ():
        if not text.startswith("@"):
            found.append(text)
            continue
        try:
            lines = Path(text[1:]).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            allowed = "@ and the path of a readable file with one KEY=VALUE a line"
            raise UserError.about("override", text, allowed, f"{getattr(error, 'strerror', None) or 'It is no text'}.") from None
        found += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return found if given is not None else None


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE|@FILE]...",
        help="Settings to change: stages.100k.objective.alpha=0.5; @FILE: a file of them, such as the winner of a search.",
        callback=overrides_of_files,
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Run, as `ladder runs` shows it.", autocompletion=complete_run)]
LastRun = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="Run, as `ladder runs` shows it; none: the last.", autocompletion=complete_run)
]
StartAt = Annotated[
    str | None,
    typer.Option(
        "--start-at",
        metavar="STAGE",
        help="First stage that may be computed; --fresh begins there.",
        autocompletion=complete_stage,
    ),
]
Route = Annotated[
    str | None, typer.Option("--route", metavar="NAME", help="Route that rewrites the stages, such as root-cached; see the setting route.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed of data order and first weights.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Compute again even finished results.")]
Budget = Annotated[str | None, typer.Option("--budget", metavar="TIME", help="Fewer steps, so that all ends in about this time: 5m, 2h.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the run; none: ladder, three characters, time.")]
Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why it is made, for the record.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who asks for it, for the record; none: the user.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
