"""Tokenizers of three kinds, for the tests of alignment."""

from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from models.alignment.byte_tokens import ByteTokens
from models.data import tokenizers

TEXTS = ["the cat sat on the mat, then they left. ", "naïve Zoë painted the moon 🌙 and the 猫 "] * 4


@cache
def bytes_alone() -> Any:
    return tokenizers.bytes_tokenizer()


@cache
def merges(ids: int = 300) -> Any:
    return tokenizers.train_bpe(TEXTS[: 2 if ids > 300 else 8], ids)


@cache
def sentence_pieces() -> Any:
    """Merges with byte fallback, a sign for the blank and one put before every text, as Llama 2 has them; one more special string."""
    words = ["<unk>", "<s>", "</s>", "<|user|>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁thecamon.", "th", "▁th", "▁the", "at"]
    joined = [("t", "h"), ("▁", "th"), ("▁th", "e"), ("a", "t")]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=joined, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", additional_special_tokens=["<|user|>"]
    )


@cache
def without_moons() -> Any:
    """Merges that lack the first byte of letters such as the moon, and one that no text here has."""
    letters = sorted(letter for letter, byte in tokenizers.byte_letters().items() if byte not in (0x04, 0xF0))
    words = {word: index for index, word in enumerate(["<|end|>", *letters, "th", "the"])}
    backend = Tokenizer(models.BPE(vocab=words, merges=[("t", "h"), ("th", "e")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


KINDS = {"bytes": bytes_alone, "merges": merges, "more merges": lambda: merges(420), "sentence pieces": sentence_pieces}


@cache
def of(kind: str) -> ByteTokens:
    return ByteTokens(KINDS[kind]())
