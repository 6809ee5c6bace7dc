"""Convert GGUF files to Hugging Face folders.

The file's quantised blocks are unpacked to fp32: what comes out is exactly the model that the file describes, in a form that every
other part of Ladder reads. The quantisation's error stays in it.
"""

from __future__ import annotations

import io
import struct
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conf.errors import UserError

MAGIC = b"GGUF"
SUFFIX = ".gguf"


# The readers check little: a truncated file, a foreign architecture or a wrong table of tensors has raised each of these there.
READER_ERRORS = (ValueError, KeyError, IndexError, OSError, RuntimeError, NotImplementedError, struct.error)


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
    try:
        with redirect_stderr(io.StringIO()):  # a bar for each tensor, which the library's own switch leaves on
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
            )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    except READER_ERRORS as error:
        raise _unreadable(file, key, (str(error).splitlines() or [type(error).__name__])[0][:300]) from error
    model, info = loaded
    if info["missing_keys"]:
        raise _unreadable(file, key, f"the file lacks weights, such as {min(info['missing_keys'])}")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_config(file: Path, key: str = "teacher.path") -> Any:
    """The configuration in the head of a GGUF file; no weight is read.

    Raises:
        UserError: As `convert`.
    """
    _check(file, key)
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    except READER_ERRORS as error:
        raise _unreadable(file, key, (str(error).splitlines() or [type(error).__name__])[0][:300]) from error


def _check(file: Path, key: str) -> None:
    if find_spec("gguf") is None:
        raise UserError.about(
            key, str(file), "a GGUF file, where the package gguf is installed", "Run `pip install gguf`, or `make smollm2` in a clone."
        )
    with file.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise _unreadable(file, key, "it does not begin with the letters GGUF")


def _unreadable(file: Path, key: str, why: str) -> UserError:
    return UserError.about(key, str(file), "a whole GGUF file of a language model that transformers reads", f"This one is not: {why}.")
