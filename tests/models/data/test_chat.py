"""Conversations: which ids are learned, what is cut, and the loss against one written by hand with transformers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from conf.errors import UserError
from conf.schema.stage.objective import Objective
from models.data import tokenizers
from models.data.batches import IGNORE, TrainingBatches
from models.data.chat import PLAIN, ChatEncoder, conversation_text, spoken, use_template
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.data.held_out import evaluation_batches, evaluation_documents
from models.engines.prompts import PromptEncoder
from models.evaluation.baselines import held_out_targets, training_counts
from models.evaluation.evaluation import collect, quality
from models.evaluation.generation import prompts
from models.losses.loss import StepObjective, distillation_loss
from models.signals.cache import SignalCache, keys_of
from models.signals.codec import FORMAT
from models.signals.fill import fill_cache
from models.signals.sources import live, rows
from models.training.loop import Plan, Step, accelerator_for
from models.training.step import StudentInTraining, gradients
from tests.factories import interface_for

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}: {% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Größe von x?"},
    {"role": "assistant", "content": "Drei Ärmel"},
    {"role": "user", "content": "Und y?"},
    {"role": "assistant", "content": "vier"},
]


def chat_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Bytes with two merges that a chat's marks do not cross, and the marks of ChatML as special ids."""
    letters = tokenizers.byte_letters()
    space, newline = next(k for k, v in letters.items() if v == 32), next(k for k, v in letters.items() if v == 10)
    vocabulary = {**letters, "vi": 256, space + "y": 257, newline + newline: 258}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("v", "i"), (space, "y"), (newline, newline)]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
    made.add_special_tokens(cast(Any, {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}))
    made.chat_template = template
    return made


def corpus_of(folder: Path, texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, length: int, plain: bool = False) -> Corpus:
    folder.mkdir()
    encoded, nothing = ChatEncoder(tokenizer, length + 1, plain).documents(texts), np.zeros(len(texts), dtype=np.int64)
    assert encoded.sizes is not None
    offsets = np.concatenate([nothing[:1], np.cumsum(encoded.counts)])
    split = Split(encoded.values, offsets, nothing - 1, nothing.astype(np.int32), encoded.sizes, encoded.counted)
    end_id, pad_id = tokenizers.special_ids(tokenizer)
    counts, tokens = dict.fromkeys(SPLITS, len(split)), dict.fromkeys(SPLITS, len(split.values))
    info = CorpusInfo("causal-lm", length, len(tokenizer), end_id, pad_id, (), ("all",), None, counts, tokens, completions=True)
    tokenizers.save(tokenizer, folder / "tokenizer")
    write_corpus(folder, info, dict.fromkeys(SPLITS, split))
    return Corpus(folder, "hash")


@pytest.fixture
def chats(tmp_path: Path) -> Corpus:
    """Conversations of one or two answers, of several lengths."""
    talks = [[*TALK[:2], {"role": "assistant", "content": "vi" * (n % 4 + 1)}, *(TALK[3:] if n % 2 else [])] for n in range(12)]
    return corpus_of(tmp_path / "chats", [conversation_text(talk) for talk in talks], chat_tokenizer(), 120)


def decoded(tokenizer: PreTrainedTokenizerFast, ids: Any) -> str:
    return str(tokenizer.decode([int(i) for i in ids]))


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_answers_alone_are_learned(template: str) -> None:
    tokenizer = chat_tokenizer(template)
    (found,) = ChatEncoder(tokenizer, 500).conversations([conversation_text(TALK)])
    assert found.ids.tolist() == tokenizer.apply_chat_template(TALK, return_dict=False)
    ends = "<|im_end|>\n" if template == CHATML else "<|im_end|>"
    assert decoded(tokenizer, found.ids[found.counted > 0]) == f"Drei Ärmel{ends}vier{ends}"
    assert (found.size, found.cut) == (len("Drei Ärmelvier".encode()), 0)


