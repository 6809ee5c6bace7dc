"""A student of a given number of parameters: its teacher's architecture, smaller.

Width and depth shrink alike, so that a student keeps its teacher's proportions: as many times narrower as it is shorter, the same width
of a head, the same number of queries to a key head, the same ratio of the feed-forward part. Heads become narrower only where no student
of that size has a whole one. The feed-forward part is then fitted until the model, counted on the meta device, has the number wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from conf.errors import UserError, foreign_errors
from conf.schema.stage.student import Shape
from models.architectures.configs import fitted_config, without_ignored
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from models.embeddings.pooling import pool_like
from models.students.resized import Sizes, feed_forward_name, kept_settings, resized

TOLERANCE = 0.03  # of the number of parameters
CLOSE = 0.005  # wanted of a feed-forward width that is a round number
NARROWEST = 8  # features of a head, or units of a feed-forward part
# Architectures that a `Shape` describes, by model_type.
SHAPED: dict[str, Literal["llama", "bert", "vit"]] = {"llama": "llama", "bert": "bert", "vit": "vit"}
ROUND = (64, 32, 16, 8, 4, 2, 1)  # multiples of a feed-forward width, the rounder the better
TRIED = 12  # of the best candidates, counted on the meta device


@dataclass(frozen=True)
class Family:
    """An architecture in any size.

    Attributes:
        teacher: The configuration whose architecture it is.
        interface: Inputs and outputs that the data need.
        key: Dotted key of the student in the settings.
        as_shape: Whether a `Shape` describes it.
    """

    teacher: Any
    interface: Interface
    key: str
    as_shape: bool

    @property
    def sizes(self) -> Sizes:
        """The teacher's."""
        config = self.teacher
        heads = config.num_attention_heads
        groups = getattr(config, "num_key_value_heads", None) or heads
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        name = feed_forward_name(config)
        wide = None if name is None else getattr(config, name) or 4 * config.hidden_size
        return Sizes(config.hidden_size, config.num_hidden_layers, heads, groups, head, wide)

    def settings(self, sizes: Sizes) -> Shape | dict[str, Any]:
        """The student's settings: a shape, or a configuration with all that the teacher's sets."""
        if self.as_shape:
            assert sizes.feed_forward is not None
            return Shape(
                family=SHAPED.get(self.teacher.model_type, "llama"),
                hidden_size=sizes.width,
                layers=sizes.layers,
                heads=sizes.heads,
                key_value_heads=None if sizes.groups == sizes.heads else sizes.groups,
                head_dim=None if sizes.head * sizes.heads == sizes.width else sizes.head,
                feed_forward=sizes.feed_forward,
                tied_embeddings=bool(getattr(self.teacher, "tie_word_embeddings", True)),
                patch_size=getattr(self.teacher, "patch_size", None) or 2,
            )
        return resized(self.teacher, self.sizes, sizes)

    def config(self, sizes: Sizes) -> Any:
        """The student's configuration."""
        made = self.settings(sizes)
        shaped = isinstance(made, Shape)
        config = config_for(made, self.interface) if shaped else fitted_config(made, self.interface, f"{self.key}.config")
        if self.interface.workload == "embedding":
            pool_like(config, self.teacher)
        return config

    def parameters(self, sizes: Sizes) -> int:
        """All parameters, a tied matrix once; counted without memory.

        Raises:
            UserError: transformers builds no model of the teacher's settings, such as an activation that it does not know.
        """
        config, found = self.config(sizes), f"the {self.teacher.model_type} settings of the teacher"
        remedy, key = "Correct the teacher's config.json.", f"{self.key}.parameters"
        with foreign_errors(key, found, "settings that transformers builds a model of", remedy), torch.device("meta"):
            return sum(p.numel() for p in build(config, self.interface.workload).parameters())


