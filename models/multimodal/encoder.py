"""Prompts with a picture and their answers, as ids with those to be predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from conf.errors import UserError
from models.data.chat import ASSISTANT, ChatEncoder, EncodedConversation, Span
from models.multimodal.processors import NO_PICTURE, Placeholder


class RowTooLong(UserError):
    """A picture, its prompt and its answer have more ids than a sequence."""


@dataclass(frozen=True)
class PictureEncoder(ChatEncoder):
    """Encodes the place of a picture, a prompt and its answer, which alone is learned.

    Attributes:
        placeholder: The text that stands for a picture.
    """

    placeholder: Placeholder = NO_PICTURE

    def _document(self, content: dict[str, Any]) -> EncodedConversation:
        token = self.placeholder.token
        if token in content["prompt"] + content["completion"]:
            remedy = f"Leave out {token}, which stands for the picture itself."
            raise UserError.about("data.columns.prompt", content["prompt"][:80], f"prompts and answers without {token}", remedy)
        if self.plain or self.tokenizer.chat_template is None:
            return self._concatenated(content["prompt"], content["completion"])
        asked = [{"type": "image"}, {"type": "text", "text": content["prompt"]}]
        answer = [{"type": "text", "text": content["completion"]}]
        text, spans = self._rendered([{"role": "user", "content": asked}, {"role": ASSISTANT, "content": answer}])
        ids, places = self._tokenised(text, special=True)
        if ids.count(self.placeholder.id) != self.placeholder.count:
            allowed = f"a template that writes {token} once for a picture, content of type image"
            raise UserError.about("tokenizer.chat_template", self._template[:80], allowed, "Save the processor with its own template.")
        return self._cut(ids, places, text, spans)

    def _beginning(self) -> list[int]:
        return [*super()._beginning(), *self._tokenised(self.placeholder.text, special=True)[0]]

    def _apply(self, messages: list[dict[str, Any]], opened: bool = False) -> str:
        return super()._apply(messages, opened).replace(self.placeholder.token, self.placeholder.text)

    def _marked(self, messages: list[dict[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
        text, marks = super()._marked(messages)
        token, whole = self.placeholder.token, self.placeholder.text
        at, longer = text.find(token), len(whole) - len(token)
        return text.replace(token, whole), [(a + longer, b + longer) if a > at else (a, b) for a, b in marks]

    def _cut(self, ids: list[int], places: list[tuple[int, int]], text: str, spans: Sequence[Span]) -> EncodedConversation:
        if len(ids) > self.length:
            allowed = f"at least {len(ids) - 1}, the ids of a picture ({self.placeholder.count}), its prompt and its answer"
            remedy = "Raise it, or leave such rows out by data.missing=drop."
            raise RowTooLong.about("data.sequence_length", self.length - 1, allowed, remedy)
        return super()._cut(ids, places, text, spans)
