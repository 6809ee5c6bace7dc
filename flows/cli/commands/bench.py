"""`ladder bench` and `ladder economics`: speed and break-even of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.arguments import Json, complete_run
from flows.cli.printing import begin, show

if TYPE_CHECKING:
    from conf.schema.ladder import Ladder
    from tasks.records.run import RunRecord

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN] [KEY=VALUE]...", help="Run, none: the last; then settings to change.", autocompletion=complete_run),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure again even where a measurement is stored.")]


def bench(words: Words = None, fresh: Fresh = False, as_json: Json = False) -> None:
    """Measure latency, memory and throughput of the models of a run.

    Settings are those of `bench`, with or without its name: `batch_sizes=[1,8] repeats=200`.
    """
    from flows.serving.environment import go_offline

    record, ladder = chosen_run(words or [], "bench")
    go_offline()
    begin(f"{record.run}: measuring its models; loading PyTorch")
    from flows.cli.show.bench import bench_text
    from tasks.bench.bench import bench_run

    result = bench_run(record, ladder, fresh)
    _renew_report(record)
    show(result.model_dump(mode="json"), as_json, lambda: bench_text(result, record.teacher.weights_sha256 if record.teacher else None))


def economics(words: Words = None, as_json: Json = False) -> None:
    """Show when a run's ladder has paid for itself, and by which inputs.

    Settings are those of `economics`, with or without its name: `price_per_hour=2 requests_per_day=1e6`.
    """
    record, ladder = chosen_run(words or [], "economics")
    from flows.cli.show.economics import economics_text
    from tasks.planning.costs.economics import economics_of

    result = economics_of(record, ladder.economics)
    show(result.model_dump(mode="json"), as_json, lambda: economics_text(result))


def chosen_run(words: list[str], section: str) -> tuple[RunRecord, Ladder]:
    """The chosen run, and its ladder with some settings changed.

    Args:
        words: A run's name, or none for the last, and `key=value`; keys of `section` may come without its name.
        section: `bench` or `economics`.

    Raises:
        UserError: No such run, a run without its settings, or a setting that the schema refuses.
    """
    from conf.errors import UserError
    from conf.home import home
    from conf.loading.load import load
    from tasks.runtime.runs.run_registry import load_run

    names, changes = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    if len(names) > 1:
        raise UserError.about("RUN", " ".join(names), "one run, and key=value", "`ladder runs` shows the runs.")
    record = load_run(home(), names[0] if names else None)
    settings = Path(record.folder) / "ladder.yaml"
    if not settings.is_file():
        raise UserError.about("RUN", record.run, f"a run with its settings in {settings}", "The file is gone; choose another run.")
    return record, load(str(settings), [word if word.startswith(f"{section}.") else f"{section}.{word}" for word in changes]).ladder


def _renew_report(record: RunRecord) -> None:
    """Write the run's report again, with the new measurements."""
    from conf.home import home
    from tasks.report.rebuild import rebuild_report

    if record.report and record.status != "running":
        rebuild_report(home(), record.run)
