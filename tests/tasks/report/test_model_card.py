"""Model cards: metadata of the Hub, figures of the record, untouched store files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt

from conf.loading.load import load
from conf.schema.ladder import Ladder
from models.data.corpus import CorpusInfo
from tasks.records.audit import AuditRecord
from tasks.records.data import DataCounts
from tasks.records.run import AlsoRecord, DataRecord, Retention, RunRecord, SampleRecord, StageRecord
from tasks.report.model_card import CARD, card, write_card
from tasks.runtime.runs.run_registry import Context, save
from tests.factories import data_record

IDENTITY = {"student": {"initialisation": "layers"}, "training": {"steps": 300}, "data": "d" * 64}
HUB = "teacher={source: checkpoint, path: someone/large}"


@pytest.fixture
def place(tmp_path: Path, digits: RunRecord) -> tuple[StageRecord, StageRecord, DataRecord, Context]:
    """A root and a student whose folders are there, their corpus and their run."""
    assert digits.teacher
    info = CorpusInfo(
        "image-classification", 17, None, None, None, ("0", "1"), ("0",), (1, 8, 8), {"train": 1_269, "valid": 342, "test": 186}, {}
    )
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "corpus.json").write_text(json.dumps(vars(info)))
    data = data_record(folder=str(tmp_path / "corpus"), content_hash="c0ffee" * 10, reused=True)
    context = Context(run=digits.run, ladder="digits", home=str(tmp_path), base=str(tmp_path))
    save(context.paths, digits.model_copy(update={"source": "digits", "overrides": ("seed=3",)}))
    return digits.teacher, digits.stages[0].model_copy(update={"identity": IDENTITY}), data, context


def data_of(text: str) -> ModelCardData:
    found = ModelCard(text).data
    assert isinstance(found, ModelCardData)
    return found


def text_of(place: Any, ladder: Ladder | None = None, **more: Any) -> str:
    root, student, data, context = place
    run = RunRecord.model_validate_json((context.paths.runs / context.run / "record.json").read_text())
    return card(student.model_copy(update=more), [root], ladder or load("digits").ladder, data, context, run)


def test_the_metadata_are_in_the_hubs_format(place: Any):
    root, student, _, _ = place
    found = data_of(text_of(place))
    assert found.library_name == "transformers"
    assert found.pipeline_tag == "image-classification"
    assert found.tags == ["distillation", "knowledge-distillation", "ladder:digits"]
    assert found.base_model == f"digits-teacher-{root.fingerprint[:12]}", "no name that could be somebody else's"
    assert found.license is None
    results = {result.metric_type: result.metric_value for result in found.eval_results or []}
    assert results == {"accuracy": 0.8444, "f1": 0.8344, "nll": 0.2, "ece": 0.02}
    assert {(result.dataset_name, result.dataset_split) for result in found.eval_results or []} == {("digits", "validation")}
    assert found.model_name == f"digits-small-{student.fingerprint[:12]}"


def test_a_root_from_the_hub_is_the_base_model(place: Any, tmp_path: Path):
    root, _, _, _ = place
    ladder = load("digits", ["teacher=null", HUB]).ladder
    assert data_of(text_of(place, ladder)).base_model == "someone/large"
    (tmp_path / "someone" / "large").mkdir(parents=True)
    again = data_of(text_of(place, ladder))
    assert again.base_model == f"digits-teacher-{root.fingerprint[:12]}", "a folder of that name is not the Hub's"


def test_the_licence_is_the_roots(place: Any, tmp_path: Path):
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / CARD).write_text("---\nlicense: other\nlicense_name: ours\nbase_model: someone/large\n---\n")
    ladder = load("digits", ["teacher=null", "teacher={source: checkpoint, path: large}"]).ladder
    found = data_of(text_of(place, ladder))
    assert (found.license, found.license_name, found.base_model) == ("other", "ours", "someone/large")
    assert "License: ours, as README.md of the root says." in text_of(place, ladder)
    chosen = ladder.model_copy(update={"license": "mit"})
    assert data_of(text_of(place, chosen)).license == "mit"
    assert "License: mit, as the settings say." in text_of(place, chosen)


def test_the_text_says_what_a_reader_must_know(place: Any):
    root, student, _, _ = place
    text = text_of(place)
    for words in (
        "A model of 6.92k parameters, distilled from teacher of 26.6k parameters: 3.8x fewer parameters, 87.1 % of the root's quality",
        f"| small | 6,922 | teacher | `{student.fingerprint[:12]}` | `{student.weights_sha256}` |",
        f"`{root.weights_sha256}`",
        "digits: 1,269 train, 342 valid, 186 test documents; content hash `c0ffeec0ffee`.",
        "| Accuracy | 84.4 % | 96.9 % |",
        "| kept of the root (accuracy ratio) | 87.1 % | |",
        "Its gate: root retention 87.1 % is below the 95.0 % that stages.small.gate.min_root_retention asks.",
        "Weakest slices, accuracy (and their examples): 0 69.4 % (9), 1 72.4 % (13)",
        "160 steps, 2.46M examples",
        "image = np.zeros((1, 8, 8), dtype=np.uint8)",
        "ladder run digits seed=3",
        "initialisation: layers",
    ):
        assert words in text, words
    assert "data: dddd" not in text


def test_the_limits_are_those_that_the_audit_found(place: Any):
    assert "- No audit was run: which errors it has of its teachers is not known." in text_of(place)
    figures = {"rows": 300, "documents": 300, "seconds": 1.0, "figures": {}, "reliability": (), "groups": (), "judged": 9, "worst": ()}
    found = AuditRecord(
        folder="", fingerprint="", reused=False, parent="teacher", root="teacher", flagged=("digit-3: inherited",), few=(), **figures
    )
    text = text_of(place, audit=found)
    assert "- Audit against teacher and the root: Flagged: digit-3: inherited." in text
    assert "No audit was run" not in text


def test_hostile_names_do_not_break_the_tables(place: Any):
    evil = {"a|b\n# x <img src=x>": {"count": 3.0, "accuracy": 0.1}}
    text = text_of(place, slices=evil, samples=(SampleRecord(prompt="x", text="y"),))
    assert "a\\|b # x &lt;img src=x&gt; 10.0 % (3)" in text


HOSTILE = (
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](http://elsewhere.example/x.png)",
    "a\n---\nlicense: mit\nbase_model: somebody/else\n---\n# heading",
    "a\n```\n<script>alert(1)</script>\n```",
    "`code` **bold** ~~struck~~ <b>b</b> | cell | <http://elsewhere.example>",
    "# heading",
    "> quoted",
    "- item",
    "1. item",
    "<!-- ",
    "[x]: http://elsewhere.example",
    "&lt;script&gt;",
    "\u202egnp.exe",
)


def reader() -> MarkdownIt:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def kinds(tokens: Any) -> set[str]:
    return {kind for token in tokens for kind in (token.type, *kinds(token.children or ()))}


@pytest.mark.parametrize("evil", HOSTILE)
def test_text_of_others_stays_text(place: Any, evil: str):
    root, student, data, context = place
    ladder = load("digits").ladder.model_copy(update={"description": evil})
    noted = data.model_copy(update={"counts": DataCounts(notes=(evil,))})
    also = {evil: AlsoRecord(metrics={"accuracy": 0.7, "nll": 0.9}, retention=Retention(root=0.8), rows=300, few=False)}
    identity = {**IDENTITY, "student": {"config": {"architectures": [evil]}}}
    hostile: dict[str, Any] = {"decision": f"approved by {evil}", "gate_reasons": (evil,), "also": also, "identity": identity}
    slices = {evil: {"count": 3.0, "accuracy": 0.1}}
    plain = ("a plain word", {**hostile, "decision": "approved by a plain word", "gate_reasons": ("a plain word",)})
    text = text_of((root, student, noted, context), ladder, slices=slices, samples=(SampleRecord(prompt=evil, text=evil),), **hostile)
    usual = text_of(
        (root, student, data.model_copy(update={"counts": DataCounts(notes=(plain[0],))}), context),
        load("digits").ladder.model_copy(update={"description": plain[0]}),
        slices={plain[0]: slices[evil]},
        samples=(SampleRecord(prompt="x", text="y"),),
        **{**plain[1], "also": {plain[0]: also[evil]}, "identity": IDENTITY},
    )
    assert data_of(text).to_dict() == data_of(usual).to_dict(), "the metadata are ours"
    body, known = text.partition("\n---\n")[2], usual.partition("\n---\n")[2]
    assert [(token.type, token.tag) for token in reader().parse(body)] == [(token.type, token.tag) for token in reader().parse(known)]
    assert kinds(reader().parse(body)) <= kinds(reader().parse(known))
    assert "<script" not in MarkdownIt("commonmark").render(body).replace("&lt;script", "")


def test_it_is_written_over_an_older_one_or_not_at_all(place: Any, caplog: pytest.LogCaptureFixture, calm: None):
    root, student, data, context = place
    ladder = load("digits").ladder
    path = write_card(student, [root], ladder, data, context)
    assert path
    assert path == Path(student.folder) / CARD
    first = path.read_text()
    assert write_card(student.model_copy(update={"steps": 161}), [root], ladder, data, context) == path
    assert path.read_text() == first.replace("160 steps", "161 steps")
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    gone = student.model_copy(update={"folder": str(path.parent / "gone")})
    assert write_card(gone, [root], ladder, data, context) is None, "a run goes on without a card"
    assert "small: no model card was written (No such file or directory)" in caplog.text


def test_a_student_without_a_teacher_says_so(place: Any):
    text = text_of(place, teachers=())
    assert "trained from labels alone" in text
    assert "kept of the root" in text
    assert "distilled from" not in text.split("## ")[0]


def test_remarks_on_the_data_are_listed(place: Any):
    root, student, data, context = place
    counts = DataCounts(notes=("3 rows without label left out", "96.5 % of the ids of valid | test are cut"))
    text = text_of((root, student, data.model_copy(update={"counts": counts}), context))
    assert "Images of 8 x 8 pixels, grey.\n\n- 3 rows without label left out\n- 96.5 % of the ids of valid \\| test are cut\n" in text
    assert "left out" not in text_of(place)


def test_quality_on_other_data_is_told(place: Any):
    assert "judged on them alone; its quality on other data is unknown" in text_of(place)
    also = {"letters": AlsoRecord(metrics={"accuracy": 0.71, "nll": 0.9}, retention=Retention(root=0.82), rows=300, few=False)}
    text = text_of(place, also=also)
    assert "- It was made for the data above and judged on them, and on letters.\n" in text
    assert "- On letters, data that no training saw: 71.0 % accuracy, 82.0 % of the root's quality." in text
