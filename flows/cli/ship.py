"""`ladder export`: bring a student out of the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conf.schema.shipping.formats import DTYPES, SHORT
from flows.cli.arguments import Json, LastRun
from flows.cli.printing import begin, show

if TYPE_CHECKING:
    from conf.schema.shipping.exports import Export


def export(
    run: LastRun = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FOLDER", help="Where to put it: a new folder; several formats each get one in it. None: the store."),
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", metavar="FORMAT", help=f"Of {', '.join(SHORT)}; may be given again. None: hf.")
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", metavar="DTYPE", help=f"Weights of gguf: {', '.join(DTYPES)}.")] = None,
    stage: Annotated[str | None, typer.Option("--stage", metavar="NAME", help="Student; none: the last.")] = None,
    as_json: Json = False,
) -> None:
    """Export a student, and compare each format with it in a process of its own."""
    from conf.home import home
    from flows.cli.bench import chosen_run
    from flows.serving.environment import go_offline, prepare_environment

    wanted = _wanted(formats or ["hf"], dtype)
    record, ladder = chosen_run([run] if run else [], "bench")
    prepare_environment(home())
    go_offline()
    begin(f"{record.run}: exporting {stage or 'its last student'} as {', '.join(each.name for each in wanted)}")
    from flows.cli.show.exports import exports_text
    from tasks.export.run_exports import export_run, require_inside
    from tasks.report.rebuild import rebuild_report

    made = export_run(home(), record, ladder, wanted, stage, to)
    if record.report and record.status != "running":
        rebuild_report(home(), record.run)
    document = {"run": record.run, "exports": [each.model_dump(mode="json") for each in made]}
    show(document, as_json, lambda: exports_text(made, to))
    require_inside(made)


def _wanted(formats: list[str], dtype: str | None) -> list[Export]:
    """The exports that options ask for.

    Raises:
        UserError: An unknown format, one that is named twice, or a dtype without gguf.
    """
    from conf.errors import UserError
    from conf.loading.introspect import suggest
    from conf.schema.shipping.exports import Export

    names = list(formats)
    if dtype is not None:
        if dtype not in DTYPES:
            raise UserError.about("--dtype", dtype, ", ".join(DTYPES), suggest(dtype, DTYPES).strip() or "Choose one.")
        if "gguf" not in names:
            raise UserError.about("--dtype", dtype, "with --format gguf alone", "Leave it out, or add --format gguf.")
        names = [f"gguf-{dtype}" if name == "gguf" else name for name in names]
    for name in names:
        if name not in SHORT:
            raise UserError.about("--format", name, ", ".join(SHORT), suggest(name, SHORT).strip() or "Choose one.")
    exports = [Export.model_validate(name) for name in names]
    full = [each.name for each in exports]
    if twice := sorted({name for name in full if full.count(name) > 1}):
        raise UserError.about("--format", ", ".join(twice), "each format once", "Leave one out.")
    return exports
