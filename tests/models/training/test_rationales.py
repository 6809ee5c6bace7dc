"""Answers and rationales as two tasks: what each weighs in a step, and what a training without rationales keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from conf.errors import RunCancelled
from conf.schema.stage.objective import Feature, Objective
from conf.schema.stage.training import Training
from models.data import tokenizers
from models.data.batches import IGNORE, Batch, TrainingBatches
from models.data.chat import ChatEncoder, conversation_text
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.losses.features import Features
from models.losses.loss import StepObjective
from models.signals.cache import MANIFEST, SignalCache, keys_of
from models.signals.codec import FORMAT
from models.signals.fill import fill_cache, needed_keys
from models.signals.sources import SignalSource, live, rows, split_head
from models.students.vocabulary import VocabularyMap, reduce_corpus
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, accelerator_for, train
from models.training.step import Losses, StudentInTraining, gradients

Settings = Callable[..., Training]
Make = Callable[..., nn.Module]
OBJECTIVE = Objective.model_validate({"alpha": 0.4, "temperature": 2.0})
ROWS = 14


def split_of(encoded: Any) -> Split:
    nothing = np.zeros(len(encoded.counts), dtype=np.int64)
    offsets = np.concatenate([nothing[:1], np.cumsum(encoded.counts)])
    return Split(encoded.values, offsets, nothing - 1, nothing.astype(np.int32), encoded.sizes, encoded.counted)


def corpus_in(folder: Path, every: int = 3) -> Corpus:
    """Sums with their working as rationales, of which every so many rows have none; 0: all have one."""
    folder.mkdir()
    tokenizer, texts = tokenizers.bytes_tokenizer(), list[str]()
    for n in range(ROWS):
        working = None if every and n % every == 0 else (f"{n}+{n}+1?why:", f"{n}+{n}={2 * n}, and one more {'x' * n}is {2 * n + 1}")
        texts.append(conversation_text(prompt=f"{n}+{n}+1?", completion=str(2 * n + 1), rationale=working))
    encoder = ChatEncoder(tokenizer, 65, plain=True)
    answers, rationales = split_of(encoder.documents(texts)), split_of(encoder.rationales(texts))
    end_id, pad_id = tokenizers.special_ids(tokenizer)
    counts: dict[str, int] = dict.fromkeys(SPLITS, ROWS)
    tokens: dict[str, int] = {name: len(answers.values) for name in SPLITS}
    reasons = int((np.diff(rationales.offsets) > 0).sum())
    info = CorpusInfo(
        "causal-lm", 64, len(tokenizer), end_id, pad_id, (), ("all",), None, counts, tokens, completions=True, rationales=reasons
    )
    tokenizers.save(tokenizer, folder / "tokenizer")
    write_corpus(folder, info, dict.fromkeys(SPLITS, answers), rationales)
    return Corpus(folder, "hash")


@pytest.fixture
def sums(tmp_path: Path) -> Corpus:
    return corpus_in(tmp_path / "sums")


def batches_of(corpus: Corpus, size: int = 8) -> TrainingBatches:
    return TrainingBatches(corpus, size, 0, rationales=True)


def step_of(
    corpus: Corpus,
    model: nn.Module,
    training: Training,
    weight: float,
    sources: list[SignalSource],
    batch: Batch,
    whole_logits: bool = False,
    features: Features | None = None,
) -> Losses:
    """The gradients of one step on the model; `whole_logits`: its head is not split off."""
    plan = Plan(training, OBJECTIVE, 0, corpus.info.vocabulary, rationale=weight)
    student = StudentInTraining(model, model, None if whole_logits else split_head(model), features)
    at = StepObjective(OBJECTIVE, 0.4, 2.0) if sources else None
    return gradients(accelerator_for("cpu", "fp32"), student, batch, plan, sources, at)[0]


def means_by_hand(model: nn.Module, teacher: nn.Module | None, batch: Batch) -> list[torch.Tensor]:
    """`(1 - alpha) CE + alpha T^2 KL`, or CE, meaned over the tokens of answers and over those of rationales, in plain torch."""
    assert batch.rationale is not None
    found = []
    for chosen in (~batch.rationale, batch.rationale):
        ids, targets = batch.inputs["input_ids"][chosen], batch.targets[chosen]
        keep = targets != IGNORE
        logits = cast(Any, model)(input_ids=ids).logits[keep][:, :258]
        loss = functional.cross_entropy(logits, targets[keep])
        if teacher is not None:
            with torch.no_grad():
                theirs = functional.log_softmax(cast(Any, teacher)(input_ids=ids).logits[keep][:, :258] / 2, -1)
            own = functional.log_softmax(logits / 2, -1)
            loss = 0.6 * loss + 0.4 * 4 * functional.kl_div(own, theirs, log_target=True, reduction="batchmean")
        found.append(loss)
    return found


def test_a_step_holds_its_rows_and_then_their_rationales(sums: Corpus) -> None:
    plain, both = TrainingBatches(sums, 8, 0), batches_of(sums)
    assert both.examples == plain.examples == ROWS
    tokenizer, seen = tokenizers.bytes_tokenizer(), set[str]()
    for step in range(4):
        numbers, answers, batch = plain.numbers(step), plain.at(step), both.at(step)
        assert np.array_equal(numbers, both.numbers(step)), "the rows and their order are those of a training without"
        own = [int(n) for n in numbers if n % 3]
        assert batch.rationale is not None
        assert batch.rationale.tolist() == [False] * 8 + [True] * len(own)
        width = answers.targets.shape[1]
        assert torch.equal(batch.targets[:8, :width], answers.targets)
        assert (batch.targets[:8, width:] == IGNORE).all()
        for ids, targets, n in zip(batch.inputs["input_ids"][8:], batch.targets[8:], own, strict=True):
            learned = str(tokenizer.decode(targets[targets != IGNORE].tolist(), skip_special_tokens=True))
            assert learned == f"{n}+{n}={2 * n}, and one more {'x' * n}is {2 * n + 1}"
            assert f"{n}+{n}+1?why:{learned}" in str(tokenizer.decode(ids.tolist(), skip_special_tokens=True))
            seen.add(learned)
    assert len(seen) == sums.info.rationales


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("whole_logits", [False, True])
def test_the_gradient_is_that_of_both_means_added_with_the_weight(
    sums: Corpus, training: Settings, model_for: Make, taught: bool, whole_logits: bool
) -> None:
    model, teacher = model_for(sums), model_for(sums, seed=1, hidden=32) if taught else None
    batch = batches_of(sums).at(0)
    sources = [live(teacher, sums.info.vocabulary)] if teacher is not None else []
    tokens = [batch.task(kind).valid for kind in (False, True)]
    assert tokens[1] > 5 * tokens[0], "one mean over all tokens would lose the answers"
    for weight in (0.0, 0.3, 5.0):
        answer, rationale = means_by_hand(model, teacher, batch)
        expected = torch.autograd.grad(answer + weight * rationale, list(model.parameters()))
        model.zero_grad()
        losses = step_of(sums, model, training(clip=1e6), weight, sources, batch, whole_logits)
        assert losses.loss == pytest.approx((answer + weight * rationale).item(), rel=1e-5)
        assert losses.rationale == (pytest.approx(rationale.item(), rel=1e-5) if weight else None)
        assert (0.6 * losses.ce + 0.4 * losses.kd if taught else losses.ce) == pytest.approx(answer.item(), rel=1e-5)
        for parameter, wanted in zip(model.parameters(), expected, strict=True):
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("taught", [False, True])
def test_micro_batches_equal_one_batch(sums: Corpus, training: Settings, model_for: Make, taught: bool) -> None:
    batch, runs = batches_of(sums).at(0), []
    teacher = model_for(sums, seed=1, hidden=32) if taught else None
    sources = [live(teacher, sums.info.vocabulary)] if teacher is not None else []
    assert batch.rationale is not None
    parts = [batch.part(index, 4).trimmed() for index in range(4)]
    assert len({part.targets.shape for part in parts}) > 1, "a part of answers alone is shorter"
    assert any(part.rationale is not None and not part.rationale.any() for part in parts)
    for accumulation in (1, 2, 4):
        model = model_for(sums)
        features = None if teacher is None else Features([Feature(weight=0.5)], model, teacher, 0)
        losses = step_of(sums, model, training(accumulation=accumulation), 0.7, sources, batch, features=features)
        runs.append(([value or 0.0 for value in losses], [cast(torch.Tensor, p.grad).clone() for p in model.parameters()]))
    for losses, gradient in runs[1:]:
        assert losses == pytest.approx(runs[0][0], rel=1e-5)
        assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(gradient, runs[0][1], strict=True))


def test_two_processes_share_a_step_by_its_own_counts(sums: Corpus, training: Settings, model_for: Make) -> None:
    """The mean of what two processes compute, each on its part with the counts of the whole step, is one process's gradient."""
    batch, model = batches_of(sums).at(0), model_for(sums)
    step_of(sums, model, training(clip=1e6), 0.7, [], batch)
    expected = [cast(torch.Tensor, p.grad).clone() for p in model.parameters()]
    total = [torch.zeros_like(each) for each in expected]
    for rank in (0, 1):
        accelerator: Any = accelerator_for("cpu", "fp32")
        alone: Any = type("One", (), {"num_processes": 2, "process_index": rank, "device": accelerator.device})()
        for name in ("autocast", "backward", "clip_grad_norm_", "no_sync"):
            setattr(alone, name, getattr(accelerator, name))
        alone.reduce = lambda tensor, how: tensor
        model.zero_grad()
        plan = Plan(training(clip=1e6), None, 0, sums.info.vocabulary, rationale=0.7)
        gradients(alone, StudentInTraining(model, model, split_head(model), None), batch, plan, [], None)
        total = [sum_ + cast(torch.Tensor, p.grad) / 2 for sum_, p in zip(total, model.parameters(), strict=True)]
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(total, expected, strict=True))


