"""Tokenizers: bytes, a BPE trained on the data, or the teacher's own.

All of them are Hugging Face tokenizers, so a published student carries one that plain transformers loads. A document is only ever
text: a special string that occurs in it, such as `<|end|>`, is spelt out and never becomes the special id.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError, foreign_errors
from models.base.files import read_json
from models.data.encoder import Encoder, plain_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

END = "<|end|>"
PAD = "<|pad|>"
BYTES_VOCABULARY = 258  # 256 bytes, END, PAD

TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.spm",
    "*.tiktoken",
    "spiece.model",
    "sentencepiece*.model",
    "tekken.json",
)


READABLE = "a folder with a Hugging Face tokenizer"
OTHERWISE = "Save the tokenizer beside the weights, or set tokenizer.kind to bytes or bpe."
UNUSUAL = "a \u00e9 \u4e16 \U0001f9ea"  # letters that a small vocabulary lacks


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer whose ids 0..255 are the bytes of UTF-8; 256 is the end of a text (also its beginning), 257 the padding."""
    return _wrap(_byte_level(byte_letters(), use_regex=False))


def train_bpe(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; the same texts in the same order give the same tokenizer.

    Args:
        texts: Training documents.
        vocabulary: Ids wanted, the 256 bytes and two specials included. Few texts may hold fewer pairs to merge, and give fewer ids.

    Returns:
        A tokenizer with END = 0 and PAD = 1.
    """
    from tokenizers import trainers

    backend = _byte_level({}, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(byte_letters()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _wrap(backend)


def append_end(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Make `tokenizer(text)` end each text with the end id, as classifiers are taught, and return it.

    Written into the tokenizer itself, so that who uses a published classifier need not know. For tokenizers made here.
    """
    from tokenizers import processors

    template = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, special_ids(tokenizer)[0])])
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


def special_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids that end and that pad a document: eos or else sep; pad or else the end id.

    Raises:
        UserError: The tokenizer has neither eos nor sep.
    """
    end_id = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if end_id is None:
        raise UserError.about(
            "teacher.path",
            str(tokenizer.name_or_path),
            "a tokenizer with an end-of-sequence or separator token",
            "Set eos_token in its tokenizer_config.json.",
        )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_id
    return cast(int, end_id), cast(int, pad_id)  # the library also allows lists of ids, for generation; no tokenizer has them


def id_count(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the rows that an embedding needs: the largest id and one. With a hole in its ids, a tokenizer has fewer tokens than that."""
    return max(len(tokenizer), max(tokenizer.get_vocab().values(), default=-1) + 1)


def id_dtype(vocabulary: int) -> type[np.uint16] | type[np.uint32]:
    """Return the narrowest type that a corpus may store ids of this vocabulary in."""
    return np.uint16 if vocabulary < 65536 else np.uint32


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[NDArray[Any]]:
    """Turn texts into ids, adding no special id.

    Args:
        tokenizer: Any tokenizer; that of `bytes_tokenizer` takes a short cut of the same result.
        texts: Documents; special strings within them are plain text.

    Returns:
        One array of ids for each text, of `id_dtype` of the vocabulary.
    """
    encoder = encoder_of(tokenizer)
    return [ids.astype(encoder.dtype) for ids in encoder.ids(texts)]


