"""Settings of the evaluation on held-out documents."""

from __future__ import annotations

import re
from typing import Any

from pydantic import field_validator

from conf.schema.base import NAME_PATTERN, Settings, setting
from conf.schema.data import Data

ALSO_NAME = "a mapping of names (letters, digits, - and _) to data sources"


class Evaluation(Settings):
    """Settings of the evaluation of models on held-out documents."""

    examples: int = setting(256, "Number of held-out sequences or examples, from the first on", "sequences", ge=1, le=100_000_000)
    batch_size: int = setting(64, "Sequences or examples evaluated at once", "sequences", identity=False, ge=1, le=1_048_576)
    samples: int = setting(
        2, "Number of held-out documents whose beginning each language model continues, for the report", "documents", ge=0, le=64
    )
    sample_tokens: int = setting(64, "Largest number of tokens of a continuation", "tokens", ge=1, le=4096)
    tasks: tuple[str, ...] = setting(
        (),
        "Tasks of lm-eval (causal-lm; extra `lm-eval`): names, or paths of YAML files or folders of them, with a slash or ending in .yaml",
        "tasks",
        identity=False,  # each is an evaluation of its own
        added=True,
    )
    task_examples: int | None = setting(
        None, "Judge at most this many examples of a task; none: all", "examples", identity=False, added=True, ge=1, le=100_000_000
    )
    also: dict[str, Data] = setting(
        {},
        "Further held-out data that no training sees, by name, each a source as `data`: quality and retention outside the domain",
        "sources",
        identity=False,  # each is an evaluation of its own
        added=True,
        allowed=ALSO_NAME,
    )

    @field_validator("also", mode="after")
    @classmethod
    def _named_for_a_metric(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not re.fullmatch(NAME_PATTERN, name):
                raise ValueError(f"got the name {name!r}; allowed: {ALSO_NAME}. Choose another name.")
        return value