def trained(corpus: Corpus, training: Training, model: nn.Module, rationales: bool, weight: float = 1.0, **more: Any) -> list[Step]:
    steps = list[Step]()
    plan = Plan(training, None, 0, corpus.info.vocabulary, rationale=weight)
    train(model, TrainingBatches(corpus, training.batch_size, 0, rationales=rationales), plan, on_step=steps.append, **more)
    return steps


def test_parts_of_rationales_alone_have_no_gradient_without_a_weight(sums: Corpus, training: Settings, model_for: Make) -> None:
    batch, model, again = batches_of(sums).at(0), model_for(sums), model_for(sums)
    one = step_of(sums, model, training(accumulation=1), 0.0, [], batch)
    other = step_of(sums, again, training(accumulation=4), 0.0, [], batch)
    assert other.loss == pytest.approx(one.loss, rel=1e-5)
    for parameter, expected in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.allclose(cast(torch.Tensor, parameter.grad), cast(torch.Tensor, expected.grad), rtol=1e-4, atol=1e-6)


def test_a_weight_of_zero_is_a_training_on_answers_alone(sums: Corpus, training: Settings, model_for: Make) -> None:
    """To the rounding of the wider padding, where a step has rationales in vain; a stage of weight 0 has none."""
    models = [model_for(sums) for _ in range(2)]
    alone = trained(sums, training(steps=4), models[0], rationales=False)
    weightless = trained(sums, training(steps=4), models[1], rationales=True, weight=0.0)
    assert [step.loss for step in alone] == pytest.approx([step.loss for step in weightless], rel=1e-5)
    assert alone[0].rationale is weightless[0].rationale is None
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))


