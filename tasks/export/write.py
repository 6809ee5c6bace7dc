"""Write the files of an export: the model in its format, and what it needs beside."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

from models.export.formats import PACKAGES

# Of a student's folder in the store; its records, its curve and the ids that it keeps of the data stay there.
BESIDE = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "LICENSE*",
    "README.md",
)
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
WEIGHT_FILES = (".safetensors", ".onnx", ".data", ".gguf")


def write_files(name: str, student: Path, workload: str, folder: Path, earlier: Path | None = None) -> None:
    """Write a student in one format into an empty folder.

    Args:
        name: Of the format, such as `gguf-f16`.
        student: Folder of the student in the store.
        workload: The ladder's.
        folder: An existing empty folder.
        earlier: Folder of the same student as `onnx`, whose graph `onnx-int8` is made of; None: it is traced for that.
    """
    _copy(student, BESIDE, folder)
    if name == "hf":
        _copy(student, WEIGHTS, folder)
    elif name == "onnx":
        _trace(student, workload, folder / "model.onnx")
    elif name.startswith("gguf"):
        from models.architectures.checkpoint import load_model
        from models.export.gguf_file import write_gguf

        write_gguf(load_model(student, workload, key="RUN"), student, folder / "model.gguf", name.removeprefix("gguf-"), student.name)
    elif name == "onnx-int8":
        from models.export.int8 import write_int8

        source = earlier / "model.onnx" if earlier else folder / "whole.onnx"
        if earlier is None:
            _trace(student, workload, source)
        write_int8(source, folder / "model.onnx")
        for path in folder.glob("whole.onnx*"):
            path.unlink()


def _trace(student: Path, workload: str, file: Path) -> None:
    from models.architectures.checkpoint import load_model
    from models.export.onnx_graph import write_onnx

    write_onnx(load_model(student, workload, key="RUN"), workload, file)


def _copy(student: Path, patterns: tuple[str, ...], folder: Path) -> None:
    for path in sorted({path for pattern in patterns for path in student.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, folder / path.name)


def versions_of(name: str) -> dict[str, str]:
    """The packages that write and run a format, with their versions."""
    family = "gguf" if name.startswith("gguf") else name
    return {package: version(package) for package in ("torch", "transformers", *PACKAGES[family])}


def weight_bytes(folder: Path) -> int:
    """Size of the files of a model that hold weights."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in WEIGHT_FILES)
