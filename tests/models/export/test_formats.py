"""A format is refused before work where its architecture or its packages are missing."""

from __future__ import annotations

import pytest

from conf.errors import UserError
from models.export import formats
from models.export.formats import check_format


@pytest.mark.parametrize(
    ("name", "kind", "workload", "words"),
    [
        ("gguf-f16", "vit", "image-classification", "hf, onnx and onnx-int8 for image-classification; GGUF is for language models"),
        ("gguf-q8_0", "mamba", "causal-lm", "hf for language models of type mamba; GGUF is there for llama"),
        ("onnx-int8", "mamba", "causal-lm", "hf for language models of type mamba; ONNX with a cache is there for llama"),
    ],
)
def test_a_format_that_an_architecture_lacks_is_refused(name: str, kind: str, workload: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_format(name, kind, workload, "--format")
    assert str(caught.value).startswith(f"--format: got {name!r}; allowed: {words}")


@pytest.mark.parametrize(("name", "workload"), [("hf", "causal-lm"), ("onnx", "sequence-classification"), ("onnx-int8", "causal-lm")])
def test_a_format_of_a_common_architecture_passes(name: str, workload: str) -> None:
    check_format(name, "llama", workload, "--format")


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name.startswith("onnx") else object())
    with pytest.raises(UserError, match=r"onnx, onnxscript, onnxruntime is missing\. Run `pip install onnx onnxscript onnxruntime`\."):
        check_format("onnx", "vit", "image-classification", "--format")
    check_format("hf", "vit", "image-classification", "--format")