def student_of_size(teacher: Any, parameters: int, interface: Interface, key: str, *, prune: bool = False) -> Shape | dict[str, Any]:
    """The settings of a student with so many parameters, within 3 %.

    Args:
        teacher: Configuration of the model whose architecture and proportions it has.
        parameters: Wanted, embeddings included.
        interface: Inputs and outputs that the data need.
        key: Dotted key of the student in the settings, for error messages.
        prune: Whether it is cut out of the teacher, which needs a shape.

    Returns:
        A shape where one describes the architecture, else a configuration.

    Raises:
        UserError: The architecture has no heads or layers to take away, or no such size.
    """
    from models.students.importance import LAYOUTS

    kind = teacher.model_type
    if _widths(teacher):
        return _narrower(teacher, parameters, interface, key)
    if not all(isinstance(getattr(teacher, name, None), int) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")):
        remedy = "Describe the student by config: or name a checkpoint."
        allowed = f"a size, where the teacher is a transformer with heads and layers; it is of type {kind}"
        raise UserError.about(f"{key}.parameters", parameters, allowed, remedy)
    family = Family(teacher, interface, key, kind in SHAPED or (prune and kind in LAYOUTS))
    ranked = sorted(_candidates(family, parameters), key=lambda pair: pair[0])
    nearest: tuple[int, Sizes] | None = None
    for _, sizes in ranked[:TRIED]:
        counted = family.parameters(sizes)
        if abs(counted / parameters - 1) <= TOLERANCE:
            return family.settings(sizes)
        if nearest is None or abs(counted - parameters) < abs(nearest[0] - parameters):
            nearest = counted, sizes
    words = f"nearest is {nearest[0]:,}" if nearest else f"the smallest has {family.parameters(_smallest(family)):,}"
    allowed = f"a number of parameters that a {kind} with these data can have; {words}"
    ids = f" Its {interface.vocabulary:,} ids take a part of them." if interface.vocabulary else ""
    raise UserError.about(f"{key}.parameters", parameters, allowed, f"Choose another, or give a shape.{ids}")


def _smallest(family: Family) -> Sizes:
    theirs = family.sizes
    head, width = _narrowings(theirs)[-1]
    queries = theirs.heads // theirs.groups
    return Sizes(queries * width, 1, queries, 1, head, None if theirs.feed_forward is None else NARROWEST)


def _narrowings(theirs: Sizes) -> list[tuple[int, int]]:
    """Features of a head and of the residual stream for each head: the teacher's, then by halves."""
    found, head, width = [], theirs.head, theirs.width // theirs.heads
    while not found or (head >= NARROWEST and width >= NARROWEST and not head % 2):
        found.append((head, width))
        head, width = head // 2, width // 2
    return found


def _candidates(family: Family, parameters: int) -> Iterator[tuple[float, Sizes]]:
    """Sizes near a number of parameters, each with how far it is from the teacher's proportions (0: not at all)."""
    theirs = family.sizes
    queries = theirs.heads // theirs.groups
    for halvings, (head, width) in enumerate(_narrowings(theirs)):
        law = _law(family, head, width, queries)
        for groups in range(1, theirs.width // (width * queries) + 1):
            heads = groups * queries
            fixed, layer, unit = (sum(c * groups**power for power, c in enumerate(row)) for row in law)
            for layers in range(1, theirs.layers + 1):
                wide = None
                if theirs.feed_forward is not None:
                    wide = _fitted((parameters - fixed - layers * layer) / max(layers * unit, 1e-9), layers * unit, parameters)
                    if wide is None:
                        continue
                counted = fixed + layers * (layer + unit * (wide or 0))
                if abs(counted / parameters - 1) > TOLERANCE:
                    continue
                depth, breadth = layers / theirs.layers, heads * width / theirs.width
                bend = abs(math.log(depth / breadth)) + 0.7 * halvings + 20 * abs(counted / parameters - 1)
                if wide is not None and theirs.feed_forward is not None:
                    ratio = wide / (heads * width) * theirs.width / theirs.feed_forward
                    bend += 1.5 * abs(math.log(ratio))
                    if not 0.4 < ratio < 2.5:
                        continue
                yield bend, Sizes(heads * width, layers, heads, groups, head, wide)


def _fitted(wide: float, each: float, parameters: int) -> int | None:
    """A feed-forward width near `wide`, as round as the number of parameters allows; None where it would be none."""
    for multiple in ROUND:
        found = round(wide / multiple) * multiple
        if found >= NARROWEST and (abs(found - wide) * each <= CLOSE * parameters or multiple == 1):
            return found
    return None


def _law(family: Family, head: int, width: int, queries: int) -> list[tuple[float, float, float]]:
    """Coefficients by the powers of the groups of heads: of the parts that are there once, of a layer, of a feed-forward unit of a layer.

    Parameters are of degree 2 in the width, and linear in layers and in units; nine models on the meta device give all coefficients.
    """
    rows = []
    for groups in (1, 2, 3):
        base = Sizes(groups * queries * width, 1, groups * queries, groups, head, None if family.sizes.feed_forward is None else 8)
        one, two = family.parameters(base), family.parameters(base._replace(layers=2))
        unit = 0.0 if base.feed_forward is None else (family.parameters(base._replace(feed_forward=16)) - one) / 8
        layer = two - one - 8 * unit
        rows.append((one - layer - 8 * unit, layer, unit))
    law = []
    for y1, y2, y3 in zip(*rows, strict=True):
        square = (y3 - 2 * y2 + y1) / 2
        slope = y2 - y1 - 3 * square
        law.append((y1 - slope - square, slope, square))
    return law


def _widths(teacher: Any) -> list[int]:
    """The widths of the stages of a network of convolutions; empty for any other."""
    sizes = getattr(teacher, "hidden_sizes", None)
    return list(sizes) if sizes and not isinstance(getattr(teacher, "num_attention_heads", None), int) else []


def _narrower(teacher: Any, parameters: int, interface: Interface, key: str) -> dict[str, Any]:
    """A network of convolutions as deep as the teacher, all widths smaller by one factor."""

    def settings(factor: float) -> dict[str, Any]:
        narrow = {"hidden_sizes": [max(2 * round(width * factor / 2), 2) for width in _widths(teacher)]}
        if getattr(teacher, "embedding_size", None):
            narrow["embedding_size"] = max(2 * round(teacher.embedding_size * factor / 2), 2)
        return without_ignored({**kept_settings(teacher), **narrow, "model_type": teacher.model_type})

    def counted(factor: float) -> int:
        with torch.device("meta"):
            model = build(fitted_config(settings(factor), interface, f"{key}.config"), interface.workload)
        return sum(p.numel() for p in model.parameters())

    least, most = 0.0, 1.0
    for _ in range(12):
        factor = (least + most) / 2
        least, most = (factor, most) if counted(factor) < parameters else (least, factor)
    best = min((least, most), key=lambda factor: abs(counted(factor) - parameters))
    if abs(counted(best) / parameters - 1) > TOLERANCE:
        allowed = f"a number of parameters that a {teacher.model_type} with these data can have; nearest is {counted(best):,}"
        raise UserError.about(f"{key}.parameters", parameters, allowed, "Choose another, or give a config.")
    return settings(best)
