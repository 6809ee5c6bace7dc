"""Cached signals in a ladder: when they are chosen, who shares them, what they cost, and what is refused."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf.errors import LadderError, UserError
from conf.home import Home
from conf.loading.load import load
from conf.schema.ladder import Ladder
from conf.schema.teacher import TrainedTeacher
from models.architectures.checkpoint import load_model
from models.base.files import read_json
from models.base.interface import Interface
from models.data.batches import TrainingBatches
from models.data.corpus import CorpusInfo
from models.signals.cache import MANIFEST, SignalCache
from models.signals.fill import needed_keys
from tasks.data.prepare import prepare_data
from tasks.planning.plan import make_plan
from tasks.records.run import StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.fingerprint import fingerprint
from tasks.teachers.teacher import teacher_work
from tasks.training.find_or_train import find_or_train
from tasks.training.identity import stage_identity
from tasks.training.signals.signal_cache import cache_identity, check, logits_of
from tasks.training.signals.signal_policy import check_signals, choose
from tasks.training.student import student_work

LADDER = """
name: digits
workload: image-classification
data: {source: digits, valid_fraction: 0.2}
compute: {at_once: null}
defaults:
  objective: {alpha: 0.7}
  signals: {source: cached, kind: full}
  training: {steps: 12, batch_size: 16, precision: fp32}
teacher:
  source: train
  shape: {family: vit, hidden_size: 32, layers: 2, heads: 4, feed_forward: 64}
  training: {steps: 8, batch_size: 16, precision: fp32}
stages:
  - name: half
    student: {shape: {family: vit, hidden_size: 24, layers: 2, heads: 4, feed_forward: 64}}
  - name: quarter
    teachers: [root]
    student: {shape: {family: vit, hidden_size: 16, layers: 2, heads: 4, feed_forward: 32}}
"""
TEXT = """
name: text
data: {source: files, paths: ["*.txt"], sequence_length: 32}
defaults: {training: {steps: 10, batch_size: 8}, signals: {source: auto}}
teacher: {source: train, shape: {hidden_size: 32, layers: 2, heads: 2, feed_forward: 64}, training: {steps: 4}}
stages:
  - name: one
    student: {shape: {hidden_size: 24, layers: 2, heads: 2, feed_forward: 48}}
  - name: two
    student: {shape: {hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}}
