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
    prompts = [
        {"text": sample.prompt, "answers": [(model.name, model.samples[i].text) for model in shown if len(model.samples) > i]}
        for i, sample in enumerate(models[0].samples)
    ]
    return {"prompts": prompts, "left_out": len(models) - len(shown)}
