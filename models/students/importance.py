"""Importance of channels, heads, units and layers, from activations.

Width: `sqrt(sum_samples (mean_positions |a|)^2)`, the mean over a sequence and then the L2 norm over samples (Muralidharan et al. 2024,
"Compact Language Models via Pruning and Knowledge Distillation", arXiv:2407.14679), where `a` is

- a norm's output, summed over all norms, for a channel of the residual stream;
- for a head the length of its addition to the stream, `|W_h o_h|`: its output through its part of the output projection (that paper
  takes `|o_h|`; cutting a third of a 135M model's query heads by it cost 2.14 bits per byte, by their addition 1.53, from 0.90);
- the input of the last matrix of the feed-forward part, for a unit of it.

Depth: block influence `1 - E cos(x_i, x_{i+1})` of a layer's input and output (Men et al. 2024, "ShortGPT", arXiv:2403.03853).

Shape legend: S samples, L positions, H width, A heads of a layer, F feed-forward units, D layers, M norms.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.data.batches import Batch

DIGITS = 6  # significant ones that are stored


@dataclass(frozen=True)
class Layout:
    """Names of the measured modules of a kind of model, those of a layer within it."""

    layers: str
    norms: tuple[str, ...]  # ends of the names of norms on the residual stream
    heads: str  # its input are the outputs of all heads
    feed_forward: str  # its input are the units


LLAMA = Layout("layers", ("input_layernorm", "post_attention_layernorm", "norm"), "self_attn.o_proj", "mlp.down_proj")
BERT = Layout("encoder.layer", ("LayerNorm",), "attention.output.dense", "output.dense")
LAYOUTS = {"llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "bert": BERT}  # by model_type


@dataclass(frozen=True)
class Importance:
    """The measured importance; in float64, on the processor.

    Attributes:
        samples: Sequences that it was measured on.
        hidden: (H,) of each channel of the residual stream.
        heads: (D, A).
        feed_forward: (D, F).
        blocks: (D,) influence of each layer, in [0, 2].
        energy: Norm -> (H,) mean square of its input, by which norms are adjusted to a narrower stream.
    """

    samples: int
    hidden: Tensor
    heads: Tensor
    feed_forward: Tensor
    blocks: Tensor
    energy: dict[str, Tensor]

    def to_json(self) -> str:
        """All of it as JSON text."""
        return json.dumps(asdict(self), default=_rounded)

    @classmethod
    def from_json(cls, text: str) -> Importance:
        """Read the text of `to_json`."""
        raw = json.loads(text)
        samples, energy = raw.pop("samples"), {name: _tensor(values) for name, values in raw.pop("energy").items()}
        return cls(samples, energy=energy, **{name: _tensor(values) for name, values in raw.items()})


def measure_importance(model: nn.Module, batches: Iterable[Batch]) -> Importance:
    """Run a model over batches and reduce its activations on the way; memory does not grow with their number.

    Args:
        model: Of a kind in `LAYOUTS`; read, never changed.
        batches: Of training examples; padded positions do not count.
    """
    base = cast(nn.Module, cast(Any, model).base_model)
    config = cast(Any, model).config
    layout = LAYOUTS[config.model_type]
    sums, device = _Sums(), next(model.parameters()).device
    hooks, was_training = _watch(base, layout, config.num_attention_heads, sums), model.training
    samples = 0
    try:
        model.eval()
        with torch.no_grad():
            for batch in batches:
                inputs = batch.to(device).inputs
                sums.mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).double()
                samples += len(sums.mask)
                base(**inputs)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    depth = range(config.num_hidden_layers)
    positions = sums.total.pop("positions")
    norms = {name.removeprefix("norm."): value for name, value in sums.total.items() if name.startswith("norm.")}
    return Importance(
        samples,
        hidden=torch.stack([value.sqrt() for value in norms.values()]).sum(dim=0),
        heads=torch.stack([sums.total[f"heads.{i}"].sqrt() for i in depth]),
        feed_forward=torch.stack([sums.total[f"feed_forward.{i}"].sqrt() for i in depth]),
        blocks=torch.stack([1 - sums.total[f"blocks.{i}"] / positions for i in depth]),
        energy={name: sums.total[f"energy.{name}"] / positions for name in norms},
    )


class _Sums:
    """Running sums by name, and which positions of the present batch count."""

    def __init__(self) -> None:
        self.mask = torch.ones(0, 0)  # (S, L)
        self.total: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        self.total[name] = self.total.get(name, torch.zeros_like(value, device="cpu")) + value.cpu()

    def per_sample(self, name: str, values: Tensor) -> None:
        """Sum over samples of the square of each one's mean; `values` are (S, L, N) and not negative."""
        weights = self.mask / self.mask.sum(dim=1, keepdim=True)
        self.add(name, torch.einsum("sl,sln->sn", weights, values.double()).square().sum(dim=0))

    def over_positions(self, name: str, values: Tensor) -> None:
        """Sum over all positions; `values` are (S, L, ...)."""
        self.add(name, torch.einsum("sl,sl...->...", self.mask, values.double()))


def _watch(base: nn.Module, layout: Layout, heads: int, sums: _Sums) -> list[Any]:
    def norm(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Tensor], out: Tensor) -> None:
            sums.per_sample(f"norm.{name}", out.abs())
            sums.over_positions(f"energy.{name}", given[0].double().square())

        return hook

    def units(index: int) -> Callable[..., None]:
        return lambda _, given: sums.per_sample(f"feed_forward.{index}", given[0].abs())

    def attention(index: int) -> Callable[..., None]:
        def hook(projection: nn.Linear, given: tuple[Tensor]) -> None:
            out = given[0].unflatten(-1, (heads, -1)).float()
            parts = projection.weight.float().unflatten(-1, (heads, -1))
            gram = torch.einsum("had,hae->ade", parts, parts)  # |W o|^2 = o' W'W o, without the product for every channel
            sums.per_sample(f"heads.{index}", torch.einsum("slad,ade,slae->sla", out, gram, out).clamp(min=0).sqrt())

        return hook

    def block(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Tensor], out: Any) -> None:
            after = out if isinstance(out, Tensor) else out[0]
            sums.over_positions(f"blocks.{index}", nn.functional.cosine_similarity(given[0].double(), after.double(), dim=-1))
            if index == 0:
                sums.add("positions", sums.mask.sum())

        return hook

    hooks: list[Any] = []
    for name, module in base.named_modules():
        if name.rpartition(".")[2] in layout.norms:
            hooks.append(module.register_forward_hook(norm(name)))
    for index, layer in enumerate(cast(Any, base.get_submodule(layout.layers))):
        hooks.append(layer.register_forward_hook(block(index)))
        hooks.append(layer.get_submodule(layout.heads).register_forward_pre_hook(attention(index)))
        hooks.append(layer.get_submodule(layout.feed_forward).register_forward_pre_hook(units(index)))
    return hooks


def _tensor(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _rounded(value: Tensor) -> Any:
    def shorten(item: Any) -> Any:
        return [shorten(each) for each in item] if isinstance(item, list) else float(f"{item:.{DIGITS}g}")

    return shorten(value.tolist())
