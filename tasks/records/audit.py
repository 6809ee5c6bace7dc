"""Record of an audit, as a student's record holds it."""

from __future__ import annotations

from pydantic import Field

from tasks.records.base import Record


class AuditFigure(Record):
    """A figure with its 95 % interval.

    Attributes:
        value: None: too few examples, or not defined.
        low: None where no interval is given.
        rows: Examples or tokens that it rests on.
        documents: Documents that these come from; for classification examples.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    rows: int
    documents: int


class AuditBin(Record):
    """A bar of the reliability diagram."""

    confidence: float
    accuracy: float
    rows: int


class AuditGroup(Record):
    """A slice or a class of tokens; the figures are named in models/evaluation/audit_slices.py."""

    name: str
    kind: str
    rows: int
    documents: int
    few: bool
    figures: dict[str, AuditFigure] = Field(default={})
    flags: tuple[str, ...] = ()
    chances: dict[str, float] = Field(default={})


class AuditExample(Record):
    """One of the worst examples, as the report shows it; all of them are in `worst.parquet`."""

    kind: str
    slice: str
    text: str | None = None
    picture: str | None = None  # a data URI
    label: str
    answers: dict[str, str]  # model -> its answer
    confidence: dict[str, float]


class AuditControl(Record):
    """The same student, trained without a teacher."""

    fingerprint: str
    weights_sha256: str
    steps: int
    seconds: float
    flops: float
    reused: bool


class AuditRecord(Record):
    """A student against its parent and the root.

    Attributes:
        folder: In the store: `audit.json` with all groups, and `worst.parquet`.
        rows: Held-out examples or tokens.
        seconds: Duration of the audit, without the control's training.
        parent: Name of the nearest teacher.
        root: Name of the root teacher; the same where it taught.
        figures: By name, see models/evaluation/audit_figures.py.
        reliability: Bars of the student's reliability diagram.
        groups: Those that matter most, flagged ones first, and all classes of tokens.
        flagged: Flags of all groups, in words.
        few: Slices with too few examples.
        judged: Slices and classes of tokens that were judged.
        worst: A few of the worst examples.
        control: The untaught control; None: not asked for.
    """

    folder: str
    fingerprint: str
    reused: bool
    rows: int
    documents: int
    seconds: float
    parent: str
    root: str
    figures: dict[str, AuditFigure]
    reliability: tuple[AuditBin, ...]
    groups: tuple[AuditGroup, ...]
    flagged: tuple[str, ...]
    few: tuple[str, ...]
    judged: int
    worst: tuple[AuditExample, ...]
    control: AuditControl | None = None
