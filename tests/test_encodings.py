"""Every text file is opened as UTF-8, whatever the locale: Python takes that of the machine where nothing is given."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for layer in ("conf", "models", "tasks", "flows", "docs", "benchmarks") for path in sorted((ROOT / layer).rglob("*.py"))]
OTHERS = ("os", "Image", "SignalCache", "LadderRun", "webbrowser", "opener", "tarfile", "self", "cls")  # whose `open` opens no text


def without_encoding(source: str) -> Iterator[int]:
    """Lines with a call that opens a file as text and gives no encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in ("open", "read_text", "write_text"):
            continue
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        modes = [*node.args[0 if method else 1 :][:1], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        as_text = not any("b'" in ast.unparse(mode) for mode in modes)
        if method if name != "open" else as_text and owner not in OTHERS and "(" not in owner:
            yield node.lineno


@pytest.mark.parametrize(
    "line", ["path.read_text(%s)", "path.write_text(text, %s)", "path.open(%s)", "open(path, 'w', %s)", "path.open('a', %s)"]
)
def test_calls_without_encoding_are_found(line: str) -> None:
    assert list(without_encoding(line % "")) == [1]
    assert list(without_encoding(line % "encoding='utf-8'")) == []


def test_no_file_is_opened_in_the_encoding_of_the_locale() -> None:
    found = [f"{path.relative_to(ROOT)}:{line}" for path in FILES for line in without_encoding(path.read_text(encoding="utf-8"))]
    assert found == []
