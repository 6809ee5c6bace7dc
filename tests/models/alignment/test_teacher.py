"""The laws of a teacher behind another tokenizer."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from conf.errors import UserError
from conf.schema.stage.objective import Alpha, Objective
from models.alignment.byte_tokens import ByteTokens
from models.alignment.spans import align
from models.alignment.teacher import AlignedTeacher
from models.data import tokenizers
from models.data.batches import IGNORE, UNLABELLED, Batch, next_token_batch
from models.losses.chunked import Head, chunked_loss
from models.losses.loss import Signal, StepObjective, TeacherSignal, distillation_loss
from models.signals.sources import live
from tests.models.alignment.tokens import TEXTS, merges, of, without_moons

LENGTH = 30


def model_of(tokens: ByteTokens, positions: int = 512) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    model: Any = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=tokens.count, max_position_embeddings=positions, **sizes)
    )
    with torch.no_grad():
        model.lm_head.weight.mul_(40)  # far from even
    return model.eval().requires_grad_(False)


def batch_of(tokens: ByteTokens, length: int = LENGTH) -> Batch:
    """A window within one document, and one with its end and, where no id begins a text, part of the next."""
    begin = [*(tokens.prefix or [tokens.end])]
    one, other = tokens.encode([text.encode() for text in TEXTS[:2]])
    windows = [[*begin, *one, *other], [*begin, *other[-8:], tokens.end, *([] if tokens.prefix else one)]]
    lengths = [min(len(window), length + 1) for window in windows]
    padded = np.array([[*window, *[0] * length][: length + 1] for window in windows])
    return next_token_batch(padded, np.array(lengths), np.zeros(2, dtype=np.int32))


def aligned(teacher: str, student: str) -> AlignedTeacher:
    return AlignedTeacher(model_of(of(teacher)), of(teacher), of(student), of(student).count)


def valid(batch: Batch) -> Tensor:
    return batch.targets.flatten() != IGNORE


def loss(signals: list[Signal], batch: Batch, vocabulary: int, **settings: Any) -> tuple[float, Tensor]:
    torch.manual_seed(1)
    logits = torch.randn(batch.targets.numel(), vocabulary, requires_grad=True)
    sums = distillation_loss(logits, signals, batch.targets.flatten(), StepObjective(Objective(**settings), 0.7, 1.0))
    return sums.total.item(), torch.autograd.grad(sums.total, logits)[0]


@pytest.mark.parametrize("kind", ["forward-kl", "reverse-kl", "jsd"])
@pytest.mark.parametrize("tokenizer", ["merges", "sentence pieces"])
def test_equal_tokenizers_give_the_ordinary_loss(tokenizer: str, kind: str) -> None:
    tokens, model = of(tokenizer), model_of(of(tokenizer))
    batch = batch_of(tokens)
    ordinary, wanted = loss([live(model, tokens.count)(batch)], batch, tokens.count, kind=kind)
    found, gradient = loss([live(aligned(tokenizer, tokenizer), tokens.count)(batch)], batch, tokens.count, kind=kind)
    assert found == pytest.approx(ordinary, rel=1e-5)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("teacher", "student"), [("merges", "bytes"), ("bytes", "merges"), ("merges", "more merges")])
def test_probabilities_sum_to_one_and_a_text_costs_what_its_own_tokens_cost(teacher: str, student: str) -> None:
    above, batch = aligned(teacher, student), batch_of(of(student))
    answers = above.answers(batch)
    rows = valid(batch)
    torch.testing.assert_close(answers.log_p[rows].exp().sum(-1), torch.ones(int(rows.sum())), rtol=0, atol=1e-5)
    found = above._aligned(batch)
    for number, sequence in enumerate(found.sequences):
        logs = above.model(input_ids=torch.tensor([sequence])).logits[0].log_softmax(-1)
        own = -sum(float(logs[token.before, token.id]) for token in found.tokens if token.sequence == number)
        window = slice(number * LENGTH, (number + 1) * LENGTH)
        inside = answers.nll[window][rows[window]].sum()
        assert float(inside) == pytest.approx(own, rel=1e-4)


def test_bytes_get_the_mass_of_all_tokens_that_go_on_with_them() -> None:
    """Against a sum over the whole vocabulary, token by token."""
    teacher, student = of("merges"), of("bytes")
    above, batch = aligned("merges", "bytes"), batch_of(of("bytes"))
    answers, found = above.answers(batch), above._aligned(batch)
    for row in found.rows:
        token = found.tokens[row.first]
        p = above.model(input_ids=torch.tensor([found.sequences[token.sequence]])).logits[0, token.before].softmax(-1)
        mass = torch.zeros(student.count)
        for index, word in enumerate(teacher.bytes_of):
            if len(word) > len(row.begun) and word.startswith(row.begun):
                mass[word[len(row.begun)]] += p[index]
        if not row.begun:
            mass[student.end] += p[teacher.end]
            mass[257] += p[tokenizers.special_ids(merges())[1]]  # the padding, which both call by one name
        torch.testing.assert_close(answers.log_p[row.number].exp(), mass / mass.sum(), rtol=1e-4, atol=1e-6)


def test_an_id_longer_than_the_teachers_gets_their_product() -> None:
    """Students' merges below a teacher of bytes: the chain rule over single bytes."""
    teacher, student = of("bytes"), of("merges")
    above, batch = aligned("bytes", "merges"), batch_of(of("merges"))
    answers, found = above.answers(batch), above._aligned(batch)
    longer = [row for row in found.rows if len(student.bytes_of[row.target]) > 1]
    assert len(longer) > 20
    for row in longer:
        token = found.tokens[row.first]
        logs = above.model(input_ids=torch.tensor([found.sequences[token.sequence]])).logits[0].log_softmax(-1)
        chain = sum(float(logs[token.before + place, byte]) for place, byte in enumerate(student.bytes_of[row.target]))
        assert float(answers.nll[row.number]) == pytest.approx(-chain, rel=1e-4)
        assert float(answers.log_p[row.number, row.target]) == pytest.approx(max(chain, np.log(1e-10)), rel=1e-4)
    assert bool(answers.begins[valid(batch)].all())  # each byte ends a token of the teacher
    assert teacher.count == 258


