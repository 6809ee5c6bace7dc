"""Errors for users, each with its exit code.

`LadderError` is the root. A `UserError` is wrong input: its text names the dotted key, the value, the allowed values and the remedy. The
others are failures that no check of the input could foresee. `assert` is kept for our own mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

SHOWN = 500  # characters of a value, or of a library's error, that a message repeats


class LadderError(Exception):
    """Something failed while a ladder ran; finished models stay in the store."""

    exit_code = 1


class UserError(LadderError):
    """The input is wrong: an unknown key, a missing file, a value out of range."""

    exit_code = 2

    @classmethod
    def about(cls, key: str, value: object, allowed: str, remedy: str) -> Self:
        """Build the message of every bad input.

        Args:
            key: Dotted key or command-line option, such as `stages[1].objective.alpha`.
            value: The value given.
            allowed: The values allowed.
            remedy: The correction, as an imperative.
        """
        return cls(f"{key}: got {shown(value)}; allowed: {allowed}. {remedy}")


class TrainingDiverged(LadderError):
    """The loss or the gradient became NaN, infinite or exploded; the last good checkpoint is kept."""


class StoreError(LadderError):
    """The store could not be written, for instance because the disk is full."""


class RemoteStoreError(StoreError):
    """The object store of `LADDER_STORE` does not answer, refuses, or is full; what was computed stays in the home."""

    exit_code = 2


class TransientError(LadderError):
    """An external service did not answer and may do so later: a data source, a tracking server, an object store."""


class RecordUnavailable(TransientError):
    """MLflow did not take a record. Nothing computed is lost: the store has it, and a rerun records it."""


class ServerAway(TransientError):
    """Prefect's server does not answer and does not return; finished models stay in the store, and the same command resumes."""


class RunCancelled(LadderError):
    """The run was cancelled by a person; it wrote a checkpoint, from which the same command resumes."""

    exit_code = 130


class RunInterrupted(RunCancelled):
    """The run was stopped by Ctrl-C or SIGTERM, and not by a person's cancellation; otherwise as `RunCancelled`."""


class GateStopped(LadderError):
    """A gate refused a student; everything up to it is kept and reusable."""

    exit_code = 3


class ExportRefused(LadderError):
    """An export differs from its student by more than its tolerance; it is kept nowhere."""

    exit_code = 3


class PromotionRefused(LadderError):
    """A challenger was not made champion, for the reasons that the message lists; the champion stays."""

    exit_code = 3


def shown(value: object, most: int = SHOWN) -> str:
    """A value as a message repeats it: escaped as Python writes it, and cut."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def reason_of(error: BaseException) -> str:
    """The words of an error in one line without control characters, cut; the name of its class where it has none."""
    words = " ".join(str(error).split())[:SHOWN].rstrip(".:")
    return "".join(letter if letter.isprintable() else "?" for letter in words) or type(error).__name__


@contextmanager
def foreign_errors(key: str, found: object, allowed: str, remedy: str = "", says: str = "transformers") -> Iterator[None]:
    """Turn whatever a library raises at foreign input, such as a model's folder, into one message, with its cause chained.

    Libraries document few of the errors that wrong input makes them raise. Interruptions, lack of memory and our own errors pass.

    Args:
        key: As of `UserError.about`, like `found`, `allowed` and `remedy`.
        found: The file or folder.
        allowed: What would be read.
        remedy: What to do.
        says: The library.

    Raises:
        UserError: The library raised something.
    """
    try:
        yield
    except (LadderError, MemoryError):
        raise
    except BaseException as error:  # of the tokenizers library: its panics are no `Exception`
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError.about(key, found, allowed, f"{remedy} ({says} said: {reason_of(error)})".strip()) from error
