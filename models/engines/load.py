"""Load a model with the engine that is asked for."""

from __future__ import annotations

from pathlib import Path

from conf.errors import UserError
from conf.schema.workloads import refuse_unserved
from models.engines.base import Classifier, EngineKind, LanguageModel


def load_engine(
    place: Path, workload: str, kind: EngineKind = "torch", *, max_length: int | None = None, batch: int = 16, key: str = "model"
) -> Classifier | LanguageModel:
    """Load a model.

    Args:
        place: A Hugging Face folder, or the file or folder of an export.
        workload: `causal-lm`, `sequence-classification` or `image-classification`.
        kind: The engine.
        max_length: Lowers the most ids of a text, or of prompt and answer; None: what the model has.
        batch: Most answers that a language model writes at once.
        key: Dotted key or option to blame.

    Raises:
        UserError: It is no such model, or the engine is not installed.
    """
    refuse_unserved(workload, key, str(place), "a model")
    if kind == "torch":
        from models.engines.torch_engine import load

        return load(place, workload, max_length=max_length, batch=batch, key=key)
    if kind == "onnx":
        from models.engines.onnx_engine import load_onnx

        return load_onnx(place, workload, max_length=max_length, key=key)
    if workload != "causal-lm":
        raise UserError.about("--engine", kind, f"torch or onnx, for {workload}", "Choose one of them.")
    from models.engines.llamacpp_engine import LlamaCppModel

    return LlamaCppModel(place, max_length=max_length, batch=batch, key=key)
