"""`ladder export`, `promote`, `rollback`, `models`, `serve-model`: students."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conf.schema.shipping.formats import DTYPES, SHORT
from flows.cli.arguments import Json, LastRun, complete_run
from flows.cli.printing import begin, show

if TYPE_CHECKING:
    from conf.schema.shipping.exports import Export
    from tasks.tracking.tracker import Tracker

Model = Annotated[
    str | None,
    typer.Argument(metavar="[RUN|NAME/VERSION]", help="Run, RUN:STAGE or version; none: the last run.", autocompletion=complete_run),
]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Who asks for it, for the record.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the record.")]


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
    from flows.cli.commands.bench import chosen_run
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
        float | None,
        typer.Option("--log-share", min=0, max=1, help="Share of the requests that become monitoring windows; none: monitoring.log_share."),
    ] = None,
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
    from tasks.monitoring.targets import logged_share
    from tasks.tracking.recorder import tracker_of

    kind = None if engine is EngineChoice.auto else engine.value
    share = logged_share(tracker_of(home()), home(), model) if log_share is None else log_share
    serve_model(home(), Options(model, host, port, kind, token_file, max_length, max_queue, batch, share, redact))


def promote(
    model: Model = None,
    data: Annotated[str | None, typer.Option("--data", metavar="PATH", help="Fresh held-out rows; none: the validation split.")] = None,
    delta: Annotated[float | None, typer.Option("--delta", metavar="X", help="Largest loss allowed; none: promotion.delta.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote it whatever the comparison says; needs --reason.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Answer yes to the question of `promotion.policy: ask`.")] = False,
    reason: Reason = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Make a version the champion, if on the same held-out rows it is not worse than the present one by more than delta.

    Both are judged pair by pair. Exit code 3 where it is refused; the champion then stays.
    """
    tracker = _registry("comparing a challenger with the champion; loading PyTorch, MLflow and Prefect")
    from conf.errors import LadderError
    from conf.home import home
    from flows.cli.show.versions import comparison_text, promotion_json
    from flows.promote import PersonsReply, PromotionRequest, decide
    from tasks.records.promotion import Judgement
    from tasks.registry.judge import Contest

    shown: list[tuple[Contest, Judgement]] = []

    def ask(asked: Contest, judgement: Judgement) -> PersonsReply:
        if not yes:
            typer.echo(comparison_text(asked, judgement, "may it be champion?"), err=True)
        return PersonsReply(yes or typer.confirm(f"Make {asked.challenger.label} the champion?", default=False, err=True), by, reason)

    def print_comparison(asked: Contest, judgement: Judgement, outcome: str) -> None:
        shown.append((asked, judgement))
        if not as_json:
            show(None, False, lambda: comparison_text(asked, judgement, outcome))

    request = PromotionRequest(model, data, delta, force, reason, by)
    try:
        moved = decide(tracker, home(), request, ask, print_comparison)
    except LadderError:  # refused, for instance: the comparison is printed all the same
        if as_json and shown:
            show(promotion_json(None, shown[-1][1], shown[-1][0].challenger), True, str)
        raise
    from tasks.registry.history import words

    show(promotion_json(moved, moved.judgement, None), as_json, lambda: f"{moved.name}/{moved.version} is {words(moved)}")


def rollback(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Registered model; none: the only one.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="VERSION", help="Version; none: the champion before the present one.")] = None,
    reason: Reason = "",
    by: By = "",
    as_json: Json = False,
) -> None:
    """Make an earlier champion the champion again, at once and without a comparison."""
    tracker = _registry("looking for the earlier champion; loading MLflow")
    from conf.home import home
    from flows.cli.show.versions import only_name, promotion_json
    from tasks.registry.history import words
    from tasks.registry.promotion import finish_interrupted
    from tasks.registry.promotion import rollback as roll_back

    chosen = name or only_name(tracker)
    finish_interrupted(tracker, home(), chosen)
    moved = roll_back(tracker, home(), chosen, to, by=by, reason=reason)
    show(promotion_json(moved, None, None), as_json, lambda: f"{moved.name}/{moved.version} is {words(moved)}")


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Registered model; none: all.")] = None,
    as_json: Json = False,
) -> None:
    """List the versions of MLflow's registry, the newest first: aliases, quality, size, speed, run."""
    tracker = _registry("reading MLflow's registry; loading MLflow")
    from conf.home import home
    from flows.cli.show.versions import versions_of, versions_text

    found = versions_of(tracker, home(), name)
    show(found, as_json, lambda: versions_text(found))


def _registry(what: str) -> Tracker:
    """Open MLflow, which must be on."""
    from conf.home import home
    from flows.serving.environment import go_offline, prepare_environment

    begin(what)
    prepare_environment(home())
    go_offline()
    from tasks.registry.candidates import registry_of
    from tasks.tracking.recorder import tracker_of

    return registry_of(tracker_of(home()))
