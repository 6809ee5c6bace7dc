"""Refuse a `data.generate` that cannot run, before anything is trained or paid."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from conf.errors import UserError
from conf.schema.generate import Generate
from tasks.generation.prompts import KEY, all_prompts
from tasks.generation.rules import function_of


def check_generation(settings: Generate, base: Path) -> None:
    """Read prompts and rules.

    Raises:
        UserError: A file, a column, a package or a function is missing.
    """
    if not any(prompt.text.strip() for prompt in all_prompts(settings.prompts, base)):
        raise UserError.about(f"{KEY}.paths", ", ".join(settings.prompts.paths), "files with prompts", "They hold none.")
    check_rules(settings)
    if settings.endpoint is not None and find_spec("openai") is None:
        allowed = "none, where the package openai is not installed"
        raise UserError.about("data.generate.endpoint", settings.endpoint.url, allowed, "Run `pip install openai`.")


def check_rules(settings: Generate) -> None:
    """Find what the rules need.

    Raises:
        UserError: A package or a function is missing.
    """
    rules = settings.selection
    if rules.duplicates is not None and find_spec("datasketch") is None:
        allowed = "none, where the package datasketch is not installed"
        raise UserError.about("data.generate.selection.duplicates", rules.duplicates, allowed, "Run `pip install datasketch`.")
    function_of(rules.function)
