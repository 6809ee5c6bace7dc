"""Write settings as YAML that loads again unchanged."""

from __future__ import annotations

import re
from typing import Any

import yaml

from conf.schema.ladder import Ladder


class _Dumper(yaml.SafeDumper):
    """Writes values so that `OmegaConf.load` reads them back unchanged."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # OmegaConf takes more texts for numbers, such as 1e5, than PyYAML expects and quotes; ends of lines it folds.
    plain = text[:1].isalpha() and text.isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", escaped(text), style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)


def escaped(text: str) -> str:
    """The text, written so that OmegaConf reads no interpolation into it."""
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)


def to_yaml(ladder: Ladder) -> str:
    """Every setting of a ladder, defaults included, as YAML that loads again."""
    return yaml.dump(ladder.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def in_one_line(value: Any) -> str:
    """A value as YAML in one line, which loads again as it is."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
