"""ONNX graphs of language models: a cache that grows, and greedy texts equal to those of generate()."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from models.data import tokenizers
from models.engines.base import GenerationSettings, LanguageModel
from models.engines.load import load_engine
from models.engines.onnx_graph import OnnxGraph
from models.export.int8 import write_int8
from models.export.onnx_graph import write_onnx

pytestmark = pytest.mark.slow  # each graph is traced for twenty seconds
IDS = {"vocab_size": 258, "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 257}
CONFIGS = {
    "llama": LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, **IDS),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **IDS),
}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_cache_may_be_empty_and_grows(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind], dtype=torch.float32).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(2.0)
        model.get_input_embeddings().weight[128:] = 0.0
    model.save_pretrained(tmp_path)
    tokenizers.save(tokenizers.bytes_tokenizer(), tmp_path)
    write_onnx(model, "causal-lm", tmp_path / "model.onnx")
    graph, ids = OnnxGraph(tmp_path, threads=1), np.random.default_rng(0).integers(0, 128, (3, 11))
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids)).logits.numpy()
    assert np.abs(graph.logits({"input_ids": ids}) - logits).max() < 1e-4
    past, parts = graph.empty_past(3), []
    for begin, end in ((0, 4), (4, 5), (5, 11)):
        part, past = graph.step(ids[:, begin:end], past)
        parts.append(part)
    assert np.abs(np.concatenate(parts, 1) - logits).max() < 1e-4
    engine, own = load_engine(tmp_path, "causal-lm", "onnx"), load_engine(tmp_path, "causal-lm")
    assert isinstance(engine, LanguageModel)
    assert isinstance(own, LanguageModel)
    greedy = GenerationSettings(max_tokens=20, temperature=0.0, top=2)
    texts = ["".join(token.text for token in each.generate(own.ids("the"), greedy)) for each in (own, engine)]
    assert texts[0] == texts[1]
    own.close()
    write_int8(tmp_path / "model.onnx", tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "model.onnx").stat().st_size
