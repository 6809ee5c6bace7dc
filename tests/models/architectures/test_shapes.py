import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config

from conf.errors import UserError
from conf.schema.stage.student import Shape
from models.architectures.shapes import Size, build, config_for, count, size_of
from models.base.interface import Interface

TEXT = Interface("causal-lm", 64, vocabulary=300, end_id=0, pad_id=1)
SENTENCES = Interface("sequence-classification", 64, vocabulary=300, end_id=0, pad_id=1, classes=5)
IMAGES = Interface("image-classification", 2, classes=10, image_shape=(3, 16, 16))

CASES = {
    "llama": (TEXT, {"family": "llama"}),
    "llama untied": (TEXT, {"family": "llama", "tied_embeddings": False}),
    "llama grouped": (TEXT, {"family": "llama", "heads": 4, "key_value_heads": 2}),
    "llama classifier": (SENTENCES, {"family": "llama"}),
    "bert": (SENTENCES, {"family": "bert"}),
    "vit": (IMAGES, {"family": "vit"}),
    "vit coarse": (IMAGES, {"family": "vit", "patch_size": 8}),
    "shallow bert": (SENTENCES, {"family": "bert", "layers": 1}),
}


def shape(**changes) -> Shape:
    return Shape.model_validate({"hidden_size": 32, "layers": 2, "heads": 2, "feed_forward": 48} | changes)


def case(name: str) -> tuple[Shape, Interface]:
    interface, changes = CASES[name]
    return shape(**changes), interface


def operations(model: nn.Module, interface: Interface) -> int:
    """What torch counts for one sequence; attention on its plain path, where every product is seen."""
    inputs = {"input_ids": torch.randint(2, 300, (1, interface.sequence_length))}
    if interface.image_shape:
        inputs = {"pixel_values": torch.rand(1, *interface.image_shape)}
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(**inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", CASES)
def test_counts_without_memory_are_those_of_the_real_model(name: str) -> None:
    wanted, interface = case(name)
    model = build(config_for(wanted, interface), interface.workload)
    size = size_of(wanted, interface)
    assert size == count(model, interface.sequence_length)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert all(p.device.type == "cpu" for p in model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_operations_are_those_that_torch_counts(name: str) -> None:
    wanted, interface = case(name)
    model = build(config_for(wanted, interface), interface.workload)
    assert size_of(wanted, interface).forward_flops == pytest.approx(operations(model, interface), rel=0.03)


def test_operations_of_a_model_with_transposed_layers_are_counted() -> None:
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    model = AutoModelForCausalLM.from_config(config)
    assert count(model, 64).forward_flops == pytest.approx(operations(model, TEXT), rel=0.03)


def test_parameters_by_hand() -> None:
    # A layer: four projections 32 x 32, three of the feed-forward part 32 x 48, two norms of 32. Then a last norm.
    layers = 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
    assert size_of(shape(), TEXT) == Size(layers + 300 * 32, layers, size_of(shape(), TEXT).forward_flops, 64)
    untied = size_of(shape(tied_embeddings=False), TEXT)
    assert (untied.parameters, untied.non_embedding) == (layers + 2 * 300 * 32, layers)
    assert untied.forward_flops == size_of(shape(), TEXT).forward_flops
    grouped = size_of(shape(key_value_heads=1), TEXT)
    assert grouped.parameters == layers + 300 * 32 - 2 * 2 * 32 * 16


def test_operations_by_hand() -> None:
    products = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 300 * 32
    attention = 2 * 2 * (2 * 64 * 64 * 32)  # per layer: scores and their use, each L x L x width, a product and a sum
    assert size_of(shape(), TEXT).forward_flops == 2 * products * 64 + attention


def test_positions_of_an_image_are_its_patches_and_the_class_token() -> None:
    assert size_of(shape(family="vit", patch_size=4), IMAGES).tokens == 17
    assert size_of(shape(), TEXT).tokens == 64


def test_models_have_neither_dropout_nor_half_precision() -> None:
    for name in CASES:
        wanted, interface = case(name)
        model = build(config_for(wanted, interface), interface.workload)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))
        assert model.config._attn_implementation == "sdpa"


def test_one_billion_parameters_cost_no_memory() -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = size_of(shape(hidden_size=2048, layers=16, heads=16, feed_forward=8192), dataclasses.replace(TEXT, vocabulary=32000))
    assert size.parameters > 1e9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB; the weights would be 4 GB


def test_a_patch_that_does_not_divide_the_image_is_refused() -> None:
    says = r"shape\.patch_size: got 3; allowed: a divisor of square images; these are 16 x 16\. Choose one of 1, 2, 4"
    with pytest.raises(UserError, match=says):
        size_of(shape(family="vit", patch_size=3), IMAGES)
    with pytest.raises(UserError, match=r"these are 8 x 16\. Set data\.resize"):
        size_of(shape(family="vit"), dataclasses.replace(IMAGES, image_shape=(1, 8, 16)))
