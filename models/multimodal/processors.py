"""Processors of vision-language models: a tokenizer and an image processor.

A processor puts ids in the place of a picture, as many as the model has features of it, and says where: `Placeholder`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.errors import UserError, foreign_errors

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = ("processor_config.json", "preprocessor_config.json")
MARKS = ("mm_token_type_ids", "token_type_ids")
ALLOWED = "a folder with the processor of a model that reads pictures and text"


@dataclass(frozen=True)
class Placeholder:
    """The text that stands for a picture.

    Attributes:
        token: As a prompt or a chat template writes it.
        text: As the processor writes it out for a picture of the data.
        id: The id in whose places the model puts the features of the picture.
        count: How many of them `text` has.
        marks: Name of the input that marks them, if the processor gives one.
    """

    token: str
    text: str
    id: int
    count: int
    marks: str | None = None


NO_PICTURE = Placeholder("", "", 0, 0)


def load(folder: Path, writes: bool = True) -> Any:
    """The processor in a model's folder.

    Args:
        folder: Of the model.
        writes: Whether it has to write pictures into prompts; else it reads pictures beside texts.

    Raises:
        UserError: It has none, one without pictures, or one that cannot be read without torchvision.
    """
    from transformers import AutoProcessor

    if not any((folder / name).is_file() for name in FILES):
        remedy = f"It has neither {' nor '.join(FILES)}: save the model's processor there with its save_pretrained."
        raise UserError.about("teacher.path", str(folder), ALLOWED, remedy)
    with foreign_errors("teacher.path", str(folder), ALLOWED, "Install what it needs, or save another processor."):
        found = AutoProcessor.from_pretrained(str(folder), backend="pil", trust_remote_code=False, local_files_only=True)
    parts = ("tokenizer", "image_processor", *(("image_token",) if writes else ()))
    lacks = [part for part in parts if getattr(found, part, None) is None]
    if lacks:
        remedy = f"This {type(found).__name__} has no {lacks[0]}: save the model's own processor there."
        raise UserError.about("teacher.path", str(folder), ALLOWED, remedy)
    return found


def processor_files_hash(folder: Path) -> str:
    """Hash of the files of a processor beside those of its tokenizer."""
    digest = hashlib.sha256()
    for name in FILES:
        content = (folder / name).read_bytes() if (folder / name).is_file() else b""
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def placeholder(processor: Any, picture: Image) -> Placeholder:
    """The text that stands for pictures of this one's size.

    Raises:
        UserError: The processor does not write it out as text that its tokenizer reads back.
    """
    token, tokenizer = processor.image_token, processor.tokenizer
    remedy = "Save the processor that the model was trained with."
    with foreign_errors("teacher.path", type(processor).__name__, "a processor that takes one picture with a text", remedy):
        whole = processor(text=[token], images=[picture], add_special_tokens=False)
        ids = whole["input_ids"][0]
        text = str(tokenizer.decode(ids, skip_special_tokens=False))
        again = tokenizer(text, add_special_tokens=False)["input_ids"]
        number = tokenizer.convert_tokens_to_ids(token)
    count = list(ids).count(number)
    if list(again) != list(ids) or not count:
        allowed = f"a processor that writes a picture as text with {token}"
        raise UserError.about("teacher.path", type(processor).__name__, allowed, remedy)
    places = [int(index == number) for index in ids]
    marks = next((name for name in MARKS if name in whole and list(whole[name][0]) == places), None)
    return Placeholder(token, text, number, count, marks)
