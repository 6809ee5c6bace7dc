"""Formats of exports: packages, and the architectures that each of them has."""

from __future__ import annotations

from importlib.util import find_spec

from conf.errors import UserError
from conf.schema.workloads import refuse_unserved

PACKAGES: dict[str, tuple[str, ...]] = {
    "hf": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "onnx-int8": ("onnx", "onnxscript", "onnxruntime"),
    "gguf": ("gguf", "xllamacpp"),
}
# Language models whose cache of keys and values is one pair of tensors a layer, and whose exports were compared with torch.
ONNX_LANGUAGE = ("llama", "gpt2", "mistral", "qwen2", "qwen3", "gpt_neox", "opt")
# Language models that the GGUF writer knows.
GGUF_LANGUAGE = ("llama", "mistral", "qwen2", "gpt2")


def check_format(name: str, kind: str, workload: str, key: str) -> None:
    """Refuse a format that an architecture lacks, or whose packages are not installed, before any work.

    Args:
        name: Of the format, such as `onnx-int8` or `gguf-f16`.
        kind: The student's architecture: `model_type` of its configuration.
        workload: The ladder's.
        key: Dotted key or option to blame.

    Raises:
        UserError: In one sentence, with the remedy.
    """
    refuse_unserved(workload, key, name, "an export")
    family = "gguf" if name.startswith("gguf") else name
    missing = [package for package in PACKAGES[family] if find_spec(package) is None]
    if missing:
        raise UserError.about(
            key, name, f"formats whose packages are installed; {', '.join(missing)} is missing", f"Run `pip install {' '.join(missing)}`."
        )
    if family == "gguf" and workload != "causal-lm":
        raise UserError.about(key, name, f"hf, onnx and onnx-int8 for {workload}; GGUF is for language models", "Choose onnx.")
    if family == "gguf" and kind not in GGUF_LANGUAGE:
        allowed = f"hf for language models of type {kind}; GGUF is there for {', '.join(GGUF_LANGUAGE)}"
        raise UserError.about(key, name, allowed, "Choose hf.")
    if family.startswith("onnx") and workload == "causal-lm" and kind not in ONNX_LANGUAGE:
        allowed = f"hf for language models of type {kind}; ONNX with a cache is there for {', '.join(ONNX_LANGUAGE)}"
        raise UserError.about(key, name, allowed, "Choose hf.")
