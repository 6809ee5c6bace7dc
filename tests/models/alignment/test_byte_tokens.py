"""Ids and bytes of a tokenizer, exact in both directions."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from models.alignment.byte_tokens import GAP, ByteTokens, NoBytes
from models.data import tokenizers
from tests.models.alignment.tokens import KINDS, merges, of, sentence_pieces, without_moons

UNICODE = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["e\u0301te\u0301", "▁ ▁the", "<|user|> <|end|> </s>", "\r\n\t"]
)


@pytest.mark.parametrize("kind", KINDS)
@given(text=UNICODE, first=st.integers(0, 3), last=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_ids_give_back_the_bytes_even_of_parts_of_letters(kind: str, text: str, first: int, last: int) -> None:
    data = text.encode()
    part = data[first : len(data) - last]
    tokens = of(kind)
    (ids,) = tokens.encode([part])
    assert b"".join(tokens.bytes_of[index] for index in ids) == part
    assert not set(ids) & set(tokens.spelt)  # special strings in a text are text


def test_a_text_has_the_ids_that_its_tokenizer_gives_it() -> None:
    text = "the cat sat, then naïve they 🌙"
    assert of("merges").encode([text.encode()])[0] == tokenizers.encode(merges(), [text])[0].tolist()
    own = tokenizers.encode(sentence_pieces(), [text])[0].tolist()
    assert own[0] == sentence_pieces().get_vocab()["▁the"]  # the blank that this tokenizer puts before a text is no byte of it
    assert of("sentence pieces").encode([b" " + text.encode()])[0] == own


def test_a_normaliser_does_not_change_bytes() -> None:
    raw = json.loads(merges().backend_tokenizer.to_str()) | {"normalizer": {"type": "NFC"}}
    composed = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(raw)), eos_token="<|end|>", pad_token="<|pad|>")
    text = "cafe\u0301"
    assert tokenizers.encode(composed, [text])[0].tolist() != tokenizers.encode(merges(), [text])[0].tolist()
    tokens = ByteTokens(composed)
    assert b"".join(tokens.bytes_of[index] for index in tokens.encode([text.encode()])[0]) == text.encode()


def test_a_rare_byte_may_lack_an_id() -> None:
    tokens = ByteTokens(without_moons())
    (ids,) = tokens.encode(["the 🌙 then".encode()])
    moon = "🌙".encode()
    assert ids == [*tokens.encode([b"the "])[0], GAP, *(tokens.id_of[bytes([byte])] for byte in moon[1:]), *tokens.encode([b" then"])[0]]


def test_a_tokenizer_without_bytes_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "[END]": 2}, unk_token="[UNK]"))
    with pytest.raises(NoBytes, match="is a WordLevel that is neither byte-level nor has byte fallback"):
        ByteTokens(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[END]"))
    few = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "[END]": 2}, merges=[]))
    few.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(NoBytes, match=r"has no token for 241 of the bytes of UTF-8, the first is 0x00"):
        ByteTokens(PreTrainedTokenizerFast(tokenizer_object=few, eos_token="[END]"))
