"""Top-k answers of a language model from a file, in place of a teacher."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import processors

from conf.errors import LadderError, UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import DENSE_ONLY, Objective, ObjectiveKind
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import load_model
from models.architectures.shapes import config_for
from models.architectures.token_answers import TokenAnswers, spread_evenly
from models.data import tokenizers
from models.data.batches import TrainingBatches, evaluation_batches
from models.evaluation.evaluation import collect
from models.losses.loss import HiddenSignal, SparseSignal, StepObjective, distillation_loss
from models.signals.codec import dense
from models.signals.sources import live
from models.students.initialise import random_model
from tasks.audit.audit import audit_model
from tasks.evaluation.evaluate import evaluate_model
from tasks.planning.calibration import StepSeconds, calibrate
from tasks.planning.plan import make_plan
from tasks.proof.arms import refuse
from tasks.proof.prepare_arms import arms_of
from tasks.records.run import StageRecord
from tasks.teachers.quality import accept_teacher
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student
from tests.factories import inputs_of, ladder_of_file

SHAPE = {"family": "llama", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32}
TRAINING = {"steps": 40, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32", "validate_every": 40, "checkpoint_every": 40}
TEXTS = [
    *(f"{i} {word * (1 + i % 3)}" for i in range(30) for word in ("ab", "ba")),
    *(f"{i}: several of {i} and {i} and {i} windows" for i in range(10)),
]
LENGTH = 16
END = 256
VOCABULARY = 258


def ladder_of(stage: dict[str, Any] | None = None, student: dict[str, Any] | None = None, **changes: Any) -> Ladder:
    teacher = {"source": "answers", "path": "answers.parquet", "parameters": 10**6, **changes.pop("teacher", {})}
    settings: dict[str, Any] = {
        "workload": "causal-lm",
        "teacher": teacher,
        "evaluation": {"examples": 64, "samples": 2, "sample_tokens": 2},
        "stages": [{"name": "small", "student": {"shape": SHAPE, **(student or {})}, "training": TRAINING, **(stage or {})}],
    }
    return ladder_of_file(length=LENGTH, **settings | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))
    (tmp_path / "home").mkdir()
    write(tmp_path, *likely())
    return tmp_path


def likely(sure: float = 0.9) -> tuple[list[Any], list[Any]]:
    """Answers that know every text: the right id with a probability, and one other."""
    ids = [[[token, (token + 1) % 256] for token in [*text.encode(), END]] for text in TEXTS]
    return ids, [[[float(np.log(sure)), float(np.log(0.06))] for _ in each] for each in ids]


def write(folder: Path, ids: list[Any], logprobs: list[Any], texts: list[str] | None = None) -> None:
    order = list(reversed(range(len(ids))))
    named = texts or TEXTS
    columns = {"text": [named[i] for i in order], "ids": [ids[i] for i in order], "logprobs": [logprobs[i] for i in order]}
    pq.write_table(pa.table(columns), folder / "answers.parquet")


def refused(folder: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepare_teacher(inputs_of(ladder_of(**changes), folder))
    return str(caught.value)


def log_probs(model: torch.nn.Module, text: str) -> NDArray[np.float32]:
    """(n + 1, V) of a document by itself, which begins after the end id."""
    ids = torch.tensor([[END, *text.encode()]])
    with torch.no_grad():
        return cast(Any, model)(input_ids=ids).logits[0, :, :VOCABULARY].log_softmax(-1).numpy()


def stored(root: StageRecord) -> TokenAnswers:
    model = load_model(Path(root.folder), "causal-lm")
    assert isinstance(model, TokenAnswers)
    return model


def test_every_position_has_the_answer_of_its_document_in_training_and_evaluation(folder: Path) -> None:
    inputs = inputs_of(ladder_of(), folder)
    corpus = inputs.data.corpus()
    assert (corpus.info.end_id, corpus.info.vocabulary) == (END, VOCABULARY)
    model = random_model(config_for(Shape.model_validate({**SHAPE, "hidden_size": 32}), corpus.interface), "causal-lm", 1).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh weights give every id the same probability
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    every = {text: log_probs(model, text) for text in TEXTS}
    assert min(values.std() for values in every.values()) > 0.5
    split = corpus.split("valid")
    documents = [bytes(split.values[a : b - 1].tolist()).decode() for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)]
    labels = [[*text.encode(), END] for text in documents]
    assert max(len(each) for each in labels) > LENGTH  # some have several windows
    for listed in (VOCABULARY, 5):
        top = {text: np.argsort(-values, axis=1)[:, :listed] for text, values in every.items()}
        chosen = {text: np.take_along_axis(every[text], top[text], axis=1) for text in TEXTS}
        write(folder, [top[text].tolist() for text in TEXTS], [chosen[text].tolist() for text in TEXTS])
        answers = stored(prepare_teacher(inputs))
        found = collect(answers, {}, evaluation_batches(corpus, "valid", 200, 4), VOCABULARY, torch.device("cpu"), "fp32")
        expected: list[float] = []
        for text, wanted in zip(documents, labels, strict=True):
            rest = np.log((1 - np.exp(chosen[text]).sum(1)).clip(1e-9) / max(VOCABULARY - listed, 1))
            expected += [-(every[text][i, label] if label in top[text][i] else rest[i]) for i, label in enumerate(wanted)]
        assert np.allclose(found.nll, expected, atol=1e-4)
        packed = TrainingBatches(corpus, 4, 0).at(0)
        signal = live(answers, VOCABULARY)(packed)
        assert isinstance(signal, SparseSignal)
        given = dense(signal, VOCABULARY).log().reshape(4, LENGTH, VOCABULARY)
        checked = 0
        for window, targets, rows in zip(packed.inputs["input_ids"].tolist(), packed.targets.tolist(), given, strict=True):
            begins = [*(place for place, token in enumerate(window) if token == END), LENGTH]
            for first, after in pairwise(begins):  # documents that begin within the window are known by what follows
                text = next(t for t in TEXTS if [*t.encode(), END][: after - first] == targets[first:after])
                ids = torch.from_numpy(top[text][: after - first])
                assert torch.allclose(rows[first:after].gather(1, ids), torch.from_numpy(chosen[text][: after - first]), atol=1e-4)
                checked += 1
        assert checked > 3


def test_a_teachers_tokenizer_that_begins_texts(folder: Path) -> None:
    tokenizer = tokenizers.train_bpe(TEXTS, 280)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    begin, (end, _) = tokenizer.convert_tokens_to_ids("<s>"), tokenizers.special_ids(tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    tokenizers.save(tokenizer, folder / "tokenizer")
    ladder = ladder_of(tokenizer={"kind": "teacher"}, teacher={"tokenizer": "tokenizer"})
    corpus = (inputs := inputs_of(ladder, folder)).data.corpus()
    assert corpus.info.prefix == (begin,)
    ids = [[*tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in TEXTS]
    sure = {len(each): np.log(np.linspace(0.2, 0.9, len(each))) for each in ids}  # another probability at each position
    write(folder, [[[token] for token in each] for each in ids], [sure[len(each)][:, None].tolist() for each in ids])
    answers = stored(prepare_teacher(inputs))
    found = collect(answers, {}, evaluation_batches(corpus, "test", 200, 4), answers.config.vocab_size, torch.device("cpu"), "fp32")
    lengths = np.diff(corpus.split("test").offsets) - 1
    assert np.allclose(found.nll, -np.concatenate([sure[length] for length in lengths]), atol=1e-4)
    packed = TrainingBatches(corpus, 4, 0).at(0)
    signal = live(answers, answers.config.vocab_size)(packed)
    assert isinstance(signal, SparseSignal)
    targets = packed.targets.flatten()
    assert signal.ids[:, 0].tolist() == targets.tolist()
    begins = targets == begin
    assert begins.any()
    assert (signal.log_probs[begins] > -1e-6).all()  # what begins a document is sure, and no row of the file says so
    assert (signal.log_probs[~begins] < -0.1).all()


@pytest.mark.parametrize("kind", [kind for kind in get_args(ObjectiveKind) if kind not in DENSE_ONLY])
def test_the_loss_is_that_of_the_live_teacher_cut_to_the_same_ids(folder: Path, kind: ObjectiveKind) -> None:
    inputs = inputs_of(ladder_of(stage={"objective": {"kind": kind}}), folder)
    corpus = inputs.data.corpus()
    model = random_model(config_for(Shape.model_validate(SHAPE), corpus.interface), "causal-lm", 1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
        cast(Any, model).model.layers[0].self_attn.o_proj.weight.zero_()  # an answer hangs on the last id alone, not on the window
    every = {text: log_probs(model, text) for text in TEXTS}
    batch = TrainingBatches(corpus, 4, 0).at(0)
    student = torch.randn(4 * LENGTH, VOCABULARY, generator=torch.Generator().manual_seed(0))
    alive = live(model, VOCABULARY)(batch)
    assert isinstance(alive, HiddenSignal)
    for listed in (VOCABULARY, 5):
        top = {text: np.argsort(-values, axis=1)[:, :listed] for text, values in every.items()}
        write(folder, [top[text].tolist() for text in TEXTS], [np.take_along_axis(every[text], top[text], 1).tolist() for text in TEXTS])
        signals = {"file": live(stored(prepare_teacher(inputs)), VOCABULARY)(batch), "live": alive}
        if listed < VOCABULARY:
            log_p, ids = alive.logits.log_softmax(-1).topk(listed, -1)
            signals["live"] = SparseSignal(ids, log_p, torch.log1p(-log_p.exp().sum(-1)))
        for temperature in (1.0, 2.0):
            at = StepObjective(Objective(kind=kind), 0.7, temperature, taid_share=0.6)
            loss, gradient = dict[str, float](), dict[str, torch.Tensor]()
            for name, signal in signals.items():
                leaf = student.clone().requires_grad_()
                total = distillation_loss(leaf, [signal], batch.targets.flatten(), at).total
                loss[name], gradient[name] = float(total.detach()) / len(student), torch.autograd.grad(total, leaf)[0]
            assert loss["file"] == pytest.approx(loss["live"], abs=1e-6)
            assert torch.allclose(gradient["file"], gradient["live"], atol=1e-6)


def test_answers_are_the_cache_and_are_cut_to_fewer_ids(folder: Path) -> None:
    ids, logprobs = likely()
    ids[0][1], logprobs[0][1] = [7, 8, 9], [-3.0, -1.0, -2.0]
    write(folder, ids, logprobs)
    cached, made = {"source": "cached", "kind": "top-k"}, dict[str, StageRecord]()
    for name, signals in {"live": {}, "all": cached, "one": {**cached, "k": 1}}.items():
        training = {**TRAINING, "steps": 5}
        ladder = ladder_of(stage={"objective": {"kind": "jsd", "alpha": 1.0}, "signals": signals, "training": training})
        inputs = inputs_of(ladder, folder)
        root = prepare_teacher(inputs)
        made[name] = train_student(ladder.stages[0], [root], inputs)
    assert made["all"].signals == f"top-k, all 3 ids of the file ({root.fingerprint[:12]})"
    assert made["one"].signals == f"top-k, 1 ids of 3 in the file ({root.fingerprint[:12]})"
    assert made["all"].weights_sha256 == made["live"].weights_sha256 != made["one"].weights_sha256
    assert {record.flops for record in made.values()} == {made["live"].flops}
    assert made["one"].all_signal_seconds == 0
    assert not (folder / "home" / "store" / "signals").exists()
    planned = make_plan(ladder, folder, Home(folder / "home"))
    assert (planned.stages[0].action, planned.stages[0].flops) == ("reuse", made["one"].flops)
    assert "small: signals cached (as set): top-k, 1 ids at most, read from the root's answers, no copy" in planned.notes
    answers, batch = stored(root), TrainingBatches(inputs.data.corpus(), 64, 0).at(0)
    whole, cut = (SparseSignal(*answers.answers(batch.places, batch.targets, most)) for most in (None, 1))
    assert torch.equal(cut.ids[:, 0], whole.ids.gather(1, whole.log_probs.argmax(1, keepdim=True))[:, 0])
    assert torch.allclose(cut.log_probs.exp().sum(1) + cut.log_residual.exp(), torch.ones(()), atol=1e-6)


def test_arms_that_answers_cannot_teach_are_left_out(folder: Path) -> None:
    last = {"name": "last", "student": {"shape": SHAPE, "initialisation": "layers"}, "objective": {"kind": "dkd"}, "training": TRAINING}
    ladder = ladder_of(stages=[{"name": "small", "student": {"shape": SHAPE}, "training": TRAINING}, last])
    for arm, reason in {"staged-root": "objective.kind: got 'dkd'", "direct": "student.initialisation: got 'layers'"}.items():
        with pytest.raises(UserError, match=f"as {arm}, stages.*{reason}"):
            refuse(cast(Any, arm), ladder)
    refuse("staged", ladder)
    refuse("scratch", ladder)
    inputs = inputs_of(ladder, folder)
    arms = arms_of(ladder, inputs.data, inputs.context)
    assert set(arms.ladders) == {"staged", "scratch", "label-smoothing"}
    assert (arms.forwards.root.whole, len(arms.notes)) == (0, 6)
    plain = ladder_of(stages=[{**last, "student": {"shape": SHAPE}, "objective": {}, "name": name} for name in ("one", "two")])
    staged = arms_of(plain, inputs.data, inputs.context)
    assert "direct-matched" in staged.ladders
    matched = staged.ladders["direct-matched"].stages[0].training.steps
    assert matched == round(
        (3 + 3 + 1) / 3 * TRAINING["steps"]
    )  # passes in a step: three of each student, one of the parent, none of the root
    jump = make_plan(plain, folder, Home(folder / "home")).costs.jump
    assert jump is not None
    assert jump.steps == matched


def test_a_budget_takes_no_time_for_answers(folder: Path) -> None:
    inputs = inputs_of(ladder_of(), folder)
    seconds, _ = calibrate(inputs.ladder, inputs.data, inputs.context)
    assert seconds["teacher"] == StepSeconds(0.0, 0.0, 0.0)
    assert seconds["small"].step > 0


def test_a_label_that_is_not_listed_has_an_even_share_of_the_rest() -> None:
    ids, log_p = torch.tensor([[3, 1], [2, 2]]), torch.tensor([[0.5, 0.3], [0.6, 0.0]]).log()
    found = spread_evenly(ids, log_p, torch.tensor([0.2, 0.4]).log(), 5).exp()
    assert found.tolist() == [pytest.approx([0.2 / 3, 0.3, 0.2 / 3, 0.5, 0.2 / 3]), pytest.approx([0.1, 0.1, 0.6, 0.1, 0.1])]


def test_they_teach_and_are_evaluated_and_audited_as_a_model(folder: Path) -> None:
    stage = {"objective": {"alpha": 1.0}, "student": {"shape": SHAPE}, "training": TRAINING}
    ladder = ladder_of(stages=[{**stage, "name": "small"}, {**stage, "name": "last", "teachers": ["root", "parent"]}])
    inputs = inputs_of(ladder, folder)
    root = accept_teacher(evaluate_model(prepare_teacher(inputs), [], inputs, "fp32"), inputs)
    assert (root.parameters, root.samples) == (10**6, ())
    assert root.metrics["accuracy"] == 1
    assert root.metrics["nll"] == pytest.approx(-np.log(0.9), abs=1e-4)
    student = evaluate_model(train_student(ladder.stages[0], [root], inputs), [root], inputs, "fp32")
    assert student.signals == "live"
    assert len(student.samples) > 0
    assert student.metrics["root_nll"] == pytest.approx(-np.log(0.9), abs=1e-4)
    assert student.metrics["nll"] < student.metrics["baseline_nll"]
    below = ladder.stages[1]
    last = evaluate_model(train_student(below, [root, student], inputs), [root, student], inputs, "fp32")
    assert last.teachers == ("small", "teacher")  # the one live and dense, the other stored and sparse
    assert last.metrics["nll"] < student.metrics["baseline_nll"]
    audited = audit_model(student, ladder.stages[0], [root], inputs, None)
    assert isinstance(audited, StageRecord)
    assert audited.audit is not None
    assert prepare_teacher(inputs).reused
    planned = make_plan(ladder, folder, Home(folder / "home"))
    assert (planned.teacher.action, planned.teacher.parameters) == ("reuse", 10**6)


def test_what_does_not_fit_the_data_is_refused_by_its_row(folder: Path) -> None:
    ids, logprobs = likely()
    write(folder, ids[:-2], logprobs[:-2])
    assert f"without an answer to 2 of {len(TEXTS)} documents" in (said := refused(folder))
    assert "begins with '8: several of" in said
    row = len(TEXTS) - 1  # of the first text, as `write` turns them round

    def changed(position: int, new_ids: list[int], new_log_p: list[float]) -> str:
        ids, logprobs = likely()
        ids[1][position], logprobs[1][position] = new_ids, new_log_p
        write(folder, ids, logprobs)
        return refused(folder)

    assert f"row {row}: an id outside 0 to 257" in changed(2, [300, 1], [-1.0, -2.0])
    assert f"row {row}: an id twice, at position 3" in changed(2, [7, 7], [-1.0, -2.0])
    assert "add up to more than 1, at position 1" in changed(0, [7, 8], [0.0, 0.0])
    assert "not finite" in changed(0, [7, 8], [-1.0, float("nan")])
    assert "0 ids at position 2" in changed(1, [], [])
    assert "of unequal lengths" in changed(1, [7, 8], [-1.0])
    write(folder, [each[:-1] for each in ids], [each[:-1] for each in logprobs])
    assert "one for each of the" in (said := refused(folder))
    assert "and one for the end id" in said
    pq.write_table(pa.table({"text": TEXTS, "ids": [1] * len(TEXTS), "logprobs": logprobs}), folder / "answers.parquet")
    assert "whose column ids is int64" in refused(folder)
    assert "without the columns top'; allowed: columns: text, ids, logprobs" in refused(folder, teacher={"ids": "top"})


def test_positions_may_list_different_numbers_of_ids(folder: Path) -> None:
    ids, logprobs = likely()
    ids[0][1], logprobs[0][1] = [7, 8, 9], [-2.0, -2.0, -2.0]
    ids[0][2], logprobs[0][2] = [7], [0.0]
    write(folder, ids, logprobs)
    table = stored(prepare_teacher(inputs_of(ladder_of(), folder))).table
    assert table["ids"].shape[1] == 3
    single = (table["log_p"] > -torch.inf).sum(1) == 1
    assert single.any()
    assert torch.allclose(table["log_residual"][single].exp(), torch.tensor(1e-7))
    sums = table["log_p"].exp().sum(1) + table["log_residual"].exp()
    assert torch.allclose(sums, torch.ones(()), atol=1e-5)


def test_answers_to_other_data_are_noticed(folder: Path) -> None:
    inputs = inputs_of(ladder_of(), folder)
    answers, batch = stored(prepare_teacher(inputs)), TrainingBatches(inputs.data.corpus(), 4, 0).at(0).part(1, 2)
    assert batch.places is not None
    assert answers.answers(batch.places, batch.targets)[0][:, 0].tolist() == batch.targets.flatten().tolist()
    with pytest.raises(LadderError, match=r"the stored answers are to other data: [0-9]+ of 32 ids of a batch differ"):
        answers.answers(batch.places + 1, batch.targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": {"signals": {"source": "cached"}}}, "signals.kind: got 'sampled'; allowed: top-k, below answers"),
        ({"stage": {"signals": {"source": "cached", "kind": "full"}}}, "signals.kind: got 'full'; allowed: top-k, below answers"),
        ({"stage": {"objective": {"kind": "dkd"}}}, "allowed: forward-kl, reverse-kl, .*, taid below answers"),
        ({"stage": {"gate": {"policy": "insert"}}}, "allowed: any other, below answers"),
        ({"teacher": {"classes": ["a", "b"]}}, "allowed: none, for causal-lm"),
        ({"evaluation": {"tasks": ["some"]}}, "which no task of lm-eval can ask"),
        ({"evaluation": {"also": {"other": {"source": "python-stdlib"}}}}, "which are to the ladder's data alone"),
        ({"tokenizer": {"kind": "teacher"}}, r"answers with teacher\.tokenizer, bring a tokenizer"),
        ({"student": {"vocabulary": "used"}, "tokenizer": {"kind": "bpe", "vocabulary": 300}}, "whose ids are those of the data"),
    ],
)
def test_what_needs_a_model_is_refused_with_the_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ladder_of(**changes)
