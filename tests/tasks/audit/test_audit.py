"""Audited figures at the gate, in the record and on the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.measures.audit import Audit as Settings
from conf.schema.measures.audit import AuditLimit
from conf.schema.stage.gate import Gate
from tasks.audit.audit import audit_identity, control_work, read_audit
from tasks.audit.worst_examples import TOGETHER
from tasks.evaluation.gate import judge
from tasks.records.audit import AuditFigure, AuditGroup, AuditRecord
from tasks.records.run import StageRecord
from tasks.report.sections.measures import audit as section
from tasks.store.store import Found
from tasks.tracking.figures import metrics_of
from tasks.training.identity import numeric_settings
from tests.factories import data_record, model_record, run_record


def stage(name: str = "small", **more: Any) -> StageRecord:
    fingerprint = f"{name:x<64}"
    return model_record(name, fingerprint=fingerprint, weights_sha256=fingerprint[::-1], **more)


def figure(value: float | None, low: float | None = None, high: float | None = None, rows: int = 400) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "rows": rows, "documents": rows}


def found(folder: Path, **figures: dict[str, Any]) -> Found:
    """An audit in the store, with these figures."""
    group = {
        "kind": "slice",
        "rows": 200,
        "documents": 200,
        "few": False,
        "flags": ["parent.inherited"],
        "chances": {"parent.inherited": 0.001},
    }
    groups = [
        {**group, "name": "<script>alert(1)</script>", "figures": {"gap": figure(0.2, 0.1, 0.3), "student": figure(0.3, 0.2, 0.4)}},
        {**group, "name": "tiny", "rows": 1, "few": True, "flags": [], "figures": {}, "chances": {}},
    ]
    worst = {
        "kind": TOGETHER,
        "slice": "a",
        "label": "<b>",
        "answers": {"student": "x", "parent": "x"},
        "confidence": {"student": 0.9, "parent": 0.8},
    }
    known = {"ece": figure(0.04, 0.02, 0.06), "accuracy": figure(0.9, 0.87, 0.93)}
    raw = {
        "rows": 400,
        "documents": 400,
        "seconds": 1.5,
        "groups": groups,
        "figures": known | {name.replace("__", "."): value for name, value in figures.items()},
        "reliability": [{"confidence": 0.9, "accuracy": 0.8, "rows": 400}],
        "worst": [{**worst, "text": "<img src=x onerror=alert(1)>", "picture": None}] * 40,
    }
    folder.mkdir(exist_ok=True)
    (folder / "audit.json").write_text(json.dumps(raw))
    return Found(folder, {"fingerprint": "f" * 64})


def audited(folder: Path, lineage: list[StageRecord] | None = None, **figures: dict[str, Any]) -> StageRecord:
    audit = read_audit(found(folder, **figures), False, lineage or [stage("teacher")], None)
    return stage("small", audit=audit.model_copy(update={"few": ()}))


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        ({"max_ece": 0.06}, "passed"),
        ({"max_ece": 0.05}, "stopped"),  # 0.04, but up to 0.06
        ({"max_slice_amplification": 2.0}, "passed"),
        ({"max_slice_amplification": 1.2}, "stopped"),
        ({"max_confidently_wrong_excess": 0.02}, "stopped"),
        ({"max_confidently_wrong_excess": 0.05}, "passed"),
        ({"audited": [{"figure": "parent.agreement", "least": 0.85}]}, "passed"),
        ({"audited": [{"figure": "parent.agreement", "least": 0.9}]}, "stopped"),  # 0.9, but down to 0.86
        ({"audited": [{"figure": "brier", "most": 0.5}]}, "stopped"),  # not there
        ({"max_ece": 0.06, "max_slice_amplification": 1.2, "policy": "warn"}, "warned"),
    ],
)
def test_the_whole_interval_must_lie_within(tmp_path: Path, gate: dict[str, Any], verdict: str) -> None:
    known = {"parent__amplification": figure(1.1, 0.8, 1.6), "parent__agreement": figure(0.9, 0.86, 0.94)}
    known |= {f"parent__confident_inheritance_{t}_excess": figure(0.01, -0.01, 0.04) for t in ("0.7", "0.9")}
    assert judge(audited(tmp_path / "a", None, **known), Gate.model_validate(gate), (), (0.7, 0.9))[0] == verdict


def test_what_was_missed_is_said_with_its_interval(tmp_path: Path) -> None:
    assert judge(audited(tmp_path / "a"), Gate(max_ece=0.05))[1] == (
        "small has ece 0.04, between 0.02 and 0.06; gate.max_ece asks at most 0.05",
    )


def test_too_few_examples_never_open_a_gate(tmp_path: Path) -> None:
    few = audited(tmp_path / "a", parent__confident_inheritance_0__7_excess=figure(None, rows=3))
    assert few.audit is not None
    known = {"parent.confident_inheritance_0.7_excess": AuditFigure(value=None, rows=3, documents=3)}
    record = few.model_copy(update={"audit": few.audit.model_copy(update={"figures": few.audit.figures | known})})
    verdict, reasons = judge(record, Gate(max_confidently_wrong_excess=1.0), (), (0.7,))
    assert verdict == "stopped"
    assert "too few examples for parent.confident_inheritance_0.7_excess (3 rows)" in reasons[0]


def test_a_slice_that_could_not_be_judged_does_not_open_it_either(tmp_path: Path) -> None:
    record = audited(tmp_path / "a", parent__amplification=figure(0.5, 0.4, 0.6))
    gate = Gate(max_slice_amplification=5.0)
    assert judge(record, gate)[0] == "passed"
    assert record.audit is not None
    unjudged = record.model_copy(update={"audit": record.audit.model_copy(update={"few": ("tiny",)})})
    verdict, reasons = judge(unjudged, gate)
    assert verdict == "stopped"
    assert "too few examples for parent.amplification in 1 slices (tiny)" in reasons[0]


def test_a_student_without_an_audit_does_not_pass() -> None:
    verdict, reasons = judge(stage(), Gate(max_ece=1.0))
    assert verdict == "stopped"
    assert reasons == ("small has no ece, which was not audited; gate.max_ece asks at most 1",)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("audit.thresholds=[0.9,1.5]", r"audit\.thresholds: got \[0\.9, 1\.5\]; allowed: a list of one or more different probabilities"),
        ("audit.resamples=3", r"audit\.resamples: got 3; allowed: a whole number in \[100, 10000\]"),
        ("stages.half.gate.max_confidently_wrong_excess=0.02", r"stages\[0\]\.gate\.max_confidently_wrong_excess: .*audit\.control true"),
        ("stages.half.gate.audited=[{figure: fairness, most: 1}]", r"got figure 'fairness'; allowed: ece, nll, brier"),
        ("stages.half.gate.audited=[{figure: ece}]", r"got neither most nor least for ece"),
    ],
)
def test_bad_settings(override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load("digits", [override])


def test_a_gate_on_what_is_not_audited_is_refused() -> None:
    with pytest.raises(UserError, match=r"stages\[0\]\.gate\.max_ece: needs an audited figure; allowed: with audit\.enabled true"):
        load("digits", ["audit.enabled=false", "stages.half.gate.max_ece=0.1"])


def test_the_control_is_the_student_without_its_teacher(tmp_path: Path) -> None:
    ladder = load("digits", []).ladder
    (tmp_path / "corpus.json").write_text(
        json.dumps({"workload": "image-classification", "sequence_length": 1, "vocabulary": None, "end_id": None, "pad_id": None}
        | {"label_names": ["0", "1"], "slice_names": ["a"], "image_shape": [1, 8, 8], "documents": {"train": 9}, "tokens": {"train": 9}})
    )  # fmt: skip
    data = data_record(folder=str(tmp_path))

    def identity(which: int, parent: str) -> dict[str, Any]:
        stages = ladder.stages[which]
        return control_work(stages, stage(steps=10), stage(parent), ladder, data).identity

    # `half` begins with layers of its teacher, `quarter` at random: what taught it makes no difference there.
    assert identity(0, "one") != identity(0, "other")
    assert identity(1, "one") == identity(1, "other")
    assert identity(1, "one")["teachers"] == []
    assert identity(1, "one")["objective"]["alpha"]["start"] == 0
    assert identity(1, "one")["student"] == numeric_settings(ladder.stages[1].student)
    longer = control_work(ladder.stages[1], stage(steps=999), stage("one"), ladder, data)
    assert longer.training.steps == longer.identity["training"]["steps"] == 999  # an extended student's control is trained as long


def test_what_an_audits_identity_holds() -> None:
    ladder = load("digits", []).ladder
    data = data_record()
    models = {"student": stage("a"), "parent": stage("b")}

    def identity(*overrides: str, **others: StageRecord) -> dict[str, Any]:
        return audit_identity({**models, **others}, load("digits", overrides).ladder if overrides else ladder, data, "fp32")

    assert identity() == identity("audit.enabled=true") == identity("stages.half.gate.max_ece=0.5")
    for other in (
        identity(control=stage("c")),
        identity(root=stage("r")),
        identity("audit.smallest=0.1"),
        identity("evaluation.examples=9"),
    ):
        assert other != identity()


def test_of_one_teacher_both_names_tell(tmp_path: Path) -> None:
    audit = audited(tmp_path / "a", parent__kl=figure(0.1, 0.0, 0.2)).audit
    assert audit is not None
    assert audit.figures["root.kl"] == audit.figures["parent.kl"]
    two = audited(tmp_path / "b", [stage("teacher"), stage("middle")], parent__kl=figure(0.1)).audit
    assert two is not None
    assert "root.kl" not in two.figures
    assert (two.parent, two.root) == ("middle", "teacher")


def test_metrics_for_mlflow_leave_out_what_is_too_few(tmp_path: Path) -> None:
    metrics = metrics_of(audited(tmp_path / "a", parent__inheritance=figure(None, rows=2), parent__kl=figure(0.1)))
    assert {key: value for key, value in metrics.items() if key.startswith("audit/")} == {
        "audit/ece": 0.04, "audit/accuracy": 0.9, "audit/parent.kl": 0.1, "audit/root.kl": 0.1, "audit/flagged": 1.0,
    }  # fmt: skip
    assert all(re.fullmatch(r"[\w\-. :/]+", key) for key in metrics)


# ---- the page ----


def page(record: StageRecord) -> str:
    from tasks.report.page import render

    run = run_record("r", stage("teacher"), record, workload="image-classification")
    return render(run, "")


def test_the_page_says_what_was_found_and_escapes_it(tmp_path: Path) -> None:
    lineage = [stage("teacher")]
    audit = read_audit(found(tmp_path / "a", parent__inheritance=figure(None, rows=2)), False, lineage, None)
    html = page(stage("small", audit=audit))
    assert "Flagged: errors of teacher inherited in slice &lt;script&gt;alert(1)&lt;/script&gt;." in html
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "too few (2)" in html
    assert "Too few examples in 1 slices" in html
    assert "0.040 (0.020 to 0.060)" in html
    assert 'aria-label="Accuracy against confidence in 15 bins; expected calibration error: small 0.040"' in html
    assert html.count(TOGETHER) == 12  # of forty


def test_a_run_without_audits_has_no_such_section() -> None:
    assert "Audit:" not in page(stage())


def test_a_verdict_is_no_pass_where_nothing_was_judged(tmp_path: Path) -> None:
    audit = read_audit(found(tmp_path / "a"), False, [stage("teacher")], None)
    none = audit.model_copy(update={"judged": 0, "flagged": ()})
    assert section.verdict(none).startswith("Nothing was judged: every slice has too few examples.")


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("agreement", figure(0.905, 0.88, 0.93), "90.5 % (88.0 to 93.0)"),
        ("kl", figure(0.2, 0.1, 0.3), "0.200 (0.100 to 0.300)"),
        ("kappa", figure(0.9), "0.900"),
        ("kappa", figure(None), "-"),
        ("kl", figure(None, rows=7), "too few (7)"),
        ("inheritance_excess", figure(0.05, -0.01, 0.1), "5.0 % (-1.0 to 10.0)"),
        ("confident_inheritance_0.9", figure(0.5, 0.25, 0.75), "50.0 % (25.0 to 75.0)"),
    ],
)
def test_a_figure_reads(name: str, given: dict[str, Any], text: str) -> None:
    assert section.shown(AuditFigure(**given), name) == text


def test_old_records_and_settings_still_load() -> None:
    assert StageRecord.model_validate_json(stage().model_dump_json(exclude={"audit"})).audit is None
    assert Settings() == Settings.model_validate({})
    assert AuditLimit(figure="ece", most=1.0).least is None
    assert AuditGroup(name="a", kind="slice", rows=0, documents=0, few=True).flags == ()
    assert AuditRecord.model_config.get("frozen")


def test_a_gap_is_a_multiple_of_the_teachers_only_where_the_teacher_has_one() -> None:
    def shown(gap: float, theirs: float, smallest: float = 0.02) -> Any:
        figures = {"gap": gap, "parent.gap": theirs, "parent.amplification": gap / max(theirs, smallest)}
        group = AuditGroup(
            name="a",
            kind="slice",
            rows=400,
            documents=400,
            few=False,
            figures={name: AuditFigure.model_validate(figure(value)) for name, value in figures.items()},
        )
        return section._group(group, same=True, errors=False, controlled=False)["amplification"]

    assert shown(0.30, 0.20) == "1.5"
    assert shown(-1.292, -0.4) == "-", "better than the mean, as its teacher is"
    assert shown(0.30, 0.001) == "-", "the gate's figure is over audit.smallest"
