"""Continue the beginnings of held-out documents with a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from models.architectures.configs import positions_of
from models.data import tokenizers
from models.data.corpus import Corpus, Split, SplitName

PROMPT_TOKENS = 32
HEAD_TOKENS = 8  # in which two beginnings differ, where the documents allow it
TEMPERATURE = 0.8
TOP_P = 0.95


class Sample(NamedTuple):
    """A prompt, and the text that the model continued it with."""

    prompt: str
    text: str


def prompts(corpus: Corpus, split: SplitName, count: int) -> list[str]:
    """The first tokens of `count` held-out documents, drawn once for all models, as text; no beginning twice.

    Documents that share their first tokens, such as a licence, come last, and of equal beginnings only the first is taken.
    """
    folder = corpus.tokenizer_folder
    assert folder is not None
    tokenizer, documents = tokenizers.load(folder), corpus.split(split)
    if documents.counted is not None:
        return [cast(str, tokenizer.decode(list(ids))) for ids in _before_answers(documents, count)]
    prefix = len(corpus.info.prefix)
    long_enough = np.flatnonzero(np.diff(documents.offsets) - prefix > PROMPT_TOKENS)
    fresh: dict[tuple[int, ...], None] = {}  # beginnings whose first tokens no earlier one has
    shared: dict[tuple[int, ...], None] = {}
    heads: set[tuple[int, ...]] = set()
    for index in np.random.default_rng(0).permutation(long_enough):
        if len(fresh) == count:
            break
        ids = tuple(documents.values[int(documents.offsets[index]) + prefix :][:PROMPT_TOKENS].tolist())
        (shared if ids[:HEAD_TOKENS] in heads else fresh)[ids] = None
        heads.add(ids[:HEAD_TOKENS])
    return [cast(str, tokenizer.decode(list(ids))) for ids in [*fresh, *(ids for ids in shared if ids not in fresh)][:count]]


def _before_answers(documents: Split, count: int) -> list[tuple[int, ...]]:
    """The ids before the first answer of `count` conversations, no beginning twice."""
    assert documents.counted is not None
    found: dict[tuple[int, ...], None] = {}
    for index in np.random.default_rng(0).permutation(len(documents)):
        begin, end = documents.offsets[index], documents.offsets[index + 1]
        first = int(np.flatnonzero(documents.counted[begin:end])[0])
        found[tuple(documents.values[begin : begin + first].tolist())] = None
        if len(found) == count:
            break
    return list(found)


def continuations(
    model: nn.Module, folder: Path, beginnings: list[str], new_tokens: int, seed: int = 0, begun: bool = False
) -> list[Sample]:
    """Sample a continuation of each beginning (temperature 0.8, nucleus 0.95: Holtzman et al. 2020, arXiv:1904.09751).

    A beginning that fills the model's positions has none, and is left out.

    Args:
        model: A causal LM on any device.
        folder: Of its tokenizer: its own, as ids differ between vocabularies.
        beginnings: Texts.
        new_tokens: Most tokens to write; the end of a text ends it.
        seed: Of the sampling; the same for every model.
        begun: Texts hold the ids that begin them, as conversations do.
    """
    tokenizer, written = tokenizers.load(folder), list[Sample]()
    end_id, pad_id = tokenizers.special_ids(tokenizer)
    prefix = [] if begun else tokenizers.frame(tokenizer)[0]
    device, most = next(model.parameters()).device, positions_of(model)
    for beginning in beginnings:
        ids = torch.tensor([[*prefix, *cast(list[int], tokenizer(beginning, add_special_tokens=False)["input_ids"])]], device=device)
        room = new_tokens if most is None else min(new_tokens, most - ids.shape[1])
        if room < 1:
            continue
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            output = cast(Any, model).generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                do_sample=True,
                temperature=TEMPERATURE,
                top_p=TOP_P,
                top_k=0,
                use_cache=True,
                eos_token_id=end_id,
                pad_token_id=pad_id,
            )
        answer = cast(str, tokenizer.decode(output[0, ids.shape[1] :].tolist(), skip_special_tokens=True))
        written.append(Sample(beginning, answer))
    return written