def encoder_of(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    """The encoder that gives the tokenizer's ids, without any before or after; that of `bytes_tokenizer` takes a short cut."""
    dtype = id_dtype(id_count(tokenizer)).__name__
    if _is_bytes(tokenizer):
        return Encoder(dtype)
    forbidden = {index: str(tokenizer.convert_ids_to_tokens(index)) for index in _forbidden_ids(tokenizer)}
    backend = getattr(tokenizer, "backend_tokenizer", None) if tokenizer.is_fast else None
    return Encoder(dtype, tokenizer if backend is None else backend.to_str(), forbidden)


def surroundings(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that `tokenizer(text)` puts before and after those of a single text, such as [CLS] and [SEP]."""
    probe = "a"
    (plain,) = plain_ids(tokenizer, [probe])
    (whole,) = plain_ids(tokenizer, [probe], add_special_tokens=True)
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    return [], []


def frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that begin and that end a document of a language model.

    It begins as `tokenizer(text)` begins, with a beginning-of-text id or none; it ends with the end id, so that models learn where to stop.
    Where the tokenizer begins with the end id itself, that of the document before does.
    """
    end = special_ids(tokenizer)[0]
    before, _ = surroundings(tokenizer)
    return [] if before == [end] else before, [end]


def encode_examples(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int) -> list[NDArray[Any]]:
    """Turn texts into a classifier's examples: with the special ids of `tokenizer(text)`, cut to `length` ids in all."""
    before, after = surroundings(tokenizer)
    room, dtype = length - len(before) - len(after), id_dtype(id_count(tokenizer))
    framed = [np.array([*before, *ids[:room], *after], dtype=dtype) for ids in encode(tokenizer, texts)]
    end = np.array([special_ids(tokenizer)[0]], dtype=dtype)
    return [ids if len(ids) else end for ids in framed]  # a model cannot be given nothing


def save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer folder that `AutoTokenizer` reads."""
    tokenizer.save_pretrained(str(folder))


def load(folder: Path) -> PreTrainedTokenizerBase:
    """Read a tokenizer folder; nothing is fetched and no code in it is run.

    Raises:
        UserError: transformers cannot read it.
    """
    from transformers import AutoTokenizer

    files = " and ".join(path.name for path in sorted(folder.glob("tokenizer*.json"))) or "no tokenizer.json"
    with foreign_errors("teacher.path", f"{folder} with {files}", READABLE, OTHERWISE):
        if (folder / "tokenizer.json").is_file():
            read_json(folder / "tokenizer.json")  # else transformers looks for another, and says less
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def load_teacher(folder: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer in a teacher's folder.

    Raises:
        UserError: The folder holds no tokenizer, an unreadable one, or one without an end id.
    """
    tokenizer = load(folder)
    # A known kind of model without files yields a tokenizer of special tokens alone.
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise UserError.about("teacher.path", str(folder), READABLE, OTHERWISE)
    special_ids(tokenizer)
    _check_distinct(tokenizer, folder)
    remedy = "Save the tokenizer that the model was trained with."
    with foreign_errors("teacher.path", str(folder), "a tokenizer that has ids for every text", remedy, "tokenizers"):
        plain_ids(tokenizer, [UNUSUAL])
    return tokenizer


def _check_distinct(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuse a tokenizer that gives one id to several words and loses one of them when it is saved: students would have another.

    Raises:
        UserError: Naming the id and two of its words.
    """
    words: dict[int, str] = {}
    vocabulary = tokenizer.get_vocab()
    twice = next(((number, word) for word, number in vocabulary.items() if words.setdefault(number, word) != word), None)
    if twice is None:
        return
    with tempfile.TemporaryDirectory() as saved:
        save(tokenizer, Path(saved))
        if load(Path(saved)).get_vocab() == vocabulary:
            return
    number, word = twice
    found = f"{folder}, whose tokenizer gives the id {number} to {words[number]!r} and to {word!r}"
    raise UserError.about("teacher.path", found, "an id for each word", "Save the tokenizer that the model was trained with.")


def tokenizer_hash(folder: Path) -> str:
    """Hash the files of the tokenizer in `folder`, whatever else lies there: the tokenizer's identity."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def byte_letters() -> dict[str, int]:
    """Byte-level BPE's letter for each byte (GPT-2's): printable ones stand for themselves, the others for U+0100 and on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte) if byte in printable else chr(256 + others.index(byte)): byte for byte in range(256)}


def _byte_level(vocabulary: dict[str, int], use_regex: bool) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    backend.decoder = decoders.ByteLevel()
    return backend


def _wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=END, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )


@cache
def _bytes_backend() -> dict[str, Any]:
    return json.loads(bytes_tokenizer().backend_tokenizer.to_str())


def _is_bytes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it works as `bytes_tokenizer`, by its own settings: it may have been loaded from a folder."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or len(tokenizer) != BYTES_VOCABULARY:
        return False
    settings = json.loads(backend.to_str())
    return all(settings[key] == _bytes_backend()[key] for key in ("added_tokens", "normalizer", "pre_tokenizer", "model"))


def _forbidden_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Special ids that no text may turn into; the unknown id is not among them: unknown letters rightly become it."""
    added: dict[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    special = {*tokenizer.all_special_ids, *(index for index, token in added.items() if token.special)}
    unknown = tokenizer.unk_token_id
    return special if unknown == special_ids(tokenizer)[0] else {index for index in special if index != unknown}
