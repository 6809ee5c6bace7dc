"""Write a language model as a GGUF file, the format of llama.cpp.

The names of tensors are those of the package `gguf`. The features of Llama's queries and keys stand in another order than in transformers.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from conf.errors import UserError
from models.export.gguf_tokenizer import read_tokenizer

BLOCK = 32  # numbers that share a scale in Q8_0
SINGLE = ("position_embd",)  # kept in single precision whatever the dtype, as by llama.cpp's own converter
TRANSPOSED = ("c_attn", "c_proj", "c_fc")  # GPT-2's layers, whose weights are (inputs, outputs)
ROTARY = ("llama", "mistral", "qwen2")


def write_gguf(model: nn.Module, folder: Path, file: Path, dtype: str, name: str, key: str = "--format") -> None:
    """Write a model and its tokenizer.

    Args:
        model: A causal LM on the CPU in single precision, of an architecture of `models.export.formats.GGUF_LANGUAGE`.
        folder: Its folder, for the tokenizer.
        file: The GGUF file.
        dtype: `f32`, `f16` or `q8_0` of the matrices; vectors stay in single precision, and rows that are no multiple of 32 in f16.
        name: Of the model, for its metadata.
        key: Dotted key or option to blame.

    Raises:
        UserError: llama.cpp has no such tokenizer, or no such rotary embedding.
    """
    import gguf

    config = cast(Any, model).config
    architecture = "llama" if config.model_type == "mistral" else config.model_type
    writer = gguf.GGUFWriter(str(file), architecture)
    try:
        _describe(writer, config, name, dtype)
        read_tokenizer(folder, config.vocab_size, f"gguf-{dtype}", key).write(writer)
        kind = next(number for number, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture)
        names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
        for tensor_name, tensor in _tensors(model, config).items():
            placed = names.get_name(tensor_name, try_suffixes=(".weight", ".bias"))
            if placed is None:
                found = f"gguf-{dtype} of a model with the tensor {tensor_name}"
                raise UserError.about(key, found, "models whose tensors all have a name in GGUF", "Choose hf or onnx.")
            _add(writer, placed, tensor, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _rotary(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {}) if config.model_type in ROTARY else {}


def _describe(writer: Any, config: Any, name: str, dtype: str) -> None:
    import gguf

    kinds = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
    writer.add_name(name)
    writer.add_file_type(kinds[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    features = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(features)
    writer.add_value_length(features)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(features)
    writer.add_rope_freq_base(float(_rotary(config).get("rope_theta", 10_000.0)))


def _tensors(model: nn.Module, config: Any) -> dict[str, NDArray[np.float32]]:
    """The tensors to write by the names of transformers, in llama.cpp's order of numbers; a tied head is left out."""
    whole = cast(Any, model)
    embedding, head = whole.get_input_embeddings().weight, whole.get_output_embeddings()
    tied = head is not None and head.weight is embedding
    found: dict[str, NDArray[np.float32]] = {}
    for name, tensor in whole.state_dict().items():
        if (tied and name == "lm_head.weight") or name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")):
            continue
        found[name] = _ordered(name, tensor.detach().float(), config).contiguous().numpy()
    factors = _llama3_factors(config)
    return {**found, "rope_freqs.weight": factors} if factors is not None else found


def _ordered(name: str, tensor: Tensor, config: Any) -> Tensor:
    part = name.rpartition(".")[0].rpartition(".")[2]
    if config.model_type == "gpt2":
        return tensor.T if tensor.ndim == 2 and part in TRANSPOSED else tensor
    if config.model_type in ("llama", "mistral") and part in ("q_proj", "k_proj"):
        heads = config.num_attention_heads if part == "q_proj" else config.num_key_value_heads
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return halves.transpose(1, 2).reshape(tensor.shape)
    return tensor


def _llama3_factors(config: Any) -> NDArray[np.float32] | None:
    """Divisors of the rotary frequencies, as Llama 3.1 stretches them; None: they are as usual."""
    rope = _rotary(config)
    if rope.get("rope_type") != "llama3":
        return None
    features = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    low, high, old = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    factors = []
    for power in range(0, features, 2):
        length = 2 * math.pi * rope["rope_theta"] ** (power / features)
        smooth = min(max((old / length - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def _add(writer: Any, name: str, tensor: NDArray[np.float32], dtype: str) -> None:
    import gguf

    if tensor.ndim < 2 or dtype == "f32" or name.startswith(SINGLE):
        writer.add_tensor(name, tensor)
    elif dtype == "q8_0" and tensor.shape[-1] % BLOCK == 0:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, tensor.astype(np.float16))
