"""The tokenizer of a corpus, and the encoder of its texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from conf.atomic import write_atomic
from conf.errors import UserError
from conf.schema.ladder import Ladder
from models.data import tokenizers
from models.data.chat import spoken
from models.data.encoder import Encoder
from tasks.data.encode import training_texts
from tasks.data.reading.conversations import columns_of
from tasks.data.splits import TRAIN, Parts
from tasks.data.spool import Spool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def text_encoder(tokenizer: PreTrainedTokenizerBase, ladder: Ladder) -> Encoder:
    """The encoder of texts, with the ids before and after each and the room between.

    Raises:
        UserError: Beside the special ids no room is left for text.
    """
    encoder = tokenizers.encoder_of(tokenizer)
    if ladder.workload == "causal-lm":
        before, after = tokenizers.frame(tokenizer)
        return replace(encoder, before=tuple(before), after=tuple(after))
    before, after = tokenizers.surroundings(tokenizer)
    length = ladder.data.sequence_length
    room = length - len(before) - len(after)
    if room < 1:
        remedy = "No room is left for text beside the special tokens: lengthen it."
        raise UserError.about("data.sequence_length", length, f"at least {len(before) + len(after) + 1}", remedy)
    filler = None if before or after else tokenizers.special_ids(tokenizer)[0]  # a model cannot be given nothing
    return replace(encoder, before=tuple(before), after=tuple(after), room=room, filler=filler)


def corpus_tokenizer(
    ladder: Ladder, spool: Spool, parts: Parts, teacher_folder: Path | None, folder: Path, progress: Callable[[str], None]
) -> PreTrainedTokenizerBase:
    """The tokenizer; one that is trained is kept in `folder` until the corpus is finished."""
    if ladder.tokenizer.is_given:
        assert teacher_folder is not None, "the teacher's folder is known before the data are prepared"
        return tokenizers.load_teacher(teacher_folder)
    if ladder.tokenizer.kind == "bytes":
        made = tokenizers.bytes_tokenizer()
    elif (folder / "whole").is_file():
        return tokenizers.load(folder)
    else:
        assert ladder.tokenizer.vocabulary is not None, "the schema asks for it"
        progress(f"training a BPE of {ladder.tokenizer.vocabulary:,} ids on {int((parts == TRAIN).sum()):,} documents")
        texts = training_texts(spool, parts)
        made = tokenizers.train_bpe(map(spoken, texts) if columns_of(ladder.data).conversations else texts, ladder.tokenizer.vocabulary)
    if ladder.workload != "causal-lm":
        tokenizers.append_end(made)
    if ladder.tokenizer.kind == "bpe":
        tokenizers.save(made, folder)
        write_atomic(folder / "whole", "")
    return made
