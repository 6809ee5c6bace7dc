"""Rows of conversations, and the corpus's arrays that they become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conf.errors import UserError
from conf.schema.data import Data, DatasetData, FilesData
from conf.schema.ladder import Ladder
from conf.schema.tables import Columns
from models.data.chat import ASSISTANT, PLAIN, ChatEncoder, conversation_text, use_template
from models.data.corpus import Split, SplitName
from tasks.records.format import percent

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_FILE = "chat_template.jinja"  # of a tokenizer's folder


def row_conversation(row: Mapping[str, Any], columns: Columns, origin: str) -> str:
    """The text by which the conversation of a row travels.

    Raises:
        UserError: It is no list of messages with an answer, or its prompt or completion is no text.
    """
    if columns.messages is None:
        prompt, completion = (_text(row, columns, role, origin) for role in ("prompt", "completion"))
        if not completion:
            raise UserError.about("data.columns.completion", columns.completion, "a column of text", f"{origin} has none.")
        rationale = _rationale(row, columns, origin)
        explained = None if rationale is None else (columns.explained(prompt), rationale)
        return conversation_text(prompt=prompt, completion=completion, rationale=explained)
    value = row[columns.messages]
    if isinstance(value, str):  # CSV
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _no_messages(columns, f"{origin} holds {value[:40]!r}") from None
    if not isinstance(value, list | tuple | np.ndarray) or not len(value):
        raise _no_messages(columns, f"{origin} holds {value!r:.40}")
    messages = []
    for message in value:
        said = [message.get("role"), _said(message.get("content"))] if isinstance(message, Mapping) else []
        if len(said) != 2 or not all(isinstance(part, str) for part in said):
            raise _no_messages(columns, f"{origin} holds {message!r:.80}")
        messages.append({"role": said[0], "content": said[1]})
    if not any(message["role"] == ASSISTANT and message["content"] for message in messages[1:]):
        raise _no_messages(columns, f"No message of {origin} is an answer, of role {ASSISTANT}")
    return conversation_text(messages)


def _said(content: Any) -> Any:
    """The text of a message's parts, where all of them are text; else the content as it is."""
    if isinstance(content, list | tuple | np.ndarray) and len(content):
        found = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type", "text") == "text"]
        texts = [text for text in found if isinstance(text, str)]
        if len(texts) == len(content):
            return "".join(texts)
    return content


def _text(row: Mapping[str, Any], columns: Columns, role: str, origin: str) -> str:
    name = getattr(columns, role)
    if not isinstance(row[name], str):
        raise UserError.about(f"data.columns.{role}", name, "a column of text", f"{origin} holds {row[name]!r:.40}.")
    return row[name]


def _rationale(row: Mapping[str, Any], columns: Columns, origin: str) -> str | None:
    """The reasoning of a row; None where its cell is empty, or NaN."""
    value = None if columns.rationale is None else row[columns.rationale]
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    return _text(row, columns, "rationale", origin)


def _no_messages(columns: Columns, found: str) -> UserError:
    allowed = "a column of lists of messages, each a {role, content} of text"
    return UserError.about("data.columns.messages", columns.messages, allowed, f"{found}: correct or leave out the row.")


def template_of(ladder: Ladder, base: Path, teacher: Path | None) -> str | None:
    """The chat template that the settings give or that lies in a file beside the teacher's tokenizer; None: that of its configuration.

    Raises:
        UserError: The file cannot be read.
    """
    given = ladder.tokenizer.chat_template
    if given is None:
        beside = None if teacher is None or not ladder.tokenizer.is_given else teacher / TEMPLATE_FILE
        return beside.read_text(encoding="utf-8") if beside is not None and beside.is_file() else None
    if "{" in given or given == PLAIN:
        return given
    try:
        return (base / Path(given).expanduser()).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        allowed = "the text of a chat template, the path of a file with one, or none"
        raise UserError.about("tokenizer.chat_template", given, allowed, f"Correct the path ({error}).") from error


def columns_of(data: Data) -> Columns:
    """The columns of a source; of one without tables the default ones."""
    return data.columns if isinstance(data, FilesData | DatasetData) else Columns()


def chat_encoder(tokenizer: PreTrainedTokenizerBase, ladder: Ladder, base: Path, teacher: Path | None) -> ChatEncoder | None:
    """The encoder of conversations, whose chat template the tokenizer is given; None where the documents are texts.

    Raises:
        UserError: The template cannot be read, or messages have none.
    """
    columns = columns_of(ladder.data)
    if not columns.conversations:
        return None
    plain = use_template(tokenizer, template_of(ladder, base, teacher), columns.messages is not None)
    return ChatEncoder(tokenizer, ladder.data.sequence_length + 1, plain)


def rationale_notes(rationales: Split, cut: int) -> list[str]:
    """Remarks on the training rows with and without a rationale.

    Args:
        rationales: As written, a document for each training document.
        cut: Those that are longer than a window.
    """
    given, rows = int((np.diff(rationales.offsets) > 0).sum()), len(rationales)
    others = "; the others teach their answer alone" if given < rows else ""
    notes = [f"{given:,} of {rows:,} training rows have a rationale, a second task{others}"]
    if cut:
        notes.append(f"{cut:,} of {given:,} rationales are, with their prompt, longer than data.sequence_length and cut")
    return notes


def no_rationales(data: Data) -> UserError:
    """The error about training rows of which none has a rationale."""
    remedy = "Every cell is empty: name another column, or leave it out."
    return UserError.about("data.columns.rationale", columns_of(data).rationale, "a column with some text in training rows", remedy)


def cut_notes(cut: Mapping[str, int], ids: Mapping[str, int], splits: Mapping[SplitName, Split]) -> list[str]:
    """Remarks on conversations that were longer than a window.

    Args:
        cut: Split -> conversations that did not fit.
        ids: Split -> ids of them that are left out.
        splits: As written.
    """
    return [
        f"{name}: {cut[name]:,} of {len(split):,} conversations are longer than data.sequence_length and cut, from the left of the prompt: "
        f"{percent(ids[name] / (ids[name] + len(split.values)))} of all ids"
        for name, split in splits.items()
        if cut.get(name)
    ]
