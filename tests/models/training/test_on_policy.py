"""Batches that the student writes: which steps, what is written, its loss, and a resumed training."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from conf.schema.stage.objective import Objective
from conf.schema.stage.signals import Signals
from conf.schema.stage.training import Training
from models.architectures import attention
from models.architectures.attention import single_precision_gradient
from models.architectures.gated import lean_gates
from models.data.batches import IGNORE, UNLABELLED, TrainingBatches
from models.data.corpus import SPLITS, Corpus, write_corpus
from models.engines.sampling import draw
from models.losses.schedules import WritingSteps
from models.signals.sources import live
from models.training import rollout
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, Trained, train
from models.training.on_policy import OnPolicyBatches, text_batch
from models.training.rollout import Written, write
from tests.factories import END, corpus_in, split_of

pytestmark = pytest.mark.thorough

Settings = Callable[..., Training]
Make = Callable[..., nn.Module]


class Killed(BaseException):
    """What ends an attempt."""


def signals(**changes: object) -> Signals:
    return Signals.model_validate({"source": "on-policy", "prompt": 8, **changes})


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_steps_are_spread_evenly_and_written_ahead_no_further_than_they_are_used() -> None:
    steps = WritingSteps(10, 0.5, 2, 3)
    assert [step for step in range(10) if steps.has(step)] == [1, 3, 5, 7, 9]
    assert [steps.place(step) for step in (1, 3, 5, 7, 9)] == [(0, 0), (0, 1), (0, 0), (0, 1), (0, 0)]
    assert steps.prompts(1) == [1, 3]
    assert [steps.written(done) for done in (0, 1, 2, 10)] == [0, 0, 2, 2]
    short = WritingSteps(5, 1.0, 4, 1)
    assert [short.place(step) for step in range(5)] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert short.prompts(4) == [4]
    assert [short.written(done) for done in range(6)] == [0, 4, 4, 4, 4, 5]
    assert not any(WritingSteps.of(Signals(), 8).has(step) for step in range(8))


def test_large_matrices_are_packed_while_a_few_rows_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4))
    ids = torch.randint(0, 300, (5, 20))
    with torch.no_grad():
        expected = model(ids).logits
        monkeypatch.setattr(rollout, "LARGE", 300 * 32)
        with rollout._packed(model, 5):
            assert "forward" in vars(model.lm_head)
            assert "forward" not in vars(model.model.layers[0].mlp.up_proj)  # too small
            assert torch.allclose(model(ids, logits_to_keep=1).logits, expected[:, -1:], atol=1e-5)
            assert torch.equal(model(ids).logits, expected)  # too many rows
        assert "forward" not in vars(model.lm_head)
        for rows, dtype, half in (
            (2, torch.float32, False),
            (64, torch.float32, False),
            (5, torch.float32, True),
            (5, torch.bfloat16, False),
        ):
            with torch.autocast("cpu", torch.bfloat16, enabled=half), rollout._packed(model.to(dtype), rows):
                assert "forward" not in vars(model.lm_head)


def test_what_is_packed_is_used_by_a_training_that_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4))
    prompts, used = [torch.randint(0, 300, (6,)) for _ in range(4)], Counter[tuple[int, int]]()
    words = {"end_id": None, "vocabulary": 300, "temperature": 1.0, "seed": 3}
    expected, several = write(model, prompts, [12] * 4, **words), rollout._several_rows

    def counted(layer: nn.Linear, packed: Tensor, input: Tensor) -> Tensor:
        used[tuple(layer.weight.shape)] += 1
        return several(layer, packed, input)

    monkeypatch.setattr(rollout, "LARGE", 64 * 32)
    monkeypatch.setattr(rollout, "_several_rows", counted)
    with lean_gates(model):
        assert torch.equal(write(model, prompts, [12] * 4, **words).ids, expected.ids)
    assert used == {(300, 32): 6, (64, 32): 12, (32, 64): 6}


def test_a_matrix_that_cannot_be_packed_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    monkeypatch.setattr(rollout, "LARGE", 64 * 64)
    model[1].weight.data = torch.zeros(64, 64, 1)  # of three dimensions: oneDNN refuses it
    with pytest.raises(RuntimeError), rollout._packed(model, 4):
        pass
    assert "forward" not in vars(model[0])


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2, 0.0]).log().repeat(4000, 1)
    chance = (torch.arange(4000) + 0.5) / 4000
    assert torch.bincount(draw(logits, 1.0, chance), minlength=4).tolist() == [2000, 1200, 800, 0]
    sharp = draw(logits, 0.5, chance).bincount(minlength=4) / 4000
    assert torch.allclose(sharp, torch.tensor([0.25, 0.09, 0.04, 0.0]) / 0.38, atol=1e-3)
    assert draw(logits, 0.0, chance).unique().tolist() == [0]
    assert draw(logits[:1], 1.0, torch.tensor([1 - 2**-24])).tolist() == [2], "never an id without probability"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_written_is_what_the_whole_text_would_be_continued_with(prose: Corpus, model_for: Make, family: str) -> None:
    """Rows of prompts of several lengths, one of which ends early, against a model that reads each row anew, without any cache."""
    model = model_for(prose).train() if family == "llama" else _gpt2()
    prompts = [torch.tensor(list(text.encode())) for text in ("the quick", "fox", "lazy dogs jump", "over it")]
    most = [20, 17, 20, 12]
    written = write(model, prompts, most, end_id=None, vocabulary=250, temperature=0.0, seed=3)
    assert model.training
    model.eval()
    for row, prompt in enumerate(prompts):
        own = prompt.tolist()
        while len(own) < most[row]:
            with torch.no_grad():
                own.append(int(model(input_ids=torch.tensor([own])).logits[0, -1, :250].argmax()))
        assert written.ids[row, : most[row]].tolist() == own
    assert written.lengths.tolist() == most
    end = int(written.ids[1, 8])
    ended = write(model, prompts, most, end_id=end, vocabulary=250, temperature=0.0, seed=3)
    for row in range(4):
        after = [at for at in range(len(prompts[row]), most[row]) if written.ids[row, at] == end]
        length = after[0] + 1 if after else most[row]
        assert ended.lengths[row] == length
        assert torch.equal(ended.ids[row, :length], written.ids[row, :length])


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=258, n_positions=32)).train()


def test_what_counts_is_what_the_student_wrote_up_to_the_end_id() -> None:
    written = Written(torch.arange(12).reshape(2, 6), torch.tensor([2, 3]), torch.tensor([4, 5]))
    batch = text_batch(written)
    assert batch.inputs["input_ids"].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert batch.targets.tolist() == [[IGNORE, UNLABELLED, UNLABELLED, IGNORE], [IGNORE, IGNORE, UNLABELLED, UNLABELLED]]
    assert batch.valid == 4


def test_an_id_that_no_teacher_speaks_of_does_not_count() -> None:
    written = Written(torch.tensor([[1, 2, 3, 9, 4, 9]]), torch.tensor([2]), torch.tensor([6]))
    unheard = torch.arange(10) == 9
    assert text_batch(written, unheard).targets.tolist() == [[IGNORE, UNLABELLED, IGNORE, UNLABELLED, IGNORE]]
    assert text_batch(written, unheard).inputs["input_ids"].tolist() == [[1, 2, 3, 9, 4]]


def test_batches_of_the_data_and_of_the_student_take_turns(prose: Corpus, model_for: Make) -> None:
    data, model = TrainingBatches(prose, 4, 0), model_for(prose)
    batches = OnPolicyBatches(data, model, signals(fraction=0.5, buffer=2), 8, "fp32")
    for step in range(4):
        found, given = batches.at(step), data.at(step)
        ids = found.inputs["input_ids"]
        assert torch.equal(ids[:, :8], given.inputs["input_ids"][:, :8])
        assert bool((found.targets == UNLABELLED).any()) == (step % 2 == 1)
        if step % 2 == 0:
            assert torch.equal(found.targets, given.targets)
    assert {int(length) for length in batches.state()["lengths"]} <= set(range(9, 25))


def test_rows_of_prompt_and_completion_are_continued_from_their_own_prompts(prose: Corpus, model_for: Make, tmp_path: Path) -> None:
    rows = [("ab", "cdef"), ("the quick", "fox"), ("o", "ver it"), ("lazy dogs", "x")]
    ids = [[*prompt.encode(), *answer.encode(), END] for prompt, answer in rows]
    counted = [number >= len(prompt) for (prompt, _), each in zip(rows, ids, strict=True) for number in range(len(each))]
    split = replace(split_of(ids, [-1] * 4, [0] * 4, [4] * 4), counted=np.array(counted, dtype=np.uint8))
    corpus = corpus_in(tmp_path / "rows", "causal-lm", 16, dict.fromkeys(SPLITS, split))
    description = replace(corpus.info, completions=True)
    write_corpus(tmp_path / "completions", description, dict.fromkeys(SPLITS, split))
    data, model = TrainingBatches(Corpus(tmp_path / "completions", "hash"), 4, 0), model_for(prose)
    batches = OnPolicyBatches(data, model, Signals.model_validate({"source": "on-policy", "tokens": 5}), 4, "fp32")
    found, numbers = batches.at(0), data.numbers(0)
    for row, number in enumerate(numbers.tolist()):
        prompt = list(rows[number][0].encode())
        assert found.inputs["input_ids"][row, : len(prompt)].tolist() == prompt
        counts = (found.targets[row] == UNLABELLED).nonzero()[:, 0].tolist()
        length = int(batches.state()["lengths"][row])
        assert length - len(prompt) <= 5
        assert counts == list(range(len(prompt) - 1, length - 1))


Run = Callable[..., tuple[Trained, dict[str, Tensor], list[Step]]]


@pytest.fixture
def run(prose: Corpus, training: Settings, model_for: Make) -> Run:
    """Train on the student's own text, and be killed after a step if told so."""

    def run_(folder: Path | None, kill_at: int | None = None, precision: str = "fp32", kind: str = "reverse-kl", steps: int = 9, **changes):
        seen = list[Step]()

        def on_step(step: Step) -> None:
            seen.append(step)
            if step.step == kill_at:
                raise Killed

        model = model_for(prose, seed=2)
        torch.manual_seed(torch.seed())
        settings = training(steps=steps, checkpoint_every=1, precision=precision, accumulation=2, learning_rate=1e-2)
        trained = train(
            model,
            OnPolicyBatches(TrainingBatches(prose, 8, 0), model, signals(**changes), steps, precision),
            Plan(settings, Objective.model_validate({"kind": kind, "alpha": 0.5}), 0, prose.info.vocabulary, "cpu", precision),
            signals=live(model_for(prose, seed=1, hidden=32), prose.info.vocabulary, precision),
            checkpoints=Checkpoints(folder) if folder else None,
            on_step=on_step,
        )
        return trained, weights(model), seen

    return run_


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_killed_within_a_buffers_life_ends_with_the_same_bits(run: Run, tmp_path: Path, precision: str) -> None:
    shape = {"precision": precision, "fraction": 0.75, "buffer": 2, "reuse": 2}
    whole, expected, steps = run(tmp_path / "whole", **shape)
    for kill in (3, 6):
        with pytest.raises(Killed):
            run(tmp_path / str(kill), kill_at=kill, **shape)
        trained, found, _ = run(tmp_path / str(kill), **shape)
        assert trained.resumed_at == kill - 1
        assert (trained.tokens, trained.curve["train"][-1]["loss"]) == (whole.tokens, whole.curve["train"][-1]["loss"])
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert math.isfinite(steps[-1].loss)


def test_attention_of_one_position_is_that_of_sdpa(prose: Corpus) -> None:
    """In half precision: after cached positions, which are in single precision, it takes a way of its own."""
    config = LlamaConfig(
        vocab_size=258, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    torch.manual_seed(0)
    model, prompts = LlamaForCausalLM(config), [torch.tensor([3, 1, 4, 1, 5]), torch.tensor([9, 2])]

    def text(few: int) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rollout, "FEW", few)
            return write(model, prompts, [24, 24], end_id=None, vocabulary=None, temperature=0.0, seed=0, precision="bf16").ids

    plain, asked = text(0), list[int]()
    with single_precision_gradient(model), pytest.MonkeyPatch.context() as patch:
        of_one = attention._of_one
        patch.setattr(attention, "_of_one", lambda query, *rest: asked.append(query.shape[0]) or of_one(query, *rest))
        assert torch.equal(text(0), plain)
        assert asked == [2] * 2 * 21, "one of each layer for each position after the first two"
        text(10**9)
        assert len(asked) == 2 * 2 * 21
