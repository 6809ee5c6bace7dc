"""Rows of monitoring windows: requests, answers, and labels where known."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.records.base import Record
from tasks.records.run import Moment


class WindowRow(Record):
    """One served request: a line of a window file, which is JSONL (or Parquet with these columns).

    Attributes:
        time: Time of the request, ISO 8601 with its offset from UTC.
        input: The text, the conversation, or the place of an image, as the data of a ladder name it.
        prediction: The class, or the text that was generated; None where it was not kept.
        confidence: Probability of the predicted class, or mean log-probability of the generated tokens (nats per token).
        label: The right answer, where it is known.
        model: The version that answered, as `name/version`.
        request: Id of the request; a row that has been read under this id before is read once.
        slice: Value of the slice column, where the ladder has one.
    """

    time: Moment
    input: Any
    prediction: str | None = None
    confidence: float | None = None
    label: str | int | None = None
    model: str | None = None
    request: str | None = None
    slice: str | None = None
    more: dict[str, Any] = Field(default={})
