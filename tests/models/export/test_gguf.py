"""GGUF files answer as torch does, hold every tensor of the student and nothing else, and cut texts as its tokenizer does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

from conf.errors import UserError
from models.data import tokenizers
from models.engines.llama_server import LlamaServer
from models.export.gguf_file import write_gguf
from models.export.gguf_tokenizer import LLAMA3, check_gguf, read_tokenizer

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

TEXT = "def main(args):\n\treturn é + 世"
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
IDS = {"vocab_size": 258, "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 257}
WIDE = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, **IDS}
CONFIGS: dict[str, Callable[[], Any]] = {
    "grouped": lambda: LlamaConfig(**WIDE, num_attention_heads=4, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True),
    "biased": lambda: LlamaConfig(**WIDE, num_attention_heads=2, attention_bias=True, mlp_bias=True, rope_parameters=STRETCHED),
    "qwen2": lambda: Qwen2Config(**WIDE, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False),
    "gpt2": lambda: GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=64, **IDS),
}


def model_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind](), dtype=torch.float32).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)  # biases and norms that matter
            elif "wpe" not in name:
                value.mul_(4.0)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizers.save(tokenizers.bytes_tokenizer(), tmp_path)
    return tmp_path


@pytest.fixture
def served() -> Iterator[Callable[[Path], LlamaServer]]:
    servers: list[LlamaServer] = []

    def serve(file: Path) -> LlamaServer:
        servers.append(LlamaServer(file, context=128, threads=1))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def compared(model: nn.Module, server: LlamaServer) -> tuple[float, float]:
    """Largest difference of a log-probability, and mean KL divergence from torch, over the ids of `TEXT`."""
    ids = list(TEXT.encode())
    with torch.no_grad():
        log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
    log_q = np.stack([server.log_probabilities(ids[: n + 1], 258) for n in range(len(ids))])
    return float(np.abs(log_p - log_q).max()), float((np.exp(log_p) * (log_p - log_q)).sum(1).mean())


@pytest.mark.parametrize(("kind", "bound"), [("grouped", 1e-4), ("biased", 1e-4), ("qwen2", 1e-4), ("gpt2", 3e-2)])
def test_every_architecture_answers_as_in_torch(folder: Path, kind: str, bound: float, served: Callable[[Path], LlamaServer]) -> None:
    """GPT-2's activation is a table of half precision in llama.cpp."""
    model = model_of(kind)
    write_gguf(model, folder, folder / "model.gguf", "f32", "tiny")
    largest, kl = compared(model, served(folder))
    assert largest < bound
    assert kl < 1e-4


def test_rounded_weights_differ_the_more_the_fewer_bits_they_have(folder: Path, served: Callable[[Path], LlamaServer]) -> None:
    model, found = model_of("grouped"), {}
    for dtype in ("f32", "f16", "q8_0"):
        file = folder / f"{dtype}.gguf"
        write_gguf(model, folder, file, dtype, "tiny")
        found[dtype] = compared(model, served(file))[1], file.stat().st_size
    kls, sizes = zip(*found.values(), strict=True)
    assert list(kls) == sorted(kls)
    assert kls[-1] < 1e-2
    assert list(sizes) == sorted(sizes, reverse=True)


def test_a_file_holds_the_tensors_of_the_student_and_no_other(folder: Path) -> None:
    from gguf import GGUFReader

    model = model_of("grouped")
    write_gguf(model, folder, folder / "model.gguf", "f32", "tiny")
    reader = GGUFReader(folder / "model.gguf")
    written = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    parts = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
    blocks = {f"blk.{layer}.{part}.weight" for layer in range(2) for part in parts}
    assert set(written) == {"token_embd.weight", "output_norm.weight", *blocks}, "the head is the embedding"
    own = {name: value.numpy() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    assert sum(values.size for values in written.values()) == sum(values.size for values in own.values())
    assert np.array_equal(written["token_embd.weight"], own["model.embed_tokens.weight"])
    assert np.array_equal(np.sort(written["blk.1.attn_q.weight"].ravel()), np.sort(own["model.layers.1.self_attn.q_proj.weight"].ravel()))
    keys = [key for key in reader.fields if not key.startswith(("GGUF.", "general.", "llama.", "tokenizer."))]
    assert keys == []


def test_rows_that_are_no_multiple_of_a_block_stay_in_half_precision(folder: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFReader

    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, **IDS)
    write_gguf(AutoModelForCausalLM.from_config(config), folder, folder / "model.gguf", "q8_0", "tiny")
    kinds = {tensor.name: tensor.tensor_type for tensor in GGUFReader(folder / "model.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == GGMLQuantizationType.Q8_0
    assert kinds["blk.0.ffn_up.weight"] == GGMLQuantizationType.F16
    assert kinds["blk.0.attn_norm.weight"] == GGMLQuantizationType.F32


@pytest.mark.parametrize("cut", ["gpt-2", "smollm", "llama-bpe"])
def test_a_trained_tokenizer_cuts_texts_as_its_own(tmp_path: Path, cut: str, served: Callable[[Path], LlamaServer]) -> None:
    texts = ["it's 12345 words, we'll count: é世🧪", "  two  spaces\n\n\ttab x=f(y)[0]", "a<|end|>b 3.14e-10", "DON'T 7 naïve\u00a0x"]
    tokenizer = tokenizers.train_bpe(texts * 9, 330)
    parts = {
        "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "llama-bpe": [split(LLAMA3), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)],
    }
    if cut in parts:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts[cut])
    tokenizers.save(tokenizer, tmp_path)
    ids = tokenizers.id_count(tokenizer)
    assert read_tokenizer(tmp_path, ids, "gguf-f16", "--format").pre == cut
    config = LlamaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32, vocab_size=ids + 6)
    write_gguf(AutoModelForCausalLM.from_config(config), tmp_path, tmp_path / "model.gguf", "f16", "tiny")
    server = served(tmp_path)
    own = [ids.tolist() for ids in tokenizers.encode(tokenizer, texts)]
    assert [server.tokenize(text) for text in texts] == own
    assert server.tokenize("a", begin=True) == tokenizer("a")["input_ids"]


def split(regex: str) -> Any:
    from tokenizers import Regex

    return pre_tokenizers.Split(Regex(regex), "isolated")


def test_a_tokenizer_that_llama_cpp_lacks_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    check_gguf(folder, "gguf-f16", "--format")
    for changes in ({"decoder": None}, {"normalizer": {"type": "Lowercase"}}, {"pre_tokenizer": None}):
        raw = json.loads((folder / "tokenizer.json").read_text())
        place = folder / f"other-{next(iter(changes))}"
        place.mkdir()
        (place / "tokenizer.json").write_text(json.dumps({**raw, **changes}))
        with pytest.raises(UserError, match=r"--format: got 'gguf-f16 of a tokenizer of type BPE'; allowed: a byte-level BPE"):
            check_gguf(place, "gguf-f16", "--format")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"rope_parameters": {"rope_type": "yarn"}}, "a model with yarn rotary embeddings"),
        ({"sliding_window": 8}, "a model with sliding windows"),
    ],
)
def test_rotary_embeddings_that_the_writer_lacks_are_refused(folder: Path, config: dict[str, Any], words: str) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=words):
        check_gguf(folder, "gguf-f16", "--format")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(20))
    for place in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(UserError, match=r"model: got '.*'; allowed: a GGUF file that llama\.cpp reads"):
            LlamaServer(place, context=16)
