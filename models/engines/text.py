"""Growing text of an answer: letters of several tokens, and stop texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"  # what decoders write for bytes that are no whole letter
LONGEST_LETTER = 4  # bytes of a letter in UTF-8


class GrowingText:
    """Turns ids into text piece by piece.

    Args:
        tokenizer: Of the model.
        stop: Texts that end the answer.

    Attributes:
        stopped: Whether a stop text was found; nothing after it, nor itself, is told.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._ids: list[int] = []  # from the last that were told on: a decoder needs the ids before, as some write a space between words
        self._told = 0  # how many of them are told
        self._held = ""  # told by the decoder, and may be the beginning of a stop text

    def add(self, token: int) -> str:
        """The text that one more id adds to the answer."""
        self._ids.append(token)
        return self._released(self._decoded(final=False))

    def end(self) -> str:
        """The text that is still held back, at the end of the answer."""
        rest = self._released(self._decoded(final=True))
        held, self._held = self._held, ""
        return rest if self.stopped else rest + held

    def _decoded(self, final: bool) -> str:
        before, whole = self._text(self._ids[: self._told]), self._text(self._ids)
        waiting = len(self._ids) - self._told
        if not waiting or (whole.endswith(UNFINISHED) and waiting < LONGEST_LETTER and not final):
            return ""
        del self._ids[: self._told]
        self._told = len(self._ids)
        return whole[len(before) :]

    def _text(self, ids: list[int]) -> str:
        return cast(str, self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

    def _released(self, new: str) -> str:
        """All that can no longer become part of a stop text."""
        if self.stopped:
            return ""
        text = self._held + new
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        held = next(
            (n for n in range(min(longest, len(text)), 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stop)),
            0,
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]
