"""Records of monitoring: what each window showed, and what follows from it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.records.base import Record
from tasks.records.run import Moment

Diagnosis = Literal["distil again", "refresh the teacher", "watch", "too few examples", "nothing"]
Signal = Literal["quality", "agreement", "estimate", "teacher"]


class SignalFigures(Record):
    """One signal of a window against the reference.

    Attributes:
        signal: `quality`: the promoted metric, by labels, or of language models by the texts themselves; `agreement` with the root teacher;
            `estimate`: accuracy by calibrated confidence; `teacher`: the root teacher's quality on the same rows.
        rows: Rows that the figure rests on.
        value: The window's mean.
        sd: Of one row.
        reference: At promotion, on `reference_rows` rows.
        drop: Relative drop of this window against the reference (of losses, the rise); an estimate.
        low: Lower end of the drop's 95 % interval, of this window alone.
        high: Upper end.
        proven: Largest drop that all windows so far prove: this bound holds at every look.
        total: Rows of all windows so far.
        needed: Rows that would decide; None: decided, or no number of rows does.
    """

    signal: Signal
    unit: str
    rows: int
    value: float
    sd: float
    reference: float
    reference_rows: int
    drop: float
    low: float
    high: float
    proven: float
    total: int
    needed: int | None = None


class ShiftFigures(Record):
    """The shift of a feature of inputs or outputs against the reference, of all rows or of a slice.

    Attributes:
        feature: Such as `letters`, `class`, `confidence`.
        slice: None: all rows.
        p: Corrected for the number of features of this window.
        psi: Population stability index.
        shifted: Whether p and psi say so, for this window alone.
    """

    feature: str
    slice: str | None = None
    test: Literal["ks", "chi-square"]
    statistic: float
    p: float
    psi: float
    rows: int
    shifted: bool


class SliceFigures(Record):
    """Quality of a slice in a window, by the promoted metric, and in the reference, where it has the slice."""

    rows: int
    value: float
    reference: float | None = None
    reference_rows: int = 0


class WindowReport(Record):
    """One window of a version: `monitoring/<name>/windows/<number>.json`.

    Attributes:
        name: Of the registered model: the ladder's.
        version: Watched version, `name/version`.
        ladder_run: Run that made it.
        stage: Its name in the ladder.
        metric: The promoted metric: `accuracy`, or `bits_per_byte`.
        window: Name of the window: that of its file.
        content: SHA-256 of its file.
        began: Time of its first request.
        ended: Time of its last request.
        looked: When it was judged.
        path: Its file.
        number: Looks at this model so far, at all its versions, this one included.
        rows: Rows that were counted.
        labelled: Rows whose labels were counted, those included that came without them in an earlier window.
        repeated: Rows that were counted in an earlier window, and are not again.
        problems: Sentences about rows and columns that could not be used.
        unusable: Whether the window could not be used at all; it is no look.
        signals: By name.
        shifts: Of inputs and outputs, the largest first.
        slices: Quality by slice.
        diagnosis: What to do, in words.
        why: Its reason, in a sentence.
        trigger: Whether the ladder is to go back to work now: a drop is proven, and no trigger of the same cool-down came before.
        cause: Id of the drop: version and first window that showed it; the same for all windows of one drop.
        voted: Whether this window itself shows the drop.
        shift_p: The smallest corrected p-value of a shift that is large enough; 1 where there is none.
        changed: Whether k of n windows show shifted inputs or outputs.
        drop: `monitoring.drop` at this look.
    """

    name: str
    version: str
    weights_sha256: str
    ladder_run: str = ""
    stage: str = ""
    workload: str
    metric: str
    window: str
    path: str = ""
    content: str
    began: Moment | None = None
    ended: Moment | None = None
    looked: Moment
    number: int
    rows: int = 0
    labelled: int = 0
    repeated: int = 0
    problems: tuple[str, ...] = ()
    unusable: bool = False
    signals: dict[str, SignalFigures] = Field(default={})
    shifts: tuple[ShiftFigures, ...] = ()
    slices: dict[str, SliceFigures] = Field(default={})
    diagnosis: Diagnosis = "nothing"
    why: str = ""
    trigger: bool = False
    cause: str | None = None
    voted: bool = False
    shift_p: float = 1.0
    changed: bool = False
    drop: float
    mlflow_run_id: str | None = None


class Track(Record):
    """The capital of the bets on one signal after a window; see models/monitoring/betting.py.

    Attributes:
        basis: Hash of the reference's figures and of the permitted error: another one begins anew.
        logs: Log capital, drops by bets; None: none has begun.
        looks: Windows with values so far.
        rows: Values so far.
    """

    basis: str
    logs: tuple[tuple[float | None, ...], ...]
    looks: int
    rows: int


class WindowEntry(Record):
    """A window's report with what later windows need of it.

    Attributes:
        tracks: State of the evidence after it, by signal.
        seen: Ids of its rows, 8 bytes each, base64.
        labelled: Those of rows whose labels were counted.
        handled: Whether its trigger was handed on.
    """

    report: WindowReport
    tracks: dict[str, Track] = Field(default={})
    seen: str = ""
    labelled: str = ""
    handled: bool = False
