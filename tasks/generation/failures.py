"""A student's answers to prompts: how good they are, and where it fails most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conf.schema.generate import Generate
from models.base.files import read_json
from models.generation.writers import WrittenAnswer
from tasks.generation.answers import write_all
from tasks.generation.prompts import Prompt
from tasks.generation.rules import answer_in, parted
from tasks.generation.scores import losses_of
from tasks.records.base import Record
from tasks.records.run import StageRecord
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import store_of
from tasks.runtime.stage_inputs import StageInputs
from tasks.store.cached import Entry, Write, find_or_compute
from tasks.store.fingerprint import fingerprint

KIND, FILE = "failures", "failures.json"


class JudgedStudent(Record):
    """A student's answers, judged.

    Attributes:
        score: On held prompts: the share of right answers, or minus the mean loss on the teacher's answers, in nats a token.
        failures: For each other prompt how badly it fails, the higher the worse.
        kept: Fingerprints in the store of this judgement and of the answers that it read: they would be paid again.
    """

    score: float
    failures: tuple[float, ...]
    kept: tuple[str, ...] = ()


def judge_student(
    student: StageRecord, root: StageRecord, held: Sequence[Prompt], others: Sequence[Prompt], inputs: StageInputs
) -> JudgedStudent:
    """Find or compute how a round's student answers.

    With references it is asked: right answers come last, and of wrong ones those that it is least sure of come first. Without them, the
    distance from the root teacher decides where that writes: its loss on the student's answer minus the student's own (an estimate of
    KL(student, teacher) a token); with an endpoint, the student's own loss.

    Args:
        student: Of the round.
        root: The root teacher.
        held: Prompts that judge.
        others: Prompts that may be asked next.
        inputs: Of all stages.
    """
    settings = inputs.ladder.data.generate
    assert settings is not None
    mark = [] if settings.rationale_before is None else [settings.rationale_before]
    identity = {
        "kind": KIND,
        "student": student.weights_sha256,
        "root": root.weights_sha256,
        "prompts": fingerprint(
            {"each": [[[p.text, p.reference, *([] if p.learned is None else [p.learned])] for p in part] for part in (held, others)]}
        ),
        "how": [settings.max_tokens, list(settings.stop), settings.selection.answer, settings.prompts.reference, *mark],
        "teacher": None if settings.endpoint is None else [settings.endpoint.url, settings.endpoint.model],
    }

    def compute() -> Write:
        made = _judge(student, root, held, others, settings, inputs)
        return lambda folder: (folder / FILE).write_text(made.model_dump_json(), encoding="utf-8")

    entry = Entry(KIND, inputs.ladder.name, identity, _read)
    found = _read(find_or_compute(store_of(inputs.context), entry, inputs.context.made, compute).folder)
    return found.model_copy(update={"kept": (entry.fingerprint, *found.kept)})


def _read(folder: Path) -> JudgedStudent:
    return JudgedStudent.model_validate(read_json(folder / FILE))


def _judge(
    student: StageRecord, root: StageRecord, held: Sequence[Prompt], others: Sequence[Prompt], settings: Generate, inputs: StageInputs
) -> JudgedStudent:
    known = settings.prompts.reference is not None
    asked = [*held, *others] if known else list(others)
    log.info("generate: %s answers %s prompts", student.name, f"{len(asked):,}")
    plain = [replace(prompt, text=prompt.row) for prompt in asked]  # a student is asked as it learns
    written = [write_all(greedy(settings), plain, student, inputs)] if asked else []
    answers = [first for each in written for first, *_ in each.answers]
    if known:
        right = [_is_right(settings, prompt, answer) for prompt, answer in zip(asked, answers, strict=True)]
        own = [(0.0 if correct else 1.0) + _doubt(answer) for correct, answer in zip(right, answers, strict=True)]
        score, failures = sum(right[: len(held)]) / len(held), own[len(held) :]
        return JudgedStudent(score=score, failures=tuple(failures), kept=tuple(each.fingerprint for each in written))
    written.append(write_all(settings, held, root, inputs))
    mark, firsts = settings.rationale_before, [samples[0].text for samples in written[-1].answers]
    pairs = [(prompt.row, parted(text, mark)[1]) for prompt, text in zip(held, firsts, strict=True) if text]
    losses = losses_of(Path(student.folder), pairs, inputs) if pairs else [0.0]
    distances = _distances(root, others, answers, settings, inputs)
    return JudgedStudent(score=-sum(losses) / len(losses), failures=tuple(distances), kept=tuple(each.fingerprint for each in written))


def greedy(settings: Generate) -> Generate:
    """The settings by which a student answers: the most probable tokens, once."""
    rules = settings.selection.model_copy(update={"agreement": None})
    return settings.model_copy(update={"endpoint": None, "temperature": 0.0, "top_p": 1.0, "samples": 1, "seed": 0, "selection": rules})


def _is_right(settings: Generate, prompt: Prompt, answer: WrittenAnswer) -> bool:
    return prompt.reference is not None and answer_in(answer.text, settings.selection.answer) == answer_in(prompt.reference, None)


def _doubt(answer: WrittenAnswer) -> float:
    """A number in [0, 1) that grows with the mean loss of an answer's tokens."""
    loss = -(answer.logprob or 0.0)
    return loss / (1 + loss)


def _distances(
    root: StageRecord, prompts: Sequence[Prompt], answers: Sequence[WrittenAnswer], settings: Generate, inputs: StageInputs
) -> list[float]:
    own = [-(answer.logprob or 0.0) for answer in answers]
    if settings.endpoint is not None or not answers:
        return own
    pairs = [(prompt.row, answer.text) for prompt, answer in zip(prompts, answers, strict=True)]
    ended = [answer.finish != "length" for answer in answers]
    return [theirs - mine for theirs, mine in zip(losses_of(Path(root.folder), pairs, inputs, ended), own, strict=True)]
