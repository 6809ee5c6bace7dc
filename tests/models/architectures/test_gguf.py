"""A GGUF file becomes the Hugging Face folder of the same model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conf.errors import UserError
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import load_model
from models.architectures.gguf import convert, read_config
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.data import tokenizers

gguf = pytest.importorskip("gguf")
HEADS, KEYS = 4, 2
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    index, part = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{index}.{NAMES[part]}.weight"


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """llama.cpp keeps the two halves of a rotary pair side by side."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write(path: Path, model: Any, tokenizer: Any) -> None:
    import json

    config, raw = model.config, json.loads(tokenizer.backend_tokenizer.to_str())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(12345.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in raw["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    for name, tensor in model.named_parameters():
        rows = interleaved(tensor, HEADS if "q_proj" in name else KEYS) if "q_proj" in name or "k_proj" in name else tensor
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(rows.detach().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A file, and the model and tokenizer that it was written from."""
    tokenizer = tokenizers.train_bpe([Path(__file__).read_text()], 300)
    torch.manual_seed(0)
    shape = Shape(hidden_size=32, layers=2, heads=HEADS, key_value_heads=KEYS, feed_forward=48)
    model = build(config_for(shape, Interface("causal-lm", 16, len(tokenizer), *tokenizers.special_ids(tokenizer))), "causal-lm")
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write(path, model, tokenizer)
    return path, model, tokenizer


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_becomes_the_folder_of_the_same_model(tiny: tuple[Path, Any, Any], tmp_path: Path) -> None:
    path, model, tokenizer = tiny
    convert(path, tmp_path)
    read: Any = load_model(tmp_path, "causal-lm")
    assert read.config.rope_parameters["rope_theta"] == 12345.0
    read.config.rope_parameters["rope_theta"] = model.config.rope_parameters["rope_theta"]
    theirs = model.state_dict()
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    folder_tokenizer = tokenizers.load_teacher(tmp_path)
    text = Path(__file__).read_text()
    assert folder_tokenizer(text).input_ids == tokenizer(text).input_ids
    assert tokenizers.special_ids(folder_tokenizer) == tokenizers.special_ids(tokenizer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_head_of_a_file_tells_the_shape_without_its_weights(tiny: tuple[Path, Any, Any]) -> None:
    path, model, _ = tiny
    config = read_config(path)
    with torch.device("meta"):
        described = build(config, "causal-lm")
    assert sum(p.numel() for p in described.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"PK\x03\x04", "does not begin with the letters GGUF"), (b"GGUF\x03\x00\x00\x00" + b"\x00" * 4, "This one is not")],
)
def test_a_damaged_file_is_refused(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(UserError, match=why) as caught:
        convert(file, tmp_path / "out")
    assert str(caught.value).startswith("teacher.path: got '")
    assert "a whole GGUF file" in str(caught.value)


def test_a_truncated_file_is_refused(tiny: tuple[Path, Any, Any], tmp_path: Path) -> None:
    file = tmp_path / "half.gguf"
    file.write_bytes(tiny[0].read_bytes()[: tiny[0].stat().st_size * 2 // 3])
    with pytest.raises(UserError, match="a whole GGUF file"):
        convert(file, tmp_path)


def test_without_the_package_the_message_says_how_to_install_it(tiny: tuple[Path, Any, Any], tmp_path: Path, monkeypatch) -> None:
    import models.architectures.gguf

    monkeypatch.setattr(models.architectures.gguf, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="Run `pip install gguf`, or `make smollm2`"):
        convert(tiny[0], tmp_path)
