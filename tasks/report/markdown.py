"""Escape names and free text for Markdown: cards, artifacts of Prefect."""

from __future__ import annotations

import html
import re

INLINE = re.compile(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)")
BEGINNINGS = re.compile(r"^(\s*)([#>+=-]|\d+(?=[.)](?:\s|$)))")  # of headings, quotations, lists and rules
CONTROLS = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")  # line ends; marks that turn the order of letters


def escape(text: object) -> str:
    """Text that Markdown shows as it is, in one line: no markup, link, picture, code, table or heading comes of it."""
    plain = INLINE.sub(r"\\\g<0>", html.escape(CONTROLS.sub(" ", str(text)), quote=False))
    return BEGINNINGS.sub(lambda found: f"{found[1]}{found[2]}\\" if found[2].isdigit() else f"{found[1]}\\{found[2]}", plain)


def fence(text: str) -> str:
    """A fence for a block of code that no line of the text ends."""
    return "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", text)), 3)
