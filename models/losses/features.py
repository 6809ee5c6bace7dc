"""Losses on hidden states and on relations of the last attention layer.

Shape legend: B examples, L positions, H_s and H_t widths of the hidden states, A heads, E features of a head.

Both models run unchanged; hooks keep the tensors. Projectors are trained beside the student, belong to the optimiser and to the
checkpoints of a training, and are no part of the student's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from conf.errors import UserError
from conf.schema.stage.objective import Feature
from models.data.batches import IGNORE, Batch
from models.losses.divergences import forward_kl

QUERY_KEY_VALUE = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))


def hidden_loss(student: Tensor, teacher: Tensor, form: str) -> Tensor:
    """Distance of hidden states: `1 - cos(h_s, h_t)`, or their mean squared difference over the features.

    TinyBERT, Jiao et al. 2020, arXiv:1909.10351 (MSE through a learned projection); DistilBERT, Sanh et al. 2019, arXiv:1910.01108
    (cosine).

    Args:
        student: (..., H), projected to the teacher's width.
        teacher: (..., H).
        form: `cosine` or `mse`.

    Returns:
        (...) values, in [0, 2] for `cosine`, >= 0 for `mse`.
    """
    if form == "cosine":
        return 1 - functional.cosine_similarity(student, teacher, dim=-1)
    return (student - teacher).pow(2).mean(-1)


def relation_loss(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], heads: int, mask: Tensor) -> Tensor:
    """KL of `softmax(X Y^T / sqrt(E))` between teacher and student, meaned over heads, in nats.

    MiniLM, Wang et al. 2020, arXiv:2002.10957: X, Y are queries and keys (attention relation), or both values (value relation). The
    features are cut into `heads` heads for either model, so their own numbers of heads may differ (MiniLMv2, arXiv:2012.15828).

    Args:
        student: X and Y, each (B, L, features).
        teacher: Likewise, with its own number of features.
        heads: A; divides both models' features.
        mask: (B, L) bool, False at padding, which no position looks at.

    Returns:
        (B, L) values >= 0.
    """

    def relation(pair: tuple[Tensor, Tensor]) -> Tensor:
        x, y = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in pair)
        scores = x @ y.transpose(-1, -2) / x.shape[-1] ** 0.5
        return scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min)

    return forward_kl(relation(teacher), relation(student)).mean(1)


class Features(nn.Module):
    """The feature losses of a training: hooks on both models, and the projectors."""

    def __init__(self, settings: Sequence[Feature], student: nn.Module, teacher: nn.Module, seed: int) -> None:
        super().__init__()
        self.settings = tuple(settings)
        self._seen: list[dict[str, Tensor]] = [{}, {}]
        wanted = {each.kind for each in settings}
        widths = [_width(model) for model in (student, teacher)] if "hidden" in wanted else []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projectors = nn.ModuleList(nn.Linear(*widths, bias=False) for each in settings if each.kind == "hidden")
        self.heads = _heads(student) if "minilm" in wanted else 1
        for model, seen in zip((student, teacher), self._seen, strict=True):
            if "hidden" in wanted:
                cast(Any, model).base_model.register_forward_hook(_keeps_hidden(seen))
            if "minilm" in wanted:
                _watch_attention(model, seen, self.heads)

    def loss(self, batch: Batch) -> Tensor:
        """Weighted sum of the losses over the batch that both models have just seen; () with gradient.

        Causal-lm: summed over valid positions. Classification: meaned over an example's positions, padding apart, and summed over
        examples. Either way, dividing by the step's valid rows gives a mean.
        """
        device = batch.targets.device
        with torch.autocast(device.type, enabled=False):
            return sum((each.weight * self._one(index, batch) for index, each in enumerate(self.settings)), torch.zeros((), device=device))

    def _one(self, index: int, batch: Batch) -> Tensor:
        each, (student, teacher) = self.settings[index], self._seen
        if each.kind == "hidden":
            number = [other.kind for other in self.settings[:index]].count("hidden")
            projected, wanted = self.projectors[number](student["hidden"].float()), teacher["hidden"].float()
            if projected.shape != wanted.shape:
                raise UserError.about(
                    f"objective.features[{index}].kind",
                    "hidden",
                    f"models with as many positions; the teacher has {wanted.shape[1]}, the student {projected.shape[1]}",
                    "Give both the same patch_size, or leave the feature out.",
                )
            values = hidden_loss(projected, wanted, each.form)
            return _summed(values, batch)
        mask = _mask(student["query"].shape[:2], batch)
        kept = [{name: value.float() for name, value in seen.items() if name != "hidden"} for seen in (student, teacher)]
        pairs = [((s["query"], s["key"]), (s["value"], s["value"])) for s in kept]
        return sum((_summed(relation_loss(s, t, self.heads, mask), batch) for s, t in zip(*pairs, strict=True)), torch.zeros(()))


def _width(model: nn.Module) -> int:
    """Features of a model's states.

    Raises:
        UserError: They differ from part to part, as in a network of convolutions.
    """
    width = getattr(cast(Any, model).config, "hidden_size", None)
    if not isinstance(width, int):
        allowed = f"models whose states have one width; not {type(model).__name__}"
        raise UserError.about("objective.features.kind", "hidden", allowed, "Leave the feature out.")
    return width


def _heads(student: nn.Module) -> int:
    """Heads of a student's attention.

    Raises:
        UserError: It has none.
    """
    heads = getattr(cast(Any, student).config, "num_attention_heads", None)
    if not isinstance(heads, int):
        allowed = f"encoders with attention (BERT, ViT); not {type(student).__name__}"
        raise UserError.about("objective.features.kind", "minilm", allowed, "Leave the feature out.")
    return heads


def _keeps_hidden(seen: dict[str, Tensor]) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        seen["hidden"] = output.last_hidden_state

    return hook


def _keeps(seen: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen[name] = output

    return hook


def _watch_attention(model: nn.Module, seen: dict[str, Tensor], heads: int) -> None:
    causal = any(getattr(module, "is_causal", False) for module in model.modules())
    for names in QUERY_KEY_VALUE:
        layers = [module for name, module in model.named_modules() if name.split(".")[-1] in names and isinstance(module, nn.Linear)]
        if causal or not layers or layers[-1].out_features % heads:
            kind = type(model).__name__ + (f" with {layers[-1].out_features} attention features" if layers else "")
            raise UserError.about(
                "objective.features.kind",
                "minilm",
                f"encoders with query, key and value layers (BERT, ViT) whose width the student's {heads} heads divide; not {kind}",
                "Use hidden, or other widths.",
            )
        layers[-1].register_forward_hook(_keeps(seen, names[0]))


def _mask(shape: torch.Size, batch: Batch) -> Tensor:
    """(B, L) bool: positions of text or image, not of padding."""
    if "attention_mask" in batch.inputs:
        return batch.inputs["attention_mask"].bool()
    return torch.ones(shape, dtype=torch.bool, device=batch.targets.device)


def _summed(values: Tensor, batch: Batch) -> Tensor:
    """Sum over rows that count of (B, L) values: positions of a causal LM, or examples, each the mean of its positions."""
    if batch.targets.ndim == 2:
        return values[batch.targets != IGNORE].sum()
    mask = _mask(values.shape, batch)
    means = (values * mask).sum(-1) / mask.sum(-1).clamp(min=1)
    return means[batch.targets != IGNORE].sum()