"""


def loaded(text: str, *overrides: str) -> Ladder:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ladder.yaml"
        path.write_text(text)
        return load(str(path), overrides).ladder


def info(windows: int) -> CorpusInfo:
    return CorpusInfo("causal-lm", 32, 258, 256, 257, (), ("all",), None, {"train": 5}, {"train": 32 * windows + 1})


class TestChoice:
    def test_live_is_the_default_and_no_part_of_the_identity(self) -> None:
        plain, explicit = (
            loaded(TEXT.replace("auto", "live")),
            loaded(TEXT.replace("{source: auto}", "{source: live, kind: top-k, seed: 5}")),
        )
        before, after = (stage_identity(ladder, ladder.stages[0], "fp32", "d", ("t",)) for ladder in (plain, explicit))
        assert fingerprint(before) == fingerprint(after)
        assert "signals" not in before
        assert loaded(TEXT.replace(", signals: {source: auto}", "")).stages[0].signals.source == "live"

    @pytest.mark.parametrize(
        ("overrides", "windows", "cached", "reason"),
        [
            ([], 80, False, "auto: 1 student x 1 epochs = 1"),
            ([], 79, True, "auto: 1 student x 1.01 epochs > 1"),
            ([], None, False, "auto; decided anew once the data are prepared"),
            (["stages.two.teachers=root"], None, True, "auto: 2 students x 1 epochs > 1"),
            (["stages.two.teachers=root", "stages.two.signals.draws=20"], 800, False, "auto: 1 student x 1 epochs = 1"),
            (["stages.one.objective.alpha=0"], 10, False, "alpha is 0, so no teacher is asked"),
            (["stages.one.signals.source=cached"], 8000, True, "as set"),
        ],
    )
    def test_auto_caches_what_is_used_more_than_once(self, overrides: list[str], windows: int | None, cached: bool, reason: str) -> None:
        ladder = loaded(TEXT, *overrides)
        assert choose(ladder.stages[0], ladder, info(windows) if windows else None) == (cached, reason)

    @pytest.mark.parametrize("change", ["temperature=2", "kind=jsd", "standardize=true", "features=[{kind: hidden}]"])
    def test_auto_gives_way_where_a_cache_holds_too_little_and_cached_is_refused(self, change: str) -> None:
        ladder = loaded(TEXT, f"stages.one.objective.{change}")
        choice = choose(ladder.stages[0], ladder, info(10))
        assert not choice.cached
        assert choice.reason.startswith("auto: objective.")
        with pytest.raises(UserError, match=r"stages\[0\]\.objective\."):
            loaded(TEXT, f"stages.one.objective.{change}", "stages.one.signals.source=cached")

    def test_the_identity_holds_what_a_record_is_made_by(self) -> None:
        def key(*overrides: str) -> str:
            ladder = loaded(TEXT, "stages.one.signals.source=cached", *overrides)
            stage = ladder.stages[0]
            return fingerprint(stage_identity(ladder, stage, "fp32", "d", ("t",), None, stage.signals))

        own = key()
        assert own == key("stages.one.signals.k=7")
        others = [
            ["stages.one.signals.draws=7"],
            ["stages.one.signals.seed=7"],
            ["stages.one.signals.kind=top-k"],
            ["stages.one.signals.kind=full"],
        ]
        assert len({own, *(key(*other) for other in others)}) == 5

    def test_what_does_not_fit_the_vocabulary(self) -> None:
        large = Interface("causal-lm", 32, 49_152)
        with pytest.raises(UserError, match=r"stages\[0\]\.signals\.k: got 300; allowed: at most the 258 ids"):
            check_signals(loaded(TEXT, "stages.one.signals={source: cached, kind: top-k, k: 300}"), Interface("causal-lm", 32, 258))
        with pytest.raises(
            UserError, match=r"stages\[1\]\.signals\.kind: got 'full'; allowed: full for at most 4096 ids or classes; the data have 49152"
        ):
            check_signals(loaded(TEXT, "stages.two.signals.kind=full"), large)
        check_signals(loaded(TEXT, "stages.two.signals={source: live, kind: full}"), large)


class Made:
    """A home with data, a teacher, and two students taught by the same cache."""

    def __init__(self, home: Home) -> None:
        self.ladder = loaded(LADDER)
        self.context = Context(run="run-1", ladder="digits", home=str(home.root), base=str(Path.cwd()))
        self.data = prepare_data(self.ladder, self.context)
        assert isinstance(self.ladder.teacher, TrainedTeacher)
        self.teacher = find_or_train(
            teacher_work(self.ladder, self.ladder.teacher, self.data), StageInputs(self.ladder, self.data, self.context)
        )
        self.half = self.taught("half")
        self.quarter = self.taught("quarter")

    def taught(self, name: str, *overrides: str) -> StageRecord:
        ladder = loaded(LADDER, *overrides)
        stage = next(stage for stage in ladder.stages if stage.name == name)
        return find_or_train(student_work(stage, self.teacher, ladder, self.data), StageInputs(ladder, self.data, self.context))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(Home(tmp_path_factory.mktemp("home")))


def computed(record: StageRecord) -> int:
    assert record.signals is not None
    return int(record.signals.partition(" bytes each, ")[2].partition(" examples computed")[0].replace(",", ""))


class TestRuns:
    def test_students_of_one_teacher_share_a_cache(self, made: Made) -> None:
        assert made.half.signals is not None
        assert made.half.signals.startswith("full, 20.0 bytes each, 192 examples computed in ")
        assert computed(made.quarter) == 0
        assert len(list((made.context.paths.store / "signals").iterdir())) == 1

    @pytest.mark.parametrize(
        "change", ["objective.temperature=3", "objective.alpha=0.2", "training.learning_rate=1e-3", "training.steps=5"]
    )
    def test_other_settings_of_the_student_reuse_it(self, made: Made, change: str) -> None:
        assert computed(made.taught("half", f"stages.half.{change}")) == 0

    def test_a_longer_training_adds_what_is_missing(self, made: Made) -> None:
        before = len(list((made.context.paths.store / "signals").glob("*/part-*.bin")))
        assert computed(made.taught("quarter", "stages.quarter.training.steps=16")) == 4 * 16
        assert len(list((made.context.paths.store / "signals").glob("*/part-*.bin"))) == before + 1

    def test_other_data_with_the_same_examples_are_answered_where_they_are_new(self, made: Made) -> None:
        ladder = loaded(LADDER, "data.max_train_documents=300")
        data = prepare_data(ladder, made.context)
        assert data.content_hash != made.data.content_hash
        folders = [Path(path) for path in (made.context.paths.store / "signals").iterdir()]
        [earlier] = [SignalCache.open(f, m["fingerprint"], m["identity"], pytest.fail) for f in folders for m in [read_json(f / MANIFEST)]]
        work = student_work(ladder.stages[0], made.teacher, ladder, data)
        _, keys = needed_keys(TrainingBatches(data.corpus(), 16, work.seed), 12)
        stored = int((~earlier.missing(keys)).sum())
        assert 0 < stored < len(keys) == 192
        record = find_or_train(work, StageInputs(ladder, data, made.context))
        assert (record.answers_asked, record.answers_copied) == (192 - stored, stored)
        assert record.signals is not None
        assert f"{192 - stored} examples computed in " in record.signals
        assert f", {stored} copied (" in record.signals
        caches = set((made.context.paths.store / "signals").iterdir()) - set(folders)
        shutil.rmtree(caches.pop())  # the other tests count the caches of one corpus

    def test_the_teachers_operations_are_counted_once_where_they_were_spent(self, made: Made) -> None:
        tokens = made.ladder.stages[0].training.steps * 16 * 17  # 16 patches and the class token
        own = [3 * record.flops_per_token * tokens for record in (made.half, made.quarter)]
        assert made.half.flops == pytest.approx(own[0] + made.teacher.flops_per_token * tokens)
        assert made.quarter.flops == pytest.approx(own[1])

    def test_full_signals_teach_as_the_teacher_itself_does(self, made: Made) -> None:
        live = made.taught("half", "stages.half.signals.source=live")
        assert live.signals == "live"
        assert live.fingerprint != made.half.fingerprint
        curves = [json.loads((Path(record.folder) / "curve.json").read_text())["train"] for record in (live, made.half)]
        assert [point["loss"] for point in curves[1]] == pytest.approx([point["loss"] for point in curves[0]], rel=2e-3)

    def test_the_plan_says_what_is_decided_and_what_it_takes(self, made: Made) -> None:
        notes = make_plan(made.ladder, Path.cwd(), made.context.paths).notes
        assert "half: signals cached (as set): full, about 20 bytes each and 3.75 KiB in all for each teacher" in notes
        auto = make_plan(loaded(LADDER, "stages.half.signals.source=auto"), Path.cwd(), made.context.paths).notes
        assert "half: signals live (auto: 1 student x 1 epochs = 1)" in auto

    def test_a_reused_stage_is_found_by_its_plan(self, made: Made) -> None:
        assert make_plan(made.ladder, Path.cwd(), made.context.paths).stages[0].action == "reuse"


class TestRefused:
    def parts(self, made: Made) -> tuple[SignalCache, TrainingBatches, str, dict[str, Any]]:
        corpus = made.data.corpus()
        identity = cache_identity(made.ladder.stages[0].signals, made.teacher, corpus, "fp32")
        key = fingerprint(identity)
        (folder,) = (made.context.paths.store / "signals").glob(f"*-{key[:20]}")
        return SignalCache.open(folder, key, identity, pytest.fail), TrainingBatches(corpus, 16, 0), key, identity

    def test_signals_of_another_teacher_are_noticed_before_training(self, made: Made) -> None:
        cache, batches, key, _ = self.parts(made)
        corpus = made.data.corpus()
        check(cache, batches.at(0), logits_of(load_model(Path(made.teacher.folder), "image-classification"), corpus, "cpu", "fp32"), key)
        other = logits_of(load_model(Path(made.quarter.folder), "image-classification"), corpus, "cpu", "fp32")
        with pytest.raises(LadderError, match=rf"The signals {key[:12]} in .* are not those of this teacher: over 4 examples"):
            check(cache, batches.at(0), other, key)

    def test_a_folder_of_another_teacher_is_refused_with_both_fingerprints(self, made: Made) -> None:
        cache, _, key, _ = self.parts(made)
        path = cache.folder / "manifest.json"
        before = path.read_text()
        manifest = json.loads(before)
        manifest["fingerprint"], manifest["identity"]["teacher"] = "f" * 64, "0" * 64
        path.write_text(json.dumps(manifest))
        try:
            with pytest.raises(UserError) as error:
                made.taught("half", "stages.half.objective.alpha=0.3")
        finally:
            path.write_text(before)
        assert "f" * 64 in str(error.value)
        assert key in str(error.value)
        assert f"teacher {'0' * 64} instead of {made.teacher.weights_sha256}" in str(error.value)

    def test_each_part_of_the_identity_makes_another_cache(self, made: Made) -> None:
        corpus, signals = made.data.corpus(), made.ladder.stages[0].signals.model_copy(update={"kind": "sampled"})
        own = cache_identity(signals, made.teacher, corpus, "fp32")
        others = [
            cache_identity(signals.model_copy(update={"draws": 7}), made.teacher, corpus, "fp32"),
            cache_identity(signals.model_copy(update={"seed": 7}), made.teacher, corpus, "fp32"),
            cache_identity(signals, made.half, corpus, "fp32"),
            cache_identity(signals, made.teacher, replace(corpus, content_hash="other"), "fp32"),
            cache_identity(signals, made.teacher, corpus, "bf16"),
        ]
        assert len({fingerprint(identity) for identity in (own, *others)}) == 6
