"""Whether the step under way reused a stored result."""

from __future__ import annotations

from contextvars import ContextVar

_reuse: ContextVar[str | None] = ContextVar("reuse", default=None)


def note_reuse(message: str | None) -> None:
    """Note for the step under way which result it reused; None: its last result was computed."""
    _reuse.set(message)


def reuse_noted() -> str | None:
    """The last note."""
    return _reuse.get()
