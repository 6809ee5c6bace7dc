"""Prompts as ids: of texts, and of conversations by a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from conf.errors import UserError, reason_of
from models.data import tokenizers
from models.engines.base import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptEncoder:
    """Encodes prompts as in training.

    A text gets the ids that begin one, and special strings in it are text; a conversation becomes text by its template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._before = tokenizers.surroundings(tokenizer)[0]
        self._begin = self._before or [tokenizers.special_ids(tokenizer)[0]]

    @property
    def chat(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return self._tokenizer.chat_template is not None

    def ids(self, prompt: str | Sequence[Message]) -> list[int]:
        """As `LanguageModel.ids`."""
        if isinstance(prompt, str):
            (found,) = tokenizers.encode(self._tokenizer, [prompt])
            return [*self._before, *found.tolist()] or list(self._begin)
        if not self.chat:
            remedy = "Its tokenizer has no chat template: send a `prompt` to /v1/completions."
            raise UserError.about("messages", "a conversation", "a model with a chat template", remedy)
        return self._templated(prompt)

    def _templated(self, messages: Sequence[Message]) -> list[int]:
        try:
            text = self._tokenizer.apply_chat_template(cast(Any, list(messages)), tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program, and raises what it likes
            raise UserError.about(
                "messages",
                [message.get("role") for message in messages],
                "what the model's chat template takes",
                f"It says: {reason_of(error)}.",
            ) from error
        return cast(list[int], self._tokenizer(str(text), add_special_tokens=False)["input_ids"])
