"""The flow `export`: export a run's student, from a form of the Prefect UI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from pydantic import Field

from conf.home import home
from conf.loading.load import load
from conf.loading.path_policy import confine_pattern
from conf.schema.shipping.exports import Export
from flows.adapter.run_labels import is_served
from flows.adapter.steps import cancellable, publish_report
from flows.parameters import OptionalRun, roots
from tasks.export.run_exports import export_run, require_inside
from tasks.report.export_table import HEADERS, rows, stages_of
from tasks.report.rebuild import settings_of
from tasks.runtime.logs import log_warnings
from tasks.runtime.runs.run_registry import load_run

FormatName = Literal["hf", "onnx", "onnx-int8", "gguf", "gguf-f32", "gguf-f16", "gguf-q8_0"]
StageChoice = Annotated[str, Field(max_length=64)]
FolderPath = Annotated[str, Field(max_length=2000)]


@flow(name="export", flow_run_name="export {run}", persist_result=False)
@cancellable
def export(
    run: OptionalRun = "", stage: StageChoice = "", formats: tuple[FormatName, ...] = ("hf",), to: FolderPath = ""
) -> list[str] | State[list[str]]:
    """Export a student, and compare each format with it in a process of its own.

    Args:
        run: Name of the run, as `ladder runs` shows it; empty: the last one.
        stage: The student; empty: the last.
        formats: The formats; each once.
        to: A new folder for it, a folder in it for each of several formats; empty: it stays in the store.
    """
    log_warnings()
    if to and is_served():
        confine_pattern("to", to, roots())
    record = load_run(home(), run or None)
    ladder = load(str(Path(record.folder) / "ladder.yaml")).ladder
    exports = [Export.model_validate(name) for name in dict.fromkeys(formats)]
    made = export_run(home(), record, ladder, exports, stage or None, Path(to) if to else None)
    cells: list[dict[str, Any]] = [dict(zip(HEADERS, line, strict=True)) for name in stages_of(made) for line in rows(made, name)]
    create_table_artifact(table=cells, key="ladder-exports", description=f"{record.run}: exports")
    if record.report and record.status != "running":
        publish_report(record, settings_of(home(), record))
    require_inside(made)
    return [each.folder for each in made]
