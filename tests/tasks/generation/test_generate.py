"""Answers are found or written, once each; an interrupted writing goes on with the same text; the rows join training alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf.errors import RunCancelled, TransientError, UserError
from conf.schema.data import Tokenizer
from models.generation import endpoint as endpoint_module
from models.generation import writers
from tasks.data.identity import corpus_identity
from tasks.data.prepare import prepare_data
from tasks.generation import generate as module
from tasks.generation.generate import ROWS, generate_data, read_prompts, with_rows
from tasks.generation.spool import AnswerSpool, read_answers
from tasks.records.choice.generation import GenerationRecord
from tasks.records.run import StageRecord
from tasks.runtime import cancellation
from tasks.runtime.stage_inputs import StageInputs
from tests.endpoints import FakeEndpoint, endpoint
from tests.tasks.generation.conftest import Made

pytestmark = pytest.mark.thorough


def generated(root: StageRecord, inputs: StageInputs) -> GenerationRecord:
    return generate_data(root, inputs, read_prompts(inputs))


def rows_of(record: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(record.folder) / ROWS).read_text().splitlines()]


def test_the_root_writes_and_its_rows_train(root: StageRecord, inputs: Made) -> None:
    given = inputs()
    made = generated(root, given)
    assert (made.prompts, made.answers, made.written, made.reused) == (10, 10, 10, False)
    assert made.kept + sum(made.dropped.values()) == 10
    assert made.tokens > 10
    rows = rows_of(made)
    assert {row["prompt"] for row in rows} <= {f"say {letter}" for letter in "abcdefghij"}
    ladder = with_rows(given.ladder, [made], given.data)
    joined = prepare_data(ladder, given.context)
    assert joined.counts is not None
    assert joined.counts.transfer == made.kept
    before, after = given.data.corpus(), joined.corpus()
    for split in ("valid", "test"):
        assert after.split(split).values.tobytes() == before.split(split).values.tobytes()
    assert len(after.split("train")) == len(before.split("train")) + made.kept


def test_a_trained_tokenizer_stays_as_the_root_knows_it(root: StageRecord, inputs: Made) -> None:
    plain = inputs()
    ladder = plain.ladder.model_copy(update={"tokenizer": Tokenizer(kind="bpe", vocabulary=290)})
    given = replace(plain, ladder=ladder, data=prepare_data(ladder, plain.context))
    made = generated(root, given)
    joined = prepare_data(with_rows(ladder, [made], given.data), given.context)
    folders = [data.corpus().tokenizer_folder for data in (given.data, joined)]
    assert len({(folder / "tokenizer.json").read_bytes() for folder in folders if folder}) == 1
    for split in ("valid", "test"):
        assert joined.corpus().split(split).values.tobytes() == given.data.corpus().split(split).values.tobytes()


def test_what_is_stored_is_not_written_again(root: StageRecord, inputs: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    first = generated(root, inputs())
    (Path(inputs().context.base) / "prompts.txt").write_text("say a\nsay b\nsay k\n")
    more = generated(root, inputs())
    assert (more.answers, more.written) == (3, 1)  # two answers are those of the first time
    texts = {row["prompt"]: row["completion"] for row in rows_of(first)}
    assert all(texts[row["prompt"]] == row["completion"] for row in rows_of(more) if row["prompt"] in texts)
    monkeypatch.setattr(writers.ModelWriter, "write", None)
    other = generated(root, inputs(selection={"min_length": 2}))  # a rule: selected anew, not written anew
    assert (other.written, other.reused) == (0, False)
    assert generated(root, inputs()).reused


def test_an_answer_depends_on_its_prompt_and_not_on_its_batch(root: StageRecord, inputs: Made, tmp_path: Path) -> None:
    one = rows_of(generated(root, inputs(batch_size=1)))
    (tmp_path / "home" / "store" / "answers").rename(tmp_path / "aside")
    (tmp_path / "home" / "store" / "generated").rename(tmp_path / "aside-too")
    assert rows_of(generated(root, inputs(batch_size=7))) == one


def test_an_interrupted_writing_goes_on_with_the_same_text(
    root: StageRecord, inputs: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows_of(generated(root, inputs()))
    for kind in ("answers", "generated"):
        (tmp_path / "home" / "store" / kind).rename(tmp_path / kind)
    parts = list[int]()
    write = writers.ModelWriter.write

    def counted(self: Any, asks: Any, emit: Any, should_stop: Any) -> None:
        if len(parts) == 1:
            monkeypatch.setattr(cancellation, "requested", lambda: True)
            should_stop = cancellation.requested
        parts.append(len(asks))
        write(self, asks, emit, should_stop)

    monkeypatch.setattr(writers.ModelWriter, "write", counted)
    with pytest.raises(RunCancelled):
        generated(root, inputs())
    monkeypatch.undo()
    (spool,) = (tmp_path / "home" / "store" / "checkpoints").glob("*/answers.jsonl")
    assert spool.with_name("run").read_text() == inputs().context.run  # by which `ladder clean` keeps it
    assert len(read_answers(spool)) == 8  # one part of 4 batches
    spool.write_bytes(spool.read_bytes() + b'{"key": "torn')  # as a killed process leaves it
    again = generated(root, inputs())
    assert again.written == 2
    assert rows_of(again) == whole
    assert not spool.exists()


def test_a_torn_line_is_cut_before_the_next(tmp_path: Path) -> None:
    answer = writers.WrittenAnswer("text\n", "stop", 1, 2, -0.5)
    with AnswerSpool(tmp_path) as spool:
        spool.add("one", answer)
        spool.sync(1.5)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes() + b'{"key": "two", "te')
    with AnswerSpool(tmp_path) as spool:
        assert spool.answers == {"one": answer}
        assert spool.seconds == 1.5
        spool.add("three", answer)
        spool.sync(1.0)
    assert list(read_answers(path)) == ["one", "three"]


class TestEndpoint:
    @pytest.fixture(autouse=True)
    def _short_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(endpoint_module, "FIRST_PAUSE", 0.01)

    @staticmethod
    def settings(server: FakeEndpoint, **more: Any) -> dict[str, Any]:
        return {"endpoint": {"url": server.url, "model": "m", "retries": 1, "concurrency": 3, "price_out": 1e6, **more}}

    def test_nothing_is_asked_twice_after_a_failure(self, root: StageRecord, inputs: Made) -> None:
        with endpoint(lambda prompt: f"{prompt} it is") as server:
            server.troubles = [None] * 4 + [503] * 4
            with pytest.raises(TransientError, match="no usable answer in 2 tries"):
                generated(root, inputs(**self.settings(server)))
            answered = sum(server.asked.values())
            assert 4 <= answered < 10
            made = generated(root, inputs(**self.settings(server)))
            assert made.written == 10 - answered
            assert set(server.asked.values()) == {1}
            assert made.price == sum(row.written for row in read_answers(next(self.stored(inputs))).values())
            assert server.most <= 3
        assert generated(root, inputs(**self.settings(server))).reused  # the endpoint is away, and not needed

    @staticmethod
    def stored(inputs: Made) -> Any:
        return (Path(inputs().context.home) / "store" / "answers").glob("*/answers.jsonl")

    def test_the_key_is_written_nowhere(
        self, root: StageRecord, inputs: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        with endpoint(lambda prompt: f"{prompt} it is") as server:
            server.troubles = [503]
            generated(root, inputs(**self.settings(server)))
            assert server.keys == {"Bearer sk-very-secret"}
        assert "very-secret" not in caplog.text
        assert not any(b"very-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    def test_a_prompt_that_is_refused_is_counted_and_all_of_them_are_an_error(self, root: StageRecord, inputs: Made) -> None:
        with endpoint(lambda prompt: f"{prompt} it is") as server:
            server.troubles = [None] * 5 + [400]
            made = generated(root, inputs(**self.settings(server)))
            assert made.dropped == {"refused": 1}
            server.troubles = [400] * 20
            with pytest.raises(UserError, match="HTTP 400"):
                generated(root, inputs(seed=1, **self.settings(server)))
            assert server.tried < 20

    def test_a_single_prompt_that_is_refused_is_an_answer_once_others_were_answered(
        self, root: StageRecord, inputs: Made, tmp_path: Path
    ) -> None:
        with endpoint(lambda prompt: f"{prompt} it is") as server:
            generated(root, inputs(**self.settings(server)))
            (tmp_path / "prompts.txt").write_text("say a\nsay something longer than it takes\n")
            server.troubles = [400]
            assert generated(root, inputs(**self.settings(server))).dropped == {"refused": 1}

    def test_what_was_paid_before_an_interruption_is_not_asked_again_for_other_prompts(
        self, root: StageRecord, inputs: Made, tmp_path: Path
    ) -> None:
        with endpoint(lambda prompt: f"{prompt} it is") as server:
            server.troubles = [None] * 4 + [503] * 4
            with pytest.raises(TransientError, match="no usable answer in 2 tries"):
                generated(root, inputs(**self.settings(server)))
            answered = sum(server.asked.values())
            (tmp_path / "prompts.txt").write_text("".join(f"say {letter}\n" for letter in "abcdefghijk"))
            assert generated(root, inputs(**self.settings(server))).written == 11 - answered
            assert set(server.asked.values()) == {1}

    def test_another_model_is_another_teacher(self, root: StageRecord, inputs: Made) -> None:
        with endpoint(lambda prompt: f"{prompt} it is") as server:
            generated(root, inputs(**self.settings(server)))
            generated(root, inputs(**self.settings(server, timeout=3.0, concurrency=1, price_out=0.0)))
            assert server.tried == 10  # none of these changes an answer
            generated(root, inputs(**self.settings(server, model="other")))
            assert server.tried == 20


def test_generate_is_in_no_identity_of_a_corpus(inputs: Made) -> None:
    given = inputs()
    ladder, base = given.ladder, Path(given.context.base)
    plain = ladder.model_copy(update={"data": ladder.data.model_copy(update={"generate": None})})
    assert corpus_identity(ladder, base, None) == corpus_identity(plain, base, None)


def test_rows_are_in_the_ladders_own_columns() -> None:
    from conf.schema.tables import Columns

    assert module.row_of("p", "c", Columns(text="body")) == {"body": "pc"}
    assert module.row_of("p", "c", Columns(messages="talk", slice="of")) == {
        "talk": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
        "of": "generated",
    }