def test_a_window_may_begin_and_end_within_a_letter() -> None:
    student = of("bytes")
    moon = "🌙".encode()
    window = np.array([[*moon[2:], *"ab猫".encode()[:-1]]])
    batch = next_token_batch(window, np.array([window.shape[1]]), np.zeros(1, dtype=np.int32))
    answers = aligned("merges", "bytes").answers(batch)
    assert bool(answers.nll.isfinite().all())
    torch.testing.assert_close(answers.log_p.exp().sum(-1), torch.ones(window.shape[1] - 1), rtol=0, atol=1e-5)
    assert student.count == 258


def test_documents_apart_are_answered_without_one_another() -> None:
    student = of("bytes")
    above, ids = aligned("merges", "bytes"), [student.end, *b"the cat sat", student.end, *b"the mat"]
    whole = next_token_batch(np.array([ids]), np.array([len(ids)]), np.zeros(1, dtype=np.int32))
    second = next_token_batch(np.array([ids[12:]]), np.array([len(ids) - 12]), np.zeros(1, dtype=np.int32))
    parted = Batch({**whole.inputs, "position_ids": torch.zeros_like(whole.targets)}, whole.targets, whole.slices)
    alone = above.answers(second).log_p
    torch.testing.assert_close(above.answers(parted).log_p[-7:], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(above.answers(whole).log_p[-7:], alone, atol=1e-3)


def test_sorted_probabilities_are_compared_where_spans_begin() -> None:
    above, batch = aligned("merges", "bytes"), batch_of(of("bytes"))
    signal, found = live(above, 258, alignment="uld")(batch), above._aligned(batch)
    begins = {row.number: row for row in found.rows if not row.begun}
    torch.manual_seed(1)
    logits = torch.randn(batch.targets.numel(), 258)
    sums = distillation_loss(logits, [signal], batch.targets.flatten(), StepObjective(Objective(), 1.0, 1.0))
    wanted = 0.0
    for number, row in begins.items():
        token = found.tokens[row.first]
        p = above.model(input_ids=torch.tensor([found.sequences[token.sequence]])).logits[0, token.before].softmax(-1)
        q = torch.cat([logits[number].softmax(-1), torch.zeros(of("merges").count - 258)])
        wanted += float((p.sort(descending=True).values - q.sort(descending=True).values).abs().sum())
    assert 0 < len(begins) < int(valid(batch).sum())
    assert float(sums.total) == pytest.approx(wanted, rel=1e-4)
    assert bool(sums.teacher_ce.isnan())


def test_sorted_probabilities_in_chunks_are_those_at_once() -> None:
    batch = batch_of(of("bytes"))
    signals = [aligned("merges", "bytes").largest(batch), TeacherSignal(torch.randn(batch.targets.numel(), 258))]
    at = StepObjective(Objective(alpha=Alpha(start=0.6)), 0.6, 1.0)
    hidden, weight = torch.randn(batch.targets.numel(), 8, requires_grad=True), torch.randn(258, 8)
    whole = distillation_loss(hidden @ weight.T, signals, batch.targets.flatten(), at).total
    chunked = chunked_loss(hidden, Head(weight, None), signals, batch.targets.flatten(), at, chunk=7).total
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-4)
    for one, other in zip(torch.autograd.grad(chunked, hidden), torch.autograd.grad(whole, hidden), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_window_beyond_the_teachers_positions_is_refused() -> None:
    own, student = of("bytes"), of("merges")
    above = AlignedTeacher(model_of(own, positions=20), own, student, student.count)
    with pytest.raises(UserError, match=r"data\.sequence_length: got 'a window of \d+ ids of the teacher'; allowed: windows of at most 20"):
        above.answers(batch_of(student))


def test_a_text_of_the_student_without_labels_is_answered_as_one_with_them() -> None:
    """Its last id is not among the inputs; what the teacher says of it does not depend on it."""
    above, batch = aligned("merges", "bytes"), batch_of(of("bytes"))
    part = batch.part(0, 2)
    written = Batch(part.inputs, torch.full_like(part.targets, UNLABELLED), part.slices)
    known, found = above.answers(part), above.answers(written)
    whole = above._aligned(part).rows
    last = whole[-1]
    # Where its last token begins, with and without the id that is not known, depends on it; before that nothing does.
    before = [row.number for row in whole if row.first < last.first]
    torch.testing.assert_close(found.log_p[before], known.log_p[before], rtol=1e-5, atol=1e-5)
    assert bool(found.begins[-1])
    text = part.inputs["input_ids"][0, 1:].tolist()
    (ids,) = of("merges").encode([bytes(text)])
    p = above.model(input_ids=torch.tensor([[of("merges").end, *ids]])).logits[0, -1].softmax(-1)
    mass = torch.zeros(258)
    for index, word in enumerate(of("merges").bytes_of):
        if word:
            mass[word[0]] += p[index]
    torch.testing.assert_close(found.log_p[-1].exp()[:256], mass[:256] / (mass.sum() + p[0] + p[1]), rtol=1e-4, atol=1e-6)


def test_a_byte_that_the_teacher_has_no_token_for_is_taken_from_the_text() -> None:
    own, student = ByteTokens(without_moons()), of("bytes")
    above = AlignedTeacher(model_of(own), own, student, 258)
    window = np.array([[student.end, *"a 🌙 the".encode()]])
    answers = above.answers(next_token_batch(window, np.array([window.shape[1]]), np.zeros(1, dtype=np.int32)))
    assert answers.log_p[2].argmax() == 0xF0
    assert float(answers.log_p[2].exp()[0xF0]) == 1.0
    assert float(answers.nll[2]) == pytest.approx(8 * np.log(2))
    assert answers.begins.tolist() == [True, True, False, True, True, True, True, True, False, False]
    torch.testing.assert_close(answers.log_p.exp().sum(-1), torch.ones(10), rtol=0, atol=1e-5)
    merged = ByteTokens(merges())  # a student whose ids hold that byte and more
    rows = align([[merged.end, *merged.encode(["a 🌙 the".encode()])[0]]], 20, merged, own)
    texts = [merged.bytes_of[target] for _, target, _ in rows.fixed]
    assert texts
    assert all(b"\xf0" in text for text in texts)


@pytest.mark.parametrize("teacher", ["without moons", "merges", "sentence pieces"])
@pytest.mark.parametrize("student", ["bytes", "more merges", "sentence pieces"])
def test_what_is_unheard_is_what_has_no_row_of_the_teachers_within_a_text(teacher: str, student: str) -> None:
    own = ByteTokens(without_moons()) if teacher == "without moons" else of(teacher)
    theirs = of(student)
    above = AlignedTeacher(model_of(own), own, theirs, theirs.count)
    begin, letter = theirs.prefix or (theirs.end,), theirs.id_of[b"a"]
    windows = [[*begin, letter, index, letter] for index in range(theirs.count)]
    fixed = {number // len(windows[0]) for number, target, _ in align(windows, len(windows[0]), theirs, own).fixed if target != letter}
    assert set(above.unheard.nonzero().flatten().tolist()) == fixed
