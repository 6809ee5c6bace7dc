"""Settings of text that the student writes: refusals, identity, operations, and what rewrites a ladder."""

import tempfile
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.stage.signals import Signals
from tasks.planning.budget import _stage_seconds
from tasks.planning.costs.calibration import StepSeconds
from tasks.planning.matching import settled
from tasks.planning.routes import routed
from tasks.search.plan import _of_stage
from tasks.store.fingerprint import fingerprint
from tasks.training.bake_off import trial_stage
from tasks.training.costs.cost_model import Forward, answers_of, ladder_flops
from tasks.training.costs.examples import AnswerCaches, TrainingExamples
from tasks.training.identity import known_settings, stage_identity
from tasks.training.signals.signal_policy import choose

TEXT = """
name: text
data: {source: files, paths: ["*.txt"], sequence_length: 32}
defaults: {training: {steps: 10, batch_size: 8}}
teacher: {source: train, shape: {hidden_size: 32, layers: 2, heads: 2, feed_forward: 64}, training: {steps: 4}}
stages:
  - name: one
    student: {shape: {hidden_size: 24, layers: 2, heads: 2, feed_forward: 48}}
    signals: {source: on-policy}
  - name: two
    student: {shape: {hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}}
"""


SERVED = "stages.one.signals.endpoint={url: 'http://h/v1', model: big}"


