"""Convert GGUF files to Hugging Face folders.

The file's quantised blocks are unpacked to fp32: the result is exactly the model that the file describes, in a form that every
other part of Ladder reads. The quantisation's error stays in it.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conf.errors import UserError, foreign_errors

MAGIC = b"GGUF"
SUFFIX = ".gguf"
WHOLE = "a whole GGUF file of a language model that transformers reads"


def convert(file: Path, folder: Path, key: str = "teacher.path") -> None:
    """Write the model and the tokenizer of a GGUF file as a Hugging Face folder: configuration, safetensors in fp32, tokenizer.

    Args:
        file: A causal LM of an architecture whose GGUF form transformers reads.
        folder: An existing empty folder.
        key: Dotted key of the file in the settings, for error messages.

    Raises:
        UserError: The package `gguf` is not installed, or the file is damaged or of an unknown architecture.
    """
    _check(file, key)
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    transformers.utils.logging.disable_progress_bar()
    with _reading(file, key), redirect_stderr(io.StringIO()):  # a bar for each tensor, which the library's own switch leaves on
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    model, info = loaded
    if info["missing_keys"]:
        raise UserError.about(key, str(file), WHOLE, f"This one lacks weights, such as {min(info['missing_keys'])}.")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_config(file: Path, key: str = "teacher.path") -> Any:
    """The configuration in the head of a GGUF file; no weight is read.

    Raises:
        UserError: As `convert`.
    """
    _check(file, key)
    from transformers import AutoConfig

    with _reading(file, key):
        return AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)


def _check(file: Path, key: str) -> None:
    if find_spec("gguf") is None:
        raise UserError.about(
            key, str(file), "a GGUF file, where the package gguf is installed", "Run `pip install gguf`, or `make smollm2` in a clone."
        )
    with file.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise UserError.about(key, str(file), WHOLE, "This one does not begin with the letters GGUF.")


def _reading(file: Path, key: str) -> AbstractContextManager[None]:
    """The readers check little: truncated files, foreign architectures and wrong tables of tensors raise whatever they do there."""
    return foreign_errors(key, str(file), WHOLE, "This one is not.")
