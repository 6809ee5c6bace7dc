import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from conf.errors import UserError
from models.data import tokenizers
from models.engines.base import Generation, GenerationSettings, LanguageModel, Token
from models.engines.load import load_engine
from models.engines.torch_engine import TorchImages, TorchLanguageModel, TorchTexts

FolderOf = Callable[..., Path]
GREEDY = GenerationSettings(max_tokens=20, temperature=0.0)
PROMPTS = ["a", "the quick brown fox jumps", "\u4e16 and more", "x" * 30, "of"]


def written(model: LanguageModel, prompt: str, settings: GenerationSettings) -> list[Token]:
    return list(model.generate(model.ids(prompt), settings))


def together(model: LanguageModel, prompts: list[str], settings: GenerationSettings) -> list[str]:
    """Answers that are written at once, each by a reader of its own."""
    texts = [""] * len(prompts)

    def read(index: int) -> None:
        texts[index] = "".join(token.text for token in written(model, prompts[index], settings))

    readers = [threading.Thread(target=read, args=(index,)) for index in range(len(prompts))]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return texts


def plain(folder: Path, prompt: str, tokens: int = 20) -> str:
    """The answer of plain transformers."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**ids, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_answers_that_share_a_batch_are_those_of_plain_transformers(folder_of: FolderOf) -> None:
    folder = folder_of("causal-lm")
    model = load_engine(folder, "causal-lm", batch=3)  # two of five must wait, and join later
    assert isinstance(model, TorchLanguageModel)
    assert model.max_length == 2048
    assert together(model, PROMPTS, GREEDY) == [plain(folder, prompt) for prompt in PROMPTS]
    model.close()


def test_absolute_positions_count_from_the_beginning_of_a_prompt_and_not_of_the_padding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=258, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizers.save(tokenizers.bytes_tokenizer(), tmp_path)
    model = load_engine(tmp_path, "causal-lm")
    assert isinstance(model, TorchLanguageModel)
    assert together(model, PROMPTS, GREEDY) == [plain(tmp_path, prompt) for prompt in PROMPTS]
    model.close()


def test_a_seed_gives_the_same_answer_alone_and_among_others(folder_of: FolderOf) -> None:
    model = load_engine(folder_of("causal-lm"), "causal-lm")
    assert isinstance(model, TorchLanguageModel)
    drawn = GenerationSettings(max_tokens=20, temperature=1.0, top_p=0.9, seed=3)
    alone = together(model, ["the"], drawn)[0]
    assert together(model, ["the", *PROMPTS], drawn)[0] == alone
    assert together(model, ["the"], GenerationSettings(max_tokens=20, seed=4)) != [alone]
    model.close()


def test_log_probabilities_are_those_of_the_model(folder_of: FolderOf) -> None:
    folder = folder_of("causal-lm")
    model = load_engine(folder, "causal-lm")
    assert isinstance(model, TorchLanguageModel)
    prompt = model.ids("abc")
    first = written(model, "abc", GenerationSettings(max_tokens=1, temperature=0.0, top=5))[0]
    with torch.no_grad():
        scores = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    assert [value for _, value in first.top] == pytest.approx(scores.topk(5).values.tolist(), abs=1e-5)
    assert first.logprob == first.top[0][1]
    assert first.finish == "length"
    model.close()


def test_an_answer_ends_at_a_stop_text_and_when_it_is_cancelled(folder_of: FolderOf) -> None:
    model = load_engine(folder_of("causal-lm"), "causal-lm")
    assert isinstance(model, TorchLanguageModel)
    whole = "".join(token.text for token in written(model, "of", GREEDY))
    stop = next(whole[i : i + 2] for i in range(3, len(whole)))
    stopped = written(model, "of", GenerationSettings(max_tokens=20, temperature=0.0, stop=(stop,)))
    assert "".join(token.text for token in stopped) == whole[: whole.index(stop)]
    assert stopped[-1].finish == "stop"
    generation = Generation()
    tokens = model.generate(model.ids("of"), GenerationSettings(max_tokens=10_000), generation)
    next(tokens)
    generation.cancel()
    assert list(tokens)[-1].finish == "cancelled"
    model.close()


def test_an_error_of_the_model_reaches_every_reader_and_the_next_answers_are_whole(folder_of: FolderOf) -> None:
    model = load_engine(folder_of("causal-lm"), "causal-lm")
    assert isinstance(model, TorchLanguageModel)
    with pytest.raises(IndexError):
        list(model.generate([100_000], GREEDY))
    assert written(model, "a", GREEDY)[-1].finish
    model.close()


def test_conversations_need_a_template(folder_of: FolderOf) -> None:
    model = load_engine(folder_of("causal-lm", template="{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"), "causal-lm")
    assert isinstance(model, TorchLanguageModel)
    assert bytes(model.ids([{"role": "user", "content": "hi"}])) == b"user:hi;"
    model.close()
    bare = load_engine(folder_of("causal-lm"), "causal-lm")
    assert isinstance(bare, TorchLanguageModel)
    assert not bare.chat
    with pytest.raises(UserError, match="chat template"):
        bare.ids([{"role": "user", "content": "hi"}])
    bare.close()


def test_a_text_has_the_same_answer_alone_in_a_batch_and_in_plain_transformers(folder_of: FolderOf) -> None:
    folder = folder_of("sequence-classification", length=24)
    engine = load_engine(folder, "sequence-classification")
    assert isinstance(engine, TorchTexts)
    assert engine.lengths(["", "abc", "x" * 100]) == [1, 4, 101]
    rows = ["good day", "", "x" * 100]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    for row, answer in zip(rows, engine.predict(rows), strict=True):
        cut = row[: engine.max_length - 1] if engine.max_length else row
        logits = model(**tokenizer(cut, return_tensors="pt")).logits[0]
        assert answer.probabilities == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)
        assert answer.label == engine.labels[int(logits.argmax())]
        assert answer.probability == max(answer.probabilities)


def test_pictures_of_any_mode_are_answered_and_a_folder_without_processor_is_refused(folder_of: FolderOf) -> None:
    folder = folder_of("image-classification")
    engine = load_engine(folder, "image-classification")
    assert isinstance(engine, TorchImages)
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16)
    first, second = engine.predict([grey, grey.convert("RGB")])
    assert first.probabilities == pytest.approx(second.probabilities)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="preprocessor_config"):
        load_engine(folder, "image-classification")