def loaded(*overrides: str, text: str = TEXT) -> Ladder:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ladder.yaml"
        path.write_text(text)
        return load(str(path), overrides).ladder


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.one.teachers=none"], r"stages\[0\]\.signals\.source: got 'on-policy'; allowed: live, without a teacher"),
        (["stages.one.objective.alpha=0"], r"stages\[0\]\.objective\.alpha: got 0\.0; allowed: above 0 throughout"),
        (["stages.one.objective.alpha={kind: cosine, start: 0.5, end: 0}"], r"objective\.alpha: got 0\.0; allowed: above 0 throughout"),
        (["stages.one.objective.features=[{kind: hidden}]"], r"features: got 'hidden'; allowed: none, with signals on-policy"),
        (["data.cross_document_attention=false"], r"source: got 'on-policy'; allowed: .*with data\.cross_document_attention false"),
        (["stages.one.signals.prompt=32"], r"signals\.prompt: got 32; allowed: below data\.sequence_length, 32"),
        (["stages.one.signals.tokens=17"], r"signals\.tokens: got 17; allowed: at most 16, which data\.sequence_length leaves"),
        (["data.columns={prompt: q, completion: a}", "stages.one.signals.prompt=4"], r"signals\.prompt: got 4; allowed: none, for rows"),
        (
            [SERVED, "stages.one.objective.alignment=bytes"],
            r"signals\.endpoint: got 'http://h/v1'; allowed: none, with objective\.alignment",
        ),
        (["compute={launcher: torchrun, workers: 2}"], r"compute\.workers: got 2; allowed: 1, with signals on-policy"),
        ([SERVED, "stages.one.signals.source=cached"], r"signals\.endpoint: got 'http://h/v1'; allowed: none, with signals\.source cached"),
        ([SERVED, "stages.one.teachers=none"], r"signals\.endpoint: got 'http://h/v1'; allowed: none, with teachers other than"),
        ([SERVED, "stages.one.members=2"], r"signals\.endpoint: got 'http://h/v1'; allowed: none, with members"),
        ([SERVED, "stages.one.objective.kind=dkd"], r"objective\.kind: got 'dkd'; allowed: .* which do not hold every probability"),
        (["stages.one.signals.fraction=0"], r"signals\.fraction: got 0; allowed: a number in"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as told:
        loaded(*overrides)
    assert len(str(told.value).splitlines()) == 1


def test_a_classifier_writes_no_text() -> None:
    text = TEXT.replace("name: text", "name: text\nworkload: sequence-classification").replace(
        '["*.txt"]', "[a.csv], columns: {text: t, label: l}"
    )
    with pytest.raises(UserError, match=r"signals\.source: got 'on-policy'; allowed: .* only language models write text"):
        loaded(text=text)


def test_the_identity_holds_what_is_written_and_no_other_stage_s_changes() -> None:
    def key(*overrides: str, stage: int = 0) -> str:
        ladder = loaded(*overrides)
        return fingerprint(stage_identity(ladder, ladder.stages[stage], "fp32", "d", ("t",)))

    own = {key(), key("stages.one.signals.source=live")}
    own |= {
        key(f"stages.one.signals.{change}")
        for change in ("fraction=0.5", "buffer=2", "reuse=2", "prompt=9", "tokens=3", "sampling_temperature=0")
    }
    assert len(own) == 8
    served = {key(SERVED), key(SERVED, "stages.one.signals.k=7"), key(SERVED, "stages.one.signals.source=live")}
    assert len(own | served) == 11
    assert key(SERVED) == key(SERVED, "stages.one.signals.endpoint.retries=9", "stages.one.signals.endpoint.price_in=3")
    assert key("stages.one.signals.k=7") == key(), "settings of a cache are none of it"
    assert key(stage=1) == key("stages.two.signals.fraction=0.5", stage=1), "nor are these of a live teacher"
    assert known_settings(Signals()) == {"source": "live", "kind": "sampled", "k": 50, "draws": 50, "seed": 0}
    assert _of_stage(loaded().stages[1])["signals"] == known_settings(Signals()), "identities of searches stay as they were"


def test_every_rewriting_of_a_ladder_keeps_the_student_writing() -> None:
    ladder = loaded("stages.two.teachers=best", "stages.two.signals={source: on-policy, buffer: 3}")
    stage = ladder.stages[1]
    assert choose(stage, ladder, None) == (False, "the student writes the text")
    assert settled(ladder, None).stages[1].signals == stage.signals
    assert trial_stage(stage, ladder, None).signals == stage.signals
    assert routed("direct", ladder).stages[0].signals == stage.signals
    with pytest.raises(UserError, match=r"route: got 'root-cached'; allowed: stages that learn from the data; one writes its own text"):
        routed("root-cached", ladder)


def test_a_budget_counts_the_seconds_of_writing() -> None:
    def seconds(*overrides: str) -> float:
        ladder = loaded(*overrides)
        (answers, _) = answers_of(ladder, [False, False], AnswerCaches(TrainingExamples(50)))
        return _stage_seconds(ladder, 0, [StepSeconds(0, 0, 0), StepSeconds(1.0, 0.0, 0.0, write=0.25)], answers)

    assert seconds() - seconds("stages.one.signals.source=live") == pytest.approx(10 * 8 * 0.25)
    assert seconds("stages.one.signals.reuse=5") - seconds("stages.one.signals.source=live") == pytest.approx(2 * 8 * 0.25)


def test_writing_a_text_costs_one_forward_pass_of_the_student() -> None:
    forwards, examples = [Forward(1000, 1000), Forward(100, 100), Forward(10, 10)], TrainingExamples(50)

    def student(*overrides: str, taken: list[int] | None = None) -> int:
        return ladder_flops(loaded(*overrides), forwards, [False, False], examples, taken)[0].student

    plain = 10 * 8 * 3 * 100
    assert student("stages.one.signals.source=live") == plain
    assert student() == plain + 10 * 8 * 100
    assert student("stages.one.signals.fraction=0.5") == plain + 5 * 8 * 100
    assert student("stages.one.signals={source: on-policy, buffer: 2, reuse: 2}") == plain + (2 + 2 + 2) * 8 * 100
    assert student("stages.one.members=2") == 2 * (plain + 10 * 8 * 100)
    assert student(taken=[4, 10]) == 4 * 8 * 4 * 100
    trials = ladder_flops(loaded("stages.two.teachers=best", "stages.two.signals.source=on-policy"), forwards, [False, False], examples)[1]
    assert trials.student == (10 + 2 * 1) * 8 * 4 * 10
