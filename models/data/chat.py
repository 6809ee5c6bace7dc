"""Conversations, and prompts with completions, as ids with those to be predicted.

A conversation travels as the JSON text of its messages, or of its prompt and completion. It becomes text by a chat template, as
transformers' `apply_chat_template` makes it, or by plain concatenation; the whole text is tokenised at once. Which ids belong to a
completion is decided by their places in the text, never by their values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from models.data import tokenizers
from models.data.encoder import Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASSISTANT = "assistant"  # the role whose turns are completions
PLAIN = "none"  # in place of a chat template: prompt and completion one after another
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
SHOWN = 80  # characters of a conversation in a message


class EncodedConversation(NamedTuple):
    """One document.

    Attributes:
        ids: (n,) of the text, cut to the window.
        counted: (n,) uint8, 1 for the ids of completions.
        size: UTF-8 bytes of the completions that are left.
        cut: Ids that there was no room for.
    """

    ids: NDArray[Any]
    counted: NDArray[np.uint8]
    size: int
    cut: int


class Span(NamedTuple):
    """A completion within a text: its characters, and the bytes of the assistant's words in it, without the template's marks."""

    start: int
    end: int
    size: int


@dataclass(frozen=True)
class ChatEncoder:
    """Encodes conversations.

    Attributes:
        tokenizer: With a chat template, or without one for plain concatenation.
        length: Most ids of a document: a window's L, and one to predict.
        plain: Prompt and completion are concatenated although the tokenizer has a template.
    """

    tokenizer: PreTrainedTokenizerBase
    length: int
    plain: bool = False

    @property
    def dtype(self) -> str:
        """Of ids."""
        return tokenizers.id_dtype(tokenizers.id_count(self.tokenizer)).__name__

    def documents(self, texts: Sequence[str]) -> Encoded:
        """Encode conversations as documents of a corpus."""
        return _together(self.conversations(texts))

    def rationales(self, texts: Sequence[str]) -> Encoded:
        """Encode the second task of each conversation: the prompt that asks for its reasoning, and this; empty where it has none."""
        found = [json.loads(text).get("rationale") for text in texts]
        nothing = EncodedConversation(np.empty(0, dtype=self.dtype), np.empty(0, dtype=np.uint8), 0, 0)
        return _together([nothing if content is None else self._document(content) for content in found])

    def conversations(self, texts: Sequence[str]) -> list[EncodedConversation]:
        """Encode conversations, one by one.

        Args:
            texts: As `conversation_text` writes them.

        Raises:
            UserError: The template cannot render one, or gives no completion of it.
        """
        return [self._document(json.loads(text)) for text in texts]

    def _document(self, content: dict[str, Any]) -> EncodedConversation:
        messages = content.get("messages")
        if self.plain or self.tokenizer.chat_template is None:
            if messages is not None:
                raise _without_template(self.tokenizer)
            return self._concatenated(content["prompt"], content["completion"])
        if messages is None:
            messages = [{"role": "user", "content": content["prompt"]}, {"role": ASSISTANT, "content": content["completion"]}]
        text, spans = self._rendered(messages)
        ids, places = self._tokenised(text, special=True)
        return self._cut(ids, places, text, spans)

    def _concatenated(self, prompt: str, completion: str) -> EncodedConversation:
        """The ids by which the tokenizer begins a text, if any, prompt, completion, end id; after an empty prompt the end id begins.

        So a prompt in use, as `tokenizer(prompt)` encodes it, is the one in training.
        """
        end = tokenizers.special_ids(self.tokenizer)[0]
        before = self._beginning() or ([] if prompt else [end])
        text = prompt + completion
        ids, places = self._tokenised(text, special=False)
        whole = (len(text), len(text) + 1)  # where the end id stands
        span = Span(len(prompt), len(text) + 1, len(completion.encode()))
        return self._cut([*before, *ids, end], [*[(0, 0)] * len(before), *places, whole], text, [span])

    def _beginning(self) -> list[int]:
        """Ids before a prompt."""
        return tokenizers.surroundings(self.tokenizer)[0]

    def _tokenised(self, text: str, special: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and the characters that each stands for; `special`: special strings are special ids."""
        encoding = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=not special,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        return cast(list[int], encoding["input_ids"]), cast(list[tuple[int, int]], encoding["offset_mapping"])

    def _rendered(self, messages: list[dict[str, Any]]) -> tuple[str, list[Span]]:
        """The text of a conversation, and its completions.

        Where the template marks them with `{% generation %}`, the marks count; else a turn begins where the prompt before it, with
        the template's opening of an answer, ends.
        """
        from jinja2 import TemplateError

        turns = [index for index, message in enumerate(messages) if message["role"] == ASSISTANT]
        try:
            if not GENERATION.search(self._template):
                turns = [turn for turn in turns if turn]  # a greeting that opens the conversation answers nothing
            if GENERATION.search(self._template):
                text, bounds = self._marked(messages)
            else:
                text = self._apply(messages)
                bounds = [(self._apply(messages[:turn], opened=True), self._apply(messages[: turn + 1])) for turn in turns]
                if not all(text.startswith(start) and text.startswith(end) for start, end in bounds):
                    allowed = "a template whose turns stay the same when others follow, or that marks answers with {% generation %}"
                    raise UserError.about("tokenizer.chat_template", _start(self._template), allowed, "Give another in its place.")
                bounds = [(len(start), len(end)) for start, end in bounds]
        except (TemplateError, TypeError, ValueError, IndexError) as error:
            allowed = "a template that renders the conversations"
            remedy = f"It refuses the one that begins {_start(json.dumps(messages, ensure_ascii=False))}: {str(error).rstrip('.')}."
            raise UserError.about("tokenizer.chat_template", _start(self._template), allowed, remedy) from error
        if len(bounds) != len(turns):
            remedy = f"It marks {len(bounds)} answers of {len(turns)} in {_start(json.dumps(messages, ensure_ascii=False))}."
            raise UserError.about("tokenizer.chat_template", _start(self._template), "a template that marks every answer", remedy)
        sizes = [len(_words(messages[index]["content"]).encode()) for index in turns]
        return text, [Span(start, end, size) for (start, end), size in zip(bounds, sizes, strict=True)]

    @property
    def _template(self) -> str:
        return str(self.tokenizer.get_chat_template())

    def _apply(self, messages: list[dict[str, Any]], opened: bool = False) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened))

    def _marked(self, messages: list[dict[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        names: dict[str, Any] = dict(self.tokenizer.special_tokens_map)
        texts, marks = render_jinja_template([messages], chat_template=self._template, return_assistant_tokens_mask=True, **names)
        return texts[0], [(int(start), int(end)) for start, end in marks[0]]

    def _cut(self, ids: list[int], places: list[tuple[int, int]], text: str, spans: Sequence[Span]) -> EncodedConversation:
        """Cut a document to the window, from the left of the prompt on.

        The last completion is kept, with an id before it from which to begin; where it alone is too long, it is cut on the right.
        """
        inside = [any(start < span.end and end > span.start for span in spans) for start, end in places]
        counted = np.array(inside, dtype=np.uint8)
        counted[:1] = 0  # nothing comes before the first id
        begins = np.flatnonzero(np.diff(counted, prepend=0) == 1)
        if not len(begins):
            raise UserError.about("data.columns", _start(text), "conversations with an answer that the template shows", "Correct the row.")
        first = max(min(len(ids) - self.length, int(begins[-1]) - 1), 0)
        kept = slice(first, first + self.length)
        low, high = places[first][0] if first else 0, max(end for _, end in places[kept])
        left = [(max(span.start, low), min(span.end, high), span.size) for span in spans]
        size = sum(min(whole, len(text[start:end].encode())) for start, end, whole in left if end > start)
        counted = counted[kept]
        counted[:1] = 0
        return EncodedConversation(np.array(ids[kept], dtype=self.dtype), counted, size, max(len(ids) - self.length, 0))


def _together(each: Sequence[EncodedConversation]) -> Encoded:
    counts, cut, sizes = (np.array(values, dtype=np.int64) for values in zip(*((len(e.ids), e.cut, e.size) for e in each), strict=True))
    return Encoded(np.concatenate([e.ids for e in each]), counts, cut, np.concatenate([e.counted for e in each]), sizes)


def use_template(tokenizer: PreTrainedTokenizerBase, template: str | None, messages: bool) -> bool:
    """Give a tokenizer a chat template, and say whether conversations are concatenated without one.

    Args:
        tokenizer: Changed; students carry it.
        template: Its text; `none`: concatenation; None: the tokenizer's own, if it has one.
        messages: Whether the data are lists of messages, which need a template.

    Raises:
        UserError: There is no template, or the tokenizer cannot say which characters an id stands for.
    """
    if not tokenizer.is_fast:
        raise UserError.about(
            "tokenizer.kind", type(tokenizer).__name__, "a tokenizer with tokenizer.json", "Convert it, or choose bytes or bpe."
        )
    if template is not None and template != PLAIN:
        tokenizer.chat_template = template
    plain = template == PLAIN or tokenizer.chat_template is None
    if plain and messages:
        raise _without_template(tokenizer)
    return plain


def conversation_text(
    messages: Sequence[dict[str, str]] | None = None, prompt: str = "", completion: str = "", rationale: tuple[str, str] | None = None
) -> str:
    """The text by which a conversation travels, and which is its content; `rationale`: the prompt that asks for it, and its text."""
    plain: dict[str, Any] = {"messages": list(messages)} if messages is not None else {"prompt": prompt, "completion": completion}
    if rationale is not None:
        plain["rationale"] = dict(zip(("prompt", "completion"), rationale, strict=True))
    return json.dumps(plain, ensure_ascii=False)


def without_rationale(text: str) -> str:
    """The text of the same conversation without its rationale, which decides no split: rows are held out with and without one alike."""
    content = json.loads(text)
    content.pop("rationale", None)
    return json.dumps(content, ensure_ascii=False)


def spoken(text: str) -> str:
    """All that is said in a conversation, for a tokenizer that is trained on it."""
    content = json.loads(text)
    parts = [message["content"] for message in content.get("messages", ())] or [content["prompt"], content["completion"]]
    parts += content.get("rationale", {}).values()
    return "\n".join(parts)


def _words(content: str | list[dict[str, str]]) -> str:
    """The text of a message: as it is, or of its parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _without_template(tokenizer: PreTrainedTokenizerBase) -> UserError:
    remedy = "Give its text or file, or columns.prompt and columns.completion in place of columns.messages."
    return UserError.about("tokenizer.chat_template", None, "a chat template, which messages need", f"The tokenizer has none. {remedy}")


def _start(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= SHOWN else plain[:SHOWN] + "..."
