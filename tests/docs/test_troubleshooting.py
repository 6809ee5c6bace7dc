"""Every message that the troubleshooting page quotes occurs in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, tracked

PAGE = ROOT / "docs" / "troubleshooting.md"


def texts(path: Path) -> Iterator[str]:
    """The strings of a module; what an f-string fills in reads `…`."""
    inside: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield re.sub(r"%(\.\d)?[srdf]", "…", node.value)


@pytest.fixture(scope="module")
def source() -> str:
    return "\n".join(text for path in tracked("flows/*.py", "tasks/*.py", "models/*.py", "conf/*.py") for text in texts(path))


def quoted() -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)


def test_every_row_quotes_a_message():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| message")]
    assert len(rows) == len(quoted()) > 35


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_occurs_in_the_source(message: str, source: str):
    assert message.strip("… ") in source
