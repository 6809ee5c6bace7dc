"""Compare two runs: settings that differ, and each model's figures with direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple

from conf.errors import UserError
from tasks.records import format as fmt
from tasks.records.base import Record
from tasks.records.bench import ModelBench
from tasks.records.run import RunRecord, StageRecord
from tasks.records.speeds import model_benches
from tasks.report import tables
from tasks.runtime.runs.run_settings import settings_that_differ

ONE_REQUEST = "one request"
Direction = Literal["better", "worse", "same"]
Form = Literal["points", "absolute", "percent"]
AUDITED: tuple[tuple[str, str, Form, Callable[[float], str]], ...] = (
    ("inherited", "root.inheritance", "points", fmt.percent),
    ("both sure", "root.confident_inheritance_0.9", "points", fmt.percent),
    ("ECE", "ece", "absolute", "{:.3f}".format),
)


class FigureKind(NamedTuple):
    """A figure of a model that two runs are compared by.

    Attributes:
        name: For readers.
        value: Reads it from a record; None where it was not measured.
        better: Which direction is better; None: neither.
        form: How a difference is told: in percentage points, as it is, or in per cent of the first run's.
        show: The value for readers.
        against: The model that it is measured against: where the two runs have different ones, neither figure is better.
    """

    name: str
    value: Callable[[StageRecord], float | None]
    better: Literal["higher", "lower"] | None
    form: Form
    show: Callable[[float], str]
    against: Literal["parent", "root"] | None = None


class ComparedFigure(Record):
    """One figure of a model in both runs.

    Attributes:
        name: Name of the quantity, with its unit.
        a: In the first run; None where it was not measured.
        b: In the second run.
        difference: b - a, in the figure's own unit.
        direction: Meaning of the difference for the second run; None where it means neither, or cannot be told.
        shown: For readers: the figure in both runs, and the difference.
    """

    name: str
    a: float | None
    b: float | None
    difference: float | None
    direction: Direction | None
    shown: tuple[str, str, str]


class Pair(Record):
    """A model in both runs, matched by its name; `only` says in which run it is, where the other has none of that name."""

    name: str
    only: Literal["a", "b"] | None
    same_weights: bool
    figures: tuple[ComparedFigure, ...]

    @property
    def note(self) -> str:
        """Note behind its name."""
        return f" (only {self.only.upper()})" if self.only else " (same weights)" if self.same_weights else ""

    @property
    def told(self) -> tuple[ComparedFigure, ...]:
        """The figures worth showing: of one and the same model only the first, its quality."""
        return self.figures[:1] if self.same_weights else self.figures


class Side(Record):
    """One of the two runs."""

    run: str
    ladder: str
    status: str
    started: str
    folder: str


class RunComparison(Record):
    """The JSON document of `ladder compare`.

    Attributes:
        a: The first run.
        b: The second one: `better` means that it is better here.
        settings: Settings that differ, one line each: `seed: 0 -> 1`.
        notes: Why some figures may not compare.
        models: The models, in the order of the second run's ladder, the root teacher first.
    """

    a: Side
    b: Side
    settings: tuple[str, ...]
    notes: tuple[str, ...]
    models: tuple[Pair, ...]


def compare_runs(a: RunRecord, b: RunRecord) -> RunComparison:
    """Compare two runs.

    Raises:
        UserError: They are the same run, or their models are judged by different things.
    """
    if a.run == b.run:
        raise UserError.about("RUN", b.run, "two different runs", "`ladder runs` shows them; `ladder show` shows one.")
    if a.workload != b.workload:
        allowed = f"a run with the workload of {a.run}, {a.workload}"
        raise UserError.about("RUN", f"{b.run} with the workload {b.workload}", allowed, "`ladder runs` shows all runs.")
    models_a, models_b = ({model.name: model for model in run.models} for run in (a, b))
    names = [*models_b, *(name for name in models_a if name not in models_b)]
    kinds = list(zip(kinds_of(a), kinds_of(b), strict=True))
    above = _above(a), _above(b)
    return RunComparison(
        a=_side(a),
        b=_side(b),
        settings=tuple(settings_that_differ(a, b)),
        notes=tuple(_notes(a, b)),
        models=tuple(_pair(name, models_a.get(name), models_b.get(name), kinds, _others(name, *above)) for name in names),
    )


def _above(record: RunRecord) -> dict[str, dict[str, str]]:
    """Of each student the weights of the models that it is measured against: `parent` and `root`."""
    models = record.models
    return {model.name: {"parent": parent.weights_sha256, "root": models[0].weights_sha256} for parent, model in pairwise(models)}


def _others(name: str, a: Mapping[str, Mapping[str, str]], b: Mapping[str, Mapping[str, str]]) -> set[str]:
    """Names, of `parent` and `root`, of the models that differ between the two runs."""
    return {who for who, weights in a.get(name, {}).items() if b.get(name, {}).get(who, weights) != weights}


def kinds_of(record: RunRecord) -> list[FigureKind]:
    """The figures that a run's models are compared by; those of the run as a whole are given here."""
    quality, speeds = tables.quality_of(record), {model.weights_sha256: model for model in model_benches(record)}
    accuracy = quality is tables.ACCURACY
    return [
        FigureKind(
            quality.unit,
            lambda model: model.metrics.get(quality.key),
            "higher" if accuracy else "lower",
            "points" if accuracy else "absolute",
            lambda value: tables.score(quality, {quality.key: value}),
        ),
        *([FigureKind("macro F1", lambda model: model.metrics.get("macro_f1"), "higher", "points", fmt.percent)] if accuracy else []),
        FigureKind("of parent", lambda model: model.retention.parent, "higher", "points", fmt.percent, "parent"),
        FigureKind("of root", lambda model: model.retention.root, "higher", "points", fmt.percent, "root"),
        FigureKind("parameters", lambda model: float(model.parameters), None, "percent", fmt.human),
        FigureKind("FLOPs", lambda model: model.flops or None, "lower", "percent", fmt.operations),
        FigureKind(
            ONE_REQUEST,
            lambda model: _latency(speeds.get(model.weights_sha256)),
            "lower",
            "percent",
            lambda value: f"{fmt.milliseconds(value)} ms",
        ),
        FigureKind("training", lambda model: model.seconds or None, "lower", "percent", fmt.duration),
        *(
            FigureKind(name, partial(_audited, figure=figure), "lower", form, show, "root" if figure.startswith("root.") else None)
            for name, figure, form, show in AUDITED
        ),
    ]


