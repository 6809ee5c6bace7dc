"""Write a drafted ladder as short commented YAML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conf.errors import UserError
from conf.loading.yaml_output import in_one_line
from tasks.setup.guesses import Draft

WIDTH = 110  # characters of a line; a longer comment stands above its key


def as_yaml(draft: Draft, place: str, command: str = "ladder init") -> str:
    """The draft as YAML.

    Args:
        draft: Settings and reasons.
        place: Path of the file, for the comment at its beginning.
        command: That wrote it, for the same.
    """
    lines = [
        f"# By `{command}`. `ladder plan {place}` prices it, `ladder explain {place}` prints every setting, `ladder run {place}` runs it."
    ]
    lines += [f"# Decide: {warning}." for warning in draft.warnings]
    for key, value in draft.settings.items():
        lines += _setting(key, value, draft.reasons, key, "")
    return "\n".join(lines) + "\n"


def _setting(key: str, value: Any, reasons: dict[str, str], path: str, indent: str) -> Iterator[str]:
    reason = reasons.get(path)
    inner = [name for name in reasons if name.startswith(f"{path}.")]
    nested = isinstance(value, dict) and (inner or path in ("data", "defaults"))
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        yield f"{indent}{key}:  # {reason}" if reason else f"{indent}{key}:"
        yield from (f"{indent}  - {in_one_line(item)}" for item in value)
        return
    text = f"{indent}{key}:" if nested else f"{indent}{key}: {in_one_line(value)}"
    if reason and len(text) + len(reason) + 4 <= WIDTH:
        yield f"{text}  # {reason}"
    else:
        if reason:
            yield f"{indent}# {reason}"
        yield text
    if nested and isinstance(value, dict):
        for name, item in value.items():
            yield from _setting(name, item, reasons, f"{path}.{name}", f"{indent}  ")


def write_new(file: Path, text: str) -> None:
    """Write a file that must not exist.

    Raises:
        UserError: It exists, or its folder does not.
    """
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UserError.about("--out", str(file), "a file that does not exist yet", "Choose another, or remove it.") from None
    except OSError as error:
        raise UserError.about("--out", str(file), "a file in a folder that can be written", f"{error.strerror}.") from error