def by_hand(model: nn.Module, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Mean loss on the answers, as a transformers user writes it: prefixes rendered, labels of -100 elsewhere."""
    ids = tokenizer.apply_chat_template(TALK, return_dict=False)
    labels = [-100] * len(ids)
    for turn in (2, 4):
        start = len(tokenizer.apply_chat_template(TALK[:turn], add_generation_prompt=True, return_dict=False))
        end = len(tokenizer.apply_chat_template(TALK[: turn + 1], return_dict=False))
        labels[start:end] = ids[start:end]
    return cast(Any, model)(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss


def test_the_loss_is_that_of_a_loop_written_by_hand(tmp_path: Path, model_for: Callable[..., nn.Module]) -> None:
    tokenizer = chat_tokenizer()
    corpus = corpus_of(tmp_path / "c", [conversation_text(TALK)], tokenizer, 200)
    model = model_for(corpus)
    wanted = by_hand(model, tokenizer)
    expected = torch.autograd.grad(wanted, list(model.parameters()))
    batch = TrainingBatches(corpus, 1, 0).at(0)
    training = Plan(cast(Any, type("T", (), {"accumulation": 1, "clip": 1e9})), None, 0, corpus.info.vocabulary)
    losses, _, _ = gradients(accelerator_for("cpu", "fp32"), StudentInTraining(model, model, None, None), batch, training, [], None)
    assert losses.loss == pytest.approx(float(wanted.detach()), abs=1e-5)
    assert all(torch.allclose(p.grad, e, atol=1e-6) for p, e in zip(model.parameters(), expected, strict=True) if p.grad is not None)
    columns = collect(model, {}, evaluation_batches(corpus, "valid", 9, 4), corpus.info.vocabulary, torch.device("cpu"), "fp32")
    figures = quality(columns, corpus, "valid").metrics
    assert figures["nll"] == pytest.approx(float(wanted.detach()), abs=1e-5)
    ids, size = int(corpus.split("valid").predicted.sum()), len("Drei Ärmelvier".encode())
    assert len(columns.nll) == ids == len(held_out_targets(corpus, "valid")) == training_counts(corpus).sum()
    assert figures["bits_per_byte"] == pytest.approx(figures["nll"] / np.log(2) * ids / size, rel=1e-9)


def test_without_a_template_prompt_and_completion_stand_one_after_another() -> None:
    tokenizer = chat_tokenizer(None)
    (found,) = ChatEncoder(tokenizer, 50).conversations([conversation_text(prompt="a<|im_end|>", completion=" yes")])
    end, _ = tokenizers.special_ids(tokenizer)
    assert found.ids[-1] == end
    assert decoded(tokenizer, found.ids[:-1]) == "a<|im_end|> yes"
    assert not np.isin(found.ids, tokenizer.convert_tokens_to_ids(["<|im_end|>"])).any(), "special strings of a text are spelt out"
    assert decoded(tokenizer, found.ids[found.counted > 0]) == " yes<|end|>"
    assert found.size == 4


def test_prompt_and_completion_take_the_template_unless_it_is_none() -> None:
    text = conversation_text(prompt="2+2", completion="4")
    (found,) = ChatEncoder(chat_tokenizer(), 50).conversations([text])
    assert decoded(chat_tokenizer(), found.ids) == "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
    assert use_template(chat_tokenizer(), PLAIN, messages=False)
    (plain,) = ChatEncoder(chat_tokenizer(), 50, plain=True).conversations([text])
    assert decoded(chat_tokenizer(), plain.ids) == "2+24<|end|>"


@pytest.mark.parametrize("begins", [None, "<|im_start|>", "<|end|>"], ids=["nothing", "an id of its own", "the end id"])
def test_a_prompt_in_use_is_the_prompt_in_training(begins: str | None) -> None:
    tokenizer = chat_tokenizer(None)
    if begins:
        ids = {"special_tokens": [(begins, tokenizer.convert_tokens_to_ids(begins))]}
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=f"{begins} $A", **ids)
    for prompt in ("2+2 is", ""):
        (found,) = ChatEncoder(tokenizer, 50).conversations([conversation_text(prompt=prompt, completion=" 4")])
        first = int(np.flatnonzero(found.counted)[0])
        assert PromptEncoder(tokenizer).ids(prompt) == found.ids[:first].tolist()
        assert not prompt or tokenizer(prompt)["input_ids"] == found.ids[:first].tolist()


@pytest.mark.parametrize("room", [30, 12, 8, 5])
def test_long_prompts_are_cut_on_the_left(room: int) -> None:
    tokenizer = chat_tokenizer(None)
    (whole,) = ChatEncoder(tokenizer, 500).conversations([conversation_text(prompt="0123456789" * 3, completion="abcdefg")])
    (found,) = ChatEncoder(tokenizer, room).conversations([conversation_text(prompt="0123456789" * 3, completion="abcdefg")])
    assert len(whole.ids) == 38
    assert (len(found.ids), found.cut) == (room, 38 - room)
    first = min(38 - room, 29)  # an id of the prompt, or of the beginning, is left to begin from
    assert found.ids.tolist() == whole.ids[first : first + room].tolist()
    assert found.counted.tolist() == whole.counted[first : first + room].tolist()
    assert found.counted[0] == 0
    assert found.size == min(7, room - 1)


def test_of_several_answers_the_last_is_kept() -> None:
    tokenizer = chat_tokenizer()
    (found,) = ChatEncoder(tokenizer, 12).conversations([conversation_text(TALK)])
    assert decoded(tokenizer, found.ids[found.counted > 0]) == "vier<|im_end|>\n"
    assert found.size == 4


def test_a_merge_over_the_edge_of_an_answer_belongs_to_it() -> None:
    opening = "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
    template = "{% for m in messages %}{{ m['role'] + ':\n' + m['content'] }}{% endfor %}" + opening
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\nb"}]
    tokenizer = chat_tokenizer(template)
    (found,) = ChatEncoder(tokenizer, 99).conversations([conversation_text(talk)])
    assert decoded(tokenizer, found.ids[found.counted > 0]) == "\n\nb", "the id of both line breaks is learned"


@pytest.mark.parametrize(
    ("template", "talk", "says"),
    [
        (None, TALK, r"tokenizer\.chat_template: got None.*messages need"),
        ("{{ raise_exception('roles must alternate') }}", TALK, r"roles must alternate"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}{{ messages | length }}", TALK, r"turns stay the same when others follow"),
        ("{{ messages[0]['content'] }}", TALK, r"data\.columns.*an answer that the template shows"),
    ],
)
def test_templates_that_do_not_fit_are_refused(template: str | None, talk: list[dict[str, str]], says: str) -> None:
    with pytest.raises(UserError, match=says):
        ChatEncoder(chat_tokenizer(template), 99).conversations([conversation_text(talk)])


def test_a_bytes_tokenizer_takes_a_given_template() -> None:
    tokenizer = tokenizers.bytes_tokenizer()
    assert not use_template(tokenizer, "{% for m in messages %}{{ m.role }}> {{ m.content }}{{ eos_token }}{% endfor %}"
                            "{% if add_generation_prompt %}assistant> {% endif %}", messages=True)  # fmt: skip
    (found,) = ChatEncoder(tokenizer, 999).conversations([conversation_text(TALK)])
    assert found.ids[found.counted > 0].tolist() == [*"Drei Ärmel".encode(), 256, *b"vier", 256]
    with pytest.raises(UserError, match=r"chat_template: got None"):
        use_template(tokenizers.bytes_tokenizer(), None, messages=True)


def test_a_trained_tokenizer_reads_what_is_said() -> None:
    assert spoken(conversation_text(TALK[1:3])) == "Größe von x?\nDrei Ärmel"
    assert spoken(conversation_text(prompt="a", completion="b")) == "a\nb"
    assert json.loads(conversation_text(TALK)) == {"messages": TALK}


def test_examples_are_documents_whatever_stands_beside_them(chats: Corpus) -> None:
    batches = TrainingBatches(chats, 5, 0)
    assert batches.examples == 12
    split, assembled = chats.split("train"), dict[int, bytes]()
    assert split.counted is not None
    for step in range(5):
        batch = batches.at(step)
        for row, (number, key) in enumerate(zip(batches.numbers(step), keys_of(batch), strict=True)):
            begin, end = split.offsets[number], split.offsets[number + 1]
            ids, counted = split.values[begin:end], split.counted[begin:end]
            assert batch.inputs["input_ids"][row, : len(ids) - 1].tolist() == ids[:-1].tolist()
            targets = batch.targets[row].numpy()
            assert targets[: len(ids) - 1][counted[1:] > 0].tolist() == ids[1:][counted[1:] > 0].tolist()
            assert (targets != IGNORE).sum() == counted.sum()
            assert assembled.setdefault(int(number), key) == key, "the key of an example does not hang on the batch"
    assert evaluation_documents(chats, "test", 7).tolist() == evaluation_documents(chats, "valid", 7).tolist()


@pytest.mark.parametrize("kind", ["full", "top-k"])
def test_stored_answers_are_of_completions_alone_and_teach_as_live_ones(
    chats: Corpus, model_for: Callable[..., nn.Module], tmp_path: Path, kind: str
) -> None:
    vocabulary = cast(int, chats.info.vocabulary)
    teacher, student = model_for(chats, seed=1, hidden=32), model_for(chats)
    identity = {"kind": "signals", "format": FORMAT, "signal": kind, "size": vocabulary, "vocabulary": vocabulary, "seed": 0}
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "manifest.json").write_text("{}")
    cache = SignalCache.open(tmp_path / "cache", "f" * 64, identity, pytest.fail)
    batches = TrainingBatches(chats, 4, 0)
    fill_cache(cache, batches, 3, lambda batch: rows(teacher, batch, vocabulary).detach(), "test")
    assert cache.rows == chats.split("train").predicted[:4].sum(), "four different conversations"
    other = TrainingBatches(chats, 6, 3).at(0)  # in other company, padded otherwise
    at, found = StepObjective(Objective(), 0.9, 1.0), []
    for source in (live(teacher, vocabulary), cache.source):
        leaf = rows(student, other, vocabulary).detach().requires_grad_()
        found.append(torch.autograd.grad(distillation_loss(leaf, [source(other)], other.targets.flatten(), at).total, leaf)[0])
    assert other.valid < other.targets.numel()
    # Half precision, or one of 80 steps of sqrt(p), half a step off at most: an error of p below 0.0125.
    assert torch.allclose(*found, atol=1e-3 if kind == "full" else 0.0125)
    assert cache.distance(other, lambda batch: rows(teacher, batch, vocabulary).detach()) < 1e-6


def test_samples_begin_before_the_first_answer(chats: Corpus) -> None:
    found = prompts(chats, "valid", 3)
    assert found == ["<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nGröße von x?<|im_end|>\n<|im_start|>assistant\n"]


def test_a_step_is_a_mean_over_the_ids_of_answers(chats: Corpus, model_for: Callable[..., nn.Module], training: Callable[..., Any]) -> None:
    from models.training.loop import train

    losses = []
    for accumulation in (1, 2):
        steps = list[Step]()
        plan = Plan(training(accumulation=accumulation, steps=2), None, 0, chats.info.vocabulary)
        trained = train(model_for(chats), TrainingBatches(chats, 8, 0), plan, on_step=steps.append)
        losses.append([step.loss for step in steps])
        assert trained.tokens == sum(TrainingBatches(chats, 8, 0).at(step).valid for step in range(2))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert interface_for(chats).output_ids == chats.info.vocabulary