def _audited(model: StageRecord, figure: str) -> float | None:
    """A figure of a model's audit; None where it was not audited, or its examples are too few."""
    found = model.audit and model.audit.figures.get(figure)
    return found.value if found else None


def _latency(model: ModelBench | None) -> float | None:
    """Median seconds of one request, alone."""
    case = model.case(1) if model else None
    return case.whole.p50 if case else None


def _notes(a: RunRecord, b: RunRecord) -> list[str]:
    notes = [f"{run.run}: {run.status}, its figures are of what is finished" for run in (a, b) if run.status != "done"]
    if a.data and b.data and a.data.content_hash != b.data.content_hash:
        notes.append("the data differ, so the models were judged on other examples")
    if a.teacher and b.teacher and a.teacher.weights_sha256 != b.teacher.weights_sha256:
        notes.append("the roots differ, so no figure against a root is better or worse")
    loads = [{(model.tokens, model.new_tokens) for model in model_benches(run)} for run in (a, b)]
    if all(loads) and loads[0] != loads[1]:
        notes.append("latency was measured with requests of other lengths, so it does not compare")
    machines = [[run.environment.get(key) for key in ("processor", "cores", "gpus")] for run in (a, b)]
    if machines[0] != machines[1]:
        notes.append("the machines differ, so times do not compare")
    return [*notes, "one run each: small differences may be chance"]


def _side(record: RunRecord) -> Side:
    return Side(run=record.run, ladder=record.ladder, status=record.status, started=record.started, folder=record.folder)


def _pair(name: str, a: StageRecord | None, b: StageRecord | None, kinds: list[tuple[FigureKind, FigureKind]], others: Set[str]) -> Pair:
    figures = [_figure(own, a and first.value(a), b and own.value(b), own.against not in others) for first, own in kinds]
    return Pair(
        name=name,
        only="b" if a is None else "a" if b is None else None,
        same_weights=a is not None and b is not None and a.weights_sha256 == b.weights_sha256,
        figures=tuple(figure for figure in figures if figure.a is not None or figure.b is not None),
    )


def _figure(kind: FigureKind, a: float | None, b: float | None, comparable: bool) -> ComparedFigure:
    difference = None if a is None or b is None else b - a
    direction: Direction | None = None
    if difference == 0:
        direction = "same" if comparable else None
    elif difference is not None and kind.better is not None and comparable:
        direction = "better" if (difference > 0) == (kind.better == "higher") else "worse"
    values = [fmt.NONE if value is None else kind.show(value) for value in (a, b)]
    shown = (values[0], values[1], _told(kind, a, difference))
    return ComparedFigure(name=kind.name, a=a, b=b, difference=difference, direction=direction, shown=shown)


def _told(kind: FigureKind, a: float | None, difference: float | None) -> str:
    if not difference or a is None:
        return fmt.NONE
    if kind.form == "points":
        return f"{100 * difference:+.1f} points"
    if kind.form == "absolute" or not a:
        return f"{difference:+.3f}"
    return f"{100 * difference / a:+.1f} %"