def test_rationales_are_learned_beside_the_answers(sums: Corpus, training: Settings, model_for: Make) -> None:
    steps = trained(sums, training(steps=60, batch_size=14, learning_rate=1e-2), model_for(sums, hidden=32), rationales=True)
    first, last = steps[0], steps[-1]
    assert first.rationale is not None
    assert last.rationale is not None
    assert last.rationale < 0.6 * first.rationale
    assert last.ce < 0.7 * first.ce


def test_a_stopped_training_goes_on_to_the_same_weights(sums: Corpus, training: Settings, model_for: Make, tmp_path: Path) -> None:
    lesson, whole, again = training(steps=6), model_for(sums), model_for(sums)
    steps = trained(sums, lesson, whole, rationales=True)
    seen = list[int]()
    with pytest.raises(RunCancelled):
        trained(sums, lesson, again, True, checkpoints=Checkpoints(tmp_path / "w"), should_stop=lambda: seen.append(1) or len(seen) == 3)
    resumed = model_for(sums, seed=9)
    rest = trained(sums, lesson, resumed, True, checkpoints=Checkpoints(tmp_path / "w"))
    assert [step.rationale for step in rest] == [step.rationale for step in steps[3:]]
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_stored_answers_teach_both_tasks_as_live_ones(sums: Corpus, training: Settings, model_for: Make, tmp_path: Path) -> None:
    vocabulary, teacher = cast(int, sums.info.vocabulary), model_for(sums, seed=1, hidden=32)
    identity = {"kind": "signals", "format": FORMAT, "signal": "full", "size": vocabulary, "vocabulary": vocabulary, "seed": 0}
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / MANIFEST).write_text("{}")
    cache, batches = SignalCache.open(tmp_path / "cache", "f" * 64, identity, pytest.fail), batches_of(sums, 7)
    steps, keys = needed_keys(batches, 2)
    assert len(keys) == ROWS + sums.info.rationales == len(set(keys_of(batches.at(0))) | set(keys_of(batches.at(1))))
    fill_cache(cache, batches, steps, lambda batch: rows(teacher, batch, vocabulary).detach(), "test")
    assert not cache.missing(keys).any()
    found = []
    for source in (live(teacher, vocabulary), cache.source):
        model = model_for(sums)
        losses = step_of(sums, model, training(accumulation=1), 0.7, [source], batches_of(sums).at(3))
        found.append((losses, torch.cat([cast(torch.Tensor, p.grad).flatten() for p in model.parameters()])))
    (one, gradient), (other, stored) = found
    assert other.loss == pytest.approx(one.loss, rel=1e-3)
    assert other.rationale == pytest.approx(one.rationale, rel=1e-3)
    assert functional.cosine_similarity(gradient, stored, dim=0) > 0.9999


def test_a_smaller_vocabulary_reads_the_rationales_too(sums: Corpus) -> None:
    kept = VocabularyMap(tuple(range(10, 258)))
    smaller = reduce_corpus(sums, kept)
    one, other = batches_of(sums).at(0), TrainingBatches(smaller, 8, 0, rationales=True).at(0)
    assert torch.equal(kept.inputs(one.inputs["input_ids"]), other.inputs["input_ids"])
    assert torch.equal(kept.targets(one.targets), other.targets)


def test_a_step_whose_rows_have_no_rationale_is_one_of_answers(tmp_path: Path, training: Settings, model_for: Make) -> None:
    corpus = corpus_in(tmp_path / "few", every=1)
    assert corpus.info.rationales == 0
    assert corpus.rationales is None
    assert batches_of(corpus).at(0).rationale is None
    full = corpus_in(tmp_path / "full", every=0)
    batch = batches_of(full).at(0)
    assert batch.rationale is not None
    assert batch.rationale.tolist() == [False] * 8 + [True] * 8
