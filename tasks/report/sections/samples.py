"""Section of the texts that the language models write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.records.run import RunRecord
from tasks.report.plots.style import looks


def section(record: RunRecord) -> Mapping[str, Any] | None:
    """The continuations of each prompt, by model; of many models those that the pictures name."""
    models = [model for model in record.models if model.samples]
    if not models:
        return None
    shown = [model for model, look in zip(models, looks(len(models)), strict=True) if look.named]
    answers: dict[str, list[tuple[str, str]]] = {}
    for model in shown:
        for prompt, text in {sample.prompt: sample.text for sample in model.samples}.items():  # an older record may have one twice
            answers.setdefault(prompt, []).append((model.name, text))
    return {"prompts": [{"text": prompt, "answers": each} for prompt, each in answers.items()], "left_out": len(models) - len(shown)}
