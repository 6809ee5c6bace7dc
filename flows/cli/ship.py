"""`ladder export` and `serve-model`: what becomes of a finished student."""

from __future__ import annotations

from enum import StrEnum
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


class EngineChoice(StrEnum):
    """Engines that `ladder serve-model` knows."""

    auto = "auto"
    torch = "torch"
    onnx = "onnx"
    llamacpp = "llamacpp"


def serve_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME@ALIAS, NAME (its champion), NAME/VERSION, RUN or RUN:STAGE.")],
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="None: 8000, or a free one.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; more than this machine: see docs/security.md.")] = "127.0.0.1",
    engine: Annotated[EngineChoice, typer.Option("--engine", help="auto: the fastest that is there for this model.")] = EngineChoice.auto,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="Ask for the token in it; a missing file is made.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=2, metavar="TOKENS", help="Of prompt and answer; none: the model's.")
    ] = None,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, metavar="N", help="Most inputs that wait or are computed; more get 429.")
    ] = 256,
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Most inputs that are computed together.")] = 16,
    log_share: Annotated[
        float, typer.Option("--log-share", min=0, max=1, help="Share of the requests that become monitoring windows.")
    ] = 0.0,
    redact: Annotated[
        str | None, typer.Option("--redact", metavar="PACKAGE:FUNCTION", help="Gets each row of a window, and returns it changed, or None.")
    ] = None,
) -> None:
    """Serve a model over HTTP, until Ctrl-C: OpenAI's API for language models, /predict for classifiers."""
    from conf.home import home
    from flows.serving.environment import go_offline, prepare_environment

    prepare_environment(home())
    go_offline()
    begin(f"{model}: loading")
    from flows.model_server.server import Options, serve_model

    kind = None if engine is EngineChoice.auto else engine.value
    serve_model(home(), Options(model, host, port, kind, token_file, max_length, max_queue, batch, log_share, redact))
