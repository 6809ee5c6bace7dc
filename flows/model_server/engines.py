"""Choice of the engine for a model: an export of the store, or PyTorch."""

from __future__ import annotations

from pathlib import Path

from conf.errors import UserError
from conf.home import Home
from models.engines.base import EngineKind
from tasks.export.find import stored_exports

# Exports by engine, the nearest to the student first.
FORMATS: dict[EngineKind, tuple[str, ...]] = {"onnx": ("onnx", "onnx-int8"), "llamacpp": ("gguf-f32", "gguf-f16", "gguf-q8_0")}
COMMAND = {"onnx": "onnx", "llamacpp": "gguf"}


def choose_engine(home: Home, folder: Path, weights: str, workload: str, wanted: EngineKind | None) -> tuple[EngineKind, Path]:
    """The engine, and the folder that it loads.

    Args:
        home: Its store holds the exports.
        folder: Hugging Face folder of the model.
        weights: Hash of its weights.
        workload: Its task.
        wanted: None: llama.cpp for a language model, or ONNX Runtime for a classifier, where such an export exists, else PyTorch.

    Raises:
        UserError: There is no export for the wanted engine.
    """
    if wanted == "torch":
        return wanted, folder
    kind: EngineKind = wanted or ("llamacpp" if workload == "causal-lm" else "onnx")
    exports = stored_exports(home, weights)
    found = next((exports[name] for name in FORMATS[kind] if name in exports), None)
    if found is not None:
        return kind, found
    if wanted is None:
        return "torch", folder
    remedy = f"Make one: `ladder export --format {COMMAND[kind]}`, or leave the option out."
    raise UserError.about("--engine", kind, f"an engine with an export in {home.store}", remedy)
