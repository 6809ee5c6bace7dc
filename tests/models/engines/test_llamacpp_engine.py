"""llama.cpp answers as the torch engine does: the same greedy texts, stops, tops and ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conf.errors import UserError
from models.architectures.checkpoint import load_model, save_model
from models.engines.base import Generation, GenerationSettings, LanguageModel
from models.engines.load import load_engine
from models.export.gguf_file import write_gguf

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

FolderOf = Callable[..., Path]
GREEDY = GenerationSettings(max_tokens=20, temperature=0.0, top=3)


def language(folder: Path, kind: str) -> LanguageModel:
    engine = load_engine(folder, "causal-lm", kind)  # pyright: ignore[reportArgumentType]
    assert isinstance(engine, LanguageModel)
    return engine


@pytest.fixture
def folder(folder_of: FolderOf) -> Path:
    made = folder_of("causal-lm", template="{% for m in messages %}{{ m.content }}{% endfor %}")
    model = load_model(made, "causal-lm")
    with torch.no_grad():
        model.get_input_embeddings().weight[128:] = 0.0  # it writes letters of one byte each, of which none waits for another
    save_model(model, made, None)
    write_gguf(model, made, made / "model.gguf", "f32", "tiny")
    return made


def test_answers_are_those_of_the_torch_engine(folder: Path) -> None:
    ours, theirs = language(folder, "torch"), language(folder, "llamacpp")
    assert (theirs.max_length, theirs.chat, theirs.kind) == (ours.max_length, True, "llamacpp")
    for prompt in ("the", "a b c d", "é世"):
        ids = ours.ids(prompt)
        assert theirs.ids(prompt) == ids
        own, other = list(ours.generate(ids, GREEDY)), list(theirs.generate(ids, GREEDY))
        assert other.pop().finish == own[-1].finish == "length"
        assert "".join(token.text for token in other) == "".join(token.text for token in own)
        assert [token.logprob for token in other] == pytest.approx([token.logprob for token in own], abs=1e-4)
        assert [[pair[1] for pair in token.top] for token in other[:3]] == [
            pytest.approx([pair[1] for pair in token.top], abs=1e-4) for token in own[:3]
        ]
    stop = GenerationSettings(max_tokens=20, temperature=0.0, stop=(own[4].text + own[5].text,))
    ended = list(theirs.generate(ids, stop))
    assert ended[-1].finish == "stop"
    assert "".join(token.text for token in ended) == "".join(token.text for token in ours.generate(ids, stop))
    ours.close()
    theirs.close()


def test_a_seed_repeats_a_draw_and_a_cancelled_answer_says_so(folder: Path) -> None:
    model = language(folder, "llamacpp")
    ids, drawn = model.ids("the"), GenerationSettings(max_tokens=12, temperature=1.0, top_p=0.9, seed=3)
    texts = ["".join(token.text for token in model.generate(ids, drawn)) for _ in range(2)]
    assert texts[0] == texts[1]
    generation = Generation()
    tokens = model.generate(ids, GenerationSettings(max_tokens=1000, temperature=0.0), generation)
    next(tokens)
    generation.cancel()
    assert list(tokens)[-1].finish == "cancelled"
    model.warm()
    model.close()


def test_a_prompt_that_does_not_fit_and_another_workload_are_refused(folder: Path) -> None:
    model = load_engine(folder, "causal-lm", "llamacpp", max_length=32)
    assert isinstance(model, LanguageModel)
    with pytest.raises(Exception, match=r"llama\.cpp: request \(600 tokens\) exceeds"):
        list(model.generate([97] * 600, GREEDY))
    model.close()
    with pytest.raises(UserError, match="torch or onnx, for image-classification"):
        load_engine(folder, "image-classification", "llamacpp")
