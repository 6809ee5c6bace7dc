from pathlib import Path

import pytest

from models.data import tokenizers
from models.data.token_classes import CLASSES, class_of, token_classes


@pytest.mark.parametrize(
    ("text", "code", "wanted"),
    [
        (" def", True, "keyword"),
        (" def", False, "word"),
        ("self", True, "word"),
        ("_x1", True, "word"),
        ("été", False, "word"),
        ("42", True, "number"),
        (" 3.5", False, "number"),
        ("\n    ", True, "whitespace"),
        (" ", False, "whitespace"),
        ("):", True, "punctuation"),
        ("�", False, "other"),
        ("\x07", False, "other"),
        ("", False, "other"),
    ],
)
def test_a_token(text: str, code: bool, wanted: str) -> None:
    assert class_of(text, code) == wanted


def test_every_id_of_a_tokenizer(tmp_path: Path) -> None:
    tokenizer = tokenizers.bytes_tokenizer()
    tokenizers.save(tokenizer, tmp_path / "t")
    ids = range(len(tokenizer))
    names = [CLASSES[index] for index in token_classes(tmp_path / "t", ids, code=True)]
    assert [names[ord(letter)] for letter in "a7 (\n_"] == ["word", "number", "whitespace", "punctuation", "whitespace", "word"]
    assert names[200] == "other"  # a byte that is no character of its own
    assert {names[index] for index in tokenizers.special_ids(tokenizer)} == {"special"}
