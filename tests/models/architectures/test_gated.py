"""Lean gated parts: the same gradients to the last bit, less kept, other parts untouched."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from models.architectures.gated import lean_gates

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 88, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=1, head_dim=16)),
}
IDS = torch.arange(48).view(3, 16) % 64


def _kept_and_gradients(model: nn.Module, lean: bool, half: bool) -> tuple[int, dict[str, Tensor]]:
    """Bytes that are kept for the gradient, and the gradients."""
    model, kept = copy.deepcopy(model), []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if half else nullcontext()
    with lean_gates(model) if lean else nullcontext(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with autocast:
            loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
    return sum(kept), {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_the_same_to_the_last_bit_and_less_is_kept(kind: str, half: bool) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]()
    (plenty, expected), (little, found) = (_kept_and_gradients(model, lean, half) for lean in (False, True))
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys() - ({"lm_head.weight"} - expected.keys())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    width = IDS.numel() * SIZES["intermediate_size"] * (2 if half else 4)
    assert plenty - little >= 2 * SIZES["num_hidden_layers"] * width  # `silu(gate)` and the product, in every layer


def test_a_model_is_as_before_afterwards_and_other_parts_are_left_alone() -> None:
    torch.manual_seed(0)
    llama = MODELS["llama"]()
    wrapped = llama.model.layers[1].mlp
    wrapped.down_proj.register_forward_hook(lambda *_: None)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2))
    with lean_gates(llama), lean_gates(gpt2):
        switched = [part for model in (llama, gpt2) for part in model.modules() if "forward" in vars(part)]
        assert switched == [llama.model.layers[0].mlp]
    assert not any("forward" in vars(part) for part in llama.modules())
