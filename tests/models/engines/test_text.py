import pytest

from models.data.tokenizers import bytes_tokenizer
from models.engines.text import GrowingText


def grow(text: bytes, stop: tuple[str, ...] = ()) -> tuple[list[str], GrowingText]:
    growing = GrowingText(bytes_tokenizer(), stop)
    return [growing.add(byte) for byte in text], growing


@pytest.mark.parametrize("text", ["plain", "h\u00e9\u4e16\U0001f9ea end", " a  b\n"])
def test_a_letter_of_several_bytes_is_told_whole(text: str) -> None:
    parts, growing = grow(text.encode())
    assert "".join(parts) + growing.end() == text
    assert all("\ufffd" not in part for part in parts)


def test_bytes_that_are_no_letter_are_told_at_the_latest_with_the_fourth() -> None:
    parts, growing = grow(b"a\xff\xff\xff\xff\xffb")
    assert "".join(parts).startswith("a\ufffd")
    assert ("".join(parts) + growing.end()).endswith("b")


def test_a_stop_text_is_found_across_tokens_and_never_told() -> None:
    parts, growing = grow(b"one STOP two", ("STOP",))
    assert "".join(parts) + growing.end() == "one "
    assert growing.stopped


def test_the_beginning_of_a_stop_text_is_told_once_it_cannot_become_one() -> None:
    parts, growing = grow(b"a ST b S", ("STOP",))
    assert "".join(parts) == "a ST b "
    assert growing.end() == "S"
    assert not growing.stopped


def test_of_two_stop_texts_the_first_in_the_text_counts() -> None:
    parts, growing = grow(b"ab cd ef", ("ef", "cd"))
    assert "".join(parts) + growing.end() == "ab "
