"""A teacher behind an endpoint: log-probabilities of prompts from a real server, their signal, and what is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import TransientError, UserError
from conf.schema.generate import Endpoint
from conf.schema.stage.objective import Objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.training import Training
from models.architectures.checkpoint import load_model
from models.data.batches import IGNORE, UNLABELLED, Batch, TrainingBatches
from models.generation.answer_file import AnswerFile
from models.generation.endpoint import EndpointClient
from models.losses.loss import StepObjective, distillation_loss
from models.losses.sparse import SparseSignal
from models.signals.sources import live, rows
from models.training.loop import Plan, Step, train
from models.training.on_policy import OnPolicyBatches
from models.training.served import ServedTeacher
from tests.endpoints import endpoint
from tests.factories import BYTES, END, corpus_in, split_of
from tests.published import published_folder

pytestmark = pytest.mark.processes
TEXT = "the quick brown fox jumps over the lazy dog; "


def client(url: str, **changes: Any) -> EndpointClient:
    return EndpointClient(Endpoint.model_validate({"url": url, "model": "tiny", "retries": 1, **changes}), "signals.endpoint")


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[AnswerFile]:
    made = AnswerFile(tmp_path / "answers")
    yield made
    made.close()


def batch() -> Batch:
    ids = torch.tensor([list(TEXT[:9].encode()), list(TEXT[9:18].encode())])
    targets = torch.full(ids.shape, UNLABELLED)
    targets[0, 6:] = targets[1, :2] = IGNORE
    return Batch({"input_ids": ids}, targets, torch.zeros(2, dtype=torch.int32))


@pytest.fixture
def served(serve: Callable[..., Any], tmp_path: Path) -> tuple[str, torch.nn.Module, int]:
    """The address of a random language model, the model itself, and its vocabulary."""
    folder = published_folder(tmp_path / "served", "causal-lm")
    running = serve("causal-lm", folder=folder)
    return f"{running.url}/v1", load_model(folder, "causal-lm").eval(), running.state.serving.current.engine.vocabulary


def test_all_log_probabilities_are_the_live_teacher_and_the_top_ones_leave_a_bucket(
    served: tuple[str, torch.nn.Module, int], answers: AnswerFile, tmp_path: Path
) -> None:
    url, teacher, vocabulary = served
    given = batch()
    dense = rows(teacher, given, vocabulary).detach().log_softmax(-1)
    counts = given.targets.flatten() != IGNORE
    every = ServedTeacher(client(url), 10_000, vocabulary, AnswerFile(tmp_path / "all"))(given)
    assert every.log_residual.eq(-torch.inf).all()
    top = ServedTeacher(client(url), 8, vocabulary, answers)(given)
    best = dense.topk(8)
    assert torch.equal(top.ids[counts], best.indices[counts])
    assert torch.allclose(top.log_probs[counts], best.values[counts], atol=1e-5)
    assert torch.allclose(top.log_residual[counts].exp(), 1 - best.values[counts].exp().sum(-1), atol=1e-5)
    student = torch.randn(len(counts), vocabulary, generator=torch.Generator().manual_seed(0))
    for kind in ("forward-kl", "reverse-kl", "jsd"):
        at = StepObjective(Objective.model_validate({"kind": kind}), 1.0, 1.0)

        def loss(signal: Any, at: StepObjective = at) -> float:
            return float(distillation_loss(student, [signal], given.targets.flatten(), at).total)

        whole = loss(live(teacher, vocabulary)(given))
        assert loss(every) == pytest.approx(whole, rel=1e-5)
        assert 0 < loss(top) < whole, "a lower bound, by the data processing inequality"


def test_a_student_that_writes_is_taught_by_an_endpoint_and_no_text_is_asked_twice(
    served: tuple[str, torch.nn.Module, int], answers: AnswerFile, tmp_path: Path
) -> None:
    url, _, vocabulary = served
    split = split_of([[*(TEXT * 4).encode(), END]] * 4, [-1] * 4, [0] * 4, [180] * 4)
    corpus = corpus_in(tmp_path / "corpus", "causal-lm", 24, dict.fromkeys(("train", "valid", "test"), split))
    assert vocabulary == BYTES
    student, seen = load_model(published_folder(tmp_path / "student", "causal-lm", seed=1), "causal-lm"), list[Step]()
    settings = Signals.model_validate({"source": "on-policy", "reuse": 2, "prompt": 8})
    training = Training(steps=4, batch_size=4, precision="fp32", learning_rate=1e-2)
    plan = Plan(training, Objective.model_validate({"kind": "reverse-kl", "alpha": 1.0}), 0, vocabulary)
    teaching = ServedTeacher(client(url), 40, vocabulary, answers)
    batches = OnPolicyBatches(TrainingBatches(corpus, 4, 0), student, settings, 4, "fp32")
    train(student, batches, plan, signals=teaching, on_step=seen.append)
    assert teaching.client.usage.requests == 8, "two buffers of four texts"
    assert [step.kd > 0 for step in seen] == [True] * 4
    assert seen[0].teacher_ce is None
    assert seen[1].loss < seen[0].loss, "the same texts, after a step"


def _told(entries: Any, places: int = 7) -> str:
    return json.dumps({"choices": [{"text": "", "prompt_logprobs": entries if entries is None else [None, *[entries] * (places - 1)]}]})


FOUR = {str(number): {"logprob": -1.5} for number in range(4)}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            _told(FOUR),
            r"^signals\.k: got 5; allowed: 5 log-probabilities at each id, which signals\.k asks for; tiny at .* gives 4\. Lower it",
        ),
        (_told(None), r"^signals\.endpoint: got 'tiny at .*'; allowed: a server that gives prompt_logprobs at every id of a prompt"),
        (_told(FOUR, 3), r"^signals\.endpoint: .* a server that gives prompt_logprobs at every id"),
        (
            _told({**FOUR, "300": -0.5}),
            r"^signals\.endpoint: .* with the student's tokenizer, whose log-probabilities are those of ids below 258",
        ),
        (_told({**FOUR, " the": -0.5}), r"^signals\.endpoint: .* with the student's tokenizer"),
        (_told({**FOUR, "7": {"logprob": None}}), r"^signals\.endpoint: .* with the student's tokenizer"),
    ],
    ids=["too few", "none", "too short", "another vocabulary", "words", "no number"],
)
def test_answers_that_cannot_teach_end_the_training_with_one_sentence(body: str, message: str, answers: AnswerFile) -> None:
    with endpoint() as fake:
        fake.troubles = [body] * 2
        with pytest.raises(UserError, match=message) as told:
            ServedTeacher(client(fake.url, concurrency=1), 5, BYTES, answers)(batch())
    assert len(str(told.value).splitlines()) == 1


def test_the_request_names_the_ids_and_is_sent_once_more_after_no_json(answers: AnswerFile) -> None:
    body = json.dumps({"choices": [{"text": "", "prompt_logprobs": [None, *[{**FOUR, "9": -0.2}] * 6]}]})
    with endpoint() as fake:
        fake.troubles = ["{", body]
        given = batch()
        given.targets[1] = IGNORE  # a row without any that counts is not asked for
        signal = ServedTeacher(client(fake.url, concurrency=1), 5, BYTES, answers)(given)
        assert [each["prompt"] for each in fake.bodies] == [[*given.inputs["input_ids"][0, :6].tolist(), ord("t")]] * 2
        assert fake.once[0] == fake.once[1], "the same key: a server that knows it counts one"
    assert isinstance(signal, SparseSignal)
    assert signal.ids[0].tolist() == [9, 0, 1, 2, 3]


def test_what_was_answered_before_the_endpoint_went_away_is_not_asked_for_again(tmp_path: Path) -> None:
    body = json.dumps({"choices": [{"text": "", "prompt_logprobs": [None, *[{**FOUR, "9": -0.2}] * 6]}]})
    given = batch()
    given.targets[1, 6:] = IGNORE
    with endpoint() as fake:
        fake.troubles = [body, 503, 503]
        with pytest.raises(TransientError, match=r"^signals\.endpoint: tiny at .* gave no usable answer in 2 tries"):
            ServedTeacher(client(fake.url, concurrency=1), 5, BYTES, AnswerFile(tmp_path))(given)
        fake.troubles = [body]
        again = ServedTeacher(client(fake.url, concurrency=1), 5, BYTES, AnswerFile(tmp_path))
        first = again(given)
        assert fake.tried == 4, "an answer, two failed tries, and the text that was left"
        assert torch.equal(again(given).log_probs, first.log_probs)
        assert fake.tried == 4, "a second epoch costs nothing"
    assert first.ids.view(2, 9, 5)[:, :6].unique(dim=1).tolist() == [[[9, 0, 1, 2, 3]]] * 2


def test_a_text_that_is_too_long_names_the_positions_that_it_needs(answers: AnswerFile) -> None:
    with endpoint() as fake:
        fake.troubles = [400]
        with pytest.raises(
            UserError, match=r"A text of 6 ids needs 8 positions: raise the server's limit, or lower data\.sequence_length\.$"
        ):
            ServedTeacher(client(fake.url, concurrency=1), 5, BYTES, answers)(batch())


def test_a_server_of_another_engine_and_a_stream_tell_no_log_probabilities_of_prompts(served: tuple[str, Any, int]) -> None:
    import httpx

    asked = {"model": "tiny", "prompt": [1, 2, 3], "prompt_logprobs": 2, "max_tokens": 1}
    found = httpx.post(f"{served[0]}/completions", json=asked, timeout=30).json()
    assert [place and len(place) in (2, 3) for place in found["choices"][0]["prompt_logprobs"]] == [None, True, True]
    refused = httpx.post(f"{served[0]}/completions", json={**asked, "stream": True}, timeout=30)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt_logprobs")
