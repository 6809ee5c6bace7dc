"""Settings of a student: a shape, a size, a configuration or a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from conf.schema.base import Settings, setting

SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([kmb])", re.IGNORECASE)
UNITS = {"k": 10**3, "m": 10**6, "b": 10**9}
FEWEST = 1000  # parameters of a student
CONFIG = "a mapping with model_type, or the path of a config.json"
PARAMETERS = "a whole number, at least 1000, or a text such as 300k, 40m or 1.5b"


def parameters_of(text: str) -> int | None:
    """Number of parameters that a text such as `40m` or `1.5b` names; None where it is none."""
    match = SIZE.fullmatch(text.strip())
    return round(float(match[1]) * UNITS[match[2].lower()]) if match else None


def size_name(parameters: float) -> str:
    """The text that `parameters_of` reads as about so many parameters: two digits, such as `1.5b`, `40m`; three from 100 on, `300k`."""
    for name, unit in reversed(UNITS.items()):
        if parameters >= unit:
            number = parameters / unit
            return f"{number:.1f}".removesuffix(".0") + name if number < 9.95 else f"{number:.0f}{name}"
    return "1k"


class Shape(Settings):
    """The shape of a transformer. Vocabulary, classes and image size come from the data."""

    family: Literal["llama", "bert", "vit"] = setting("llama", "llama: causal LM; bert: text encoder; vit: image encoder")
    hidden_size: int = setting(..., "Width of the residual stream", "features", ge=2, le=65_536)
    layers: int = setting(..., "Number of transformer layers", "layers", ge=1, le=1_000)
    heads: int = setting(..., "Attention heads in a layer", "heads", ge=1, le=1_024)
    key_value_heads: int | None = setting(
        None, "Key and value heads (grouped-query attention); none: as many as heads", "heads", ge=1, le=1_024
    )
    head_dim: int | None = setting(None, "Width of a head (llama); none: hidden_size / heads", "features", ge=2, le=4_096)
    feed_forward: int = setting(..., "Width of the feed-forward part", "features", ge=2, le=1_048_576)
    tied_embeddings: bool = setting(True, "Share the input embedding with the output head (llama)")
    patch_size: int = setting(2, "Side of an image patch (vit)", "pixels", ge=1, le=4_096)

    @model_validator(mode="after")
    def _heads_divide(self) -> Shape:
        if self.head_dim is not None and self.family != "llama":
            raise ValueError(f"got head_dim {self.head_dim} and family {self.family!r}; allowed: head_dim for llama. Leave it out.")
        if self.hidden_size % self.heads:
            raise ValueError(
                f"got hidden_size {self.hidden_size} and heads {self.heads}; allowed: heads that divide hidden_size. Change one."
            )
        if self.family == "llama" and self.features_of_a_head % 2:
            raise ValueError(
                f"got hidden_size {self.hidden_size} and heads {self.heads}, so {self.features_of_a_head} features in a head; "
                "allowed: an even number, which rotary positions need. Change one."
            )
        if self.key_value_heads and self.heads % self.key_value_heads:
            raise ValueError(f"got heads {self.heads} and key_value_heads {self.key_value_heads}; allowed: a divisor of heads. Change one.")
        return self

    @property
    def features_of_a_head(self) -> int:
        """Width of a head."""
        return self.head_dim or self.hidden_size // self.heads

    @property
    def layer_parameters(self) -> int:
        """Weights of all layers' matrices, without embeddings and head."""
        queries = self.hidden_size * self.heads * self.features_of_a_head
        keys = self.hidden_size * (self.key_value_heads or self.heads) * self.features_of_a_head
        return self.layers * (2 * queries + 2 * keys + (3 if self.family == "llama" else 2) * self.hidden_size * self.feed_forward)


class Student(Settings):
    """The model that a stage trains: made from a shape, a number of parameters or a configuration, or an existing checkpoint."""

    source: Literal["new", "checkpoint"] = setting(
        "new", "new: made from shape, parameters or config; checkpoint: an existing model, trained on", added=True
    )
    shape: Shape | None = setting(None, "Shape of the student; of shape, parameters and config one is given")
    parameters: int | None = setting(
        None,
        "Number of parameters, embeddings included: the student is of the teacher's architecture and proportions (40m, 300k, 1.5b)",
        "parameters",
        identity=False,  # it becomes a shape or a configuration before anything is computed
        added=True,
        allowed=PARAMETERS,
        ge=FEWEST,
        le=10**12,
    )
    config: dict[str, Any] | str | None = setting(
        None,
        "Configuration of any architecture that transformers builds for the workload, with its model_type; or the path of a config.json",
        added=True,
        allowed=CONFIG,
    )
    path: str | None = setting(
        None,
        "Checkpoint of the student: a local folder, hub id, or `models:/...` (source checkpoint)",
        "path, id or URI",
        identity=False,  # its weights are
        added=True,
        min_length=1,
    )
    revision: str | None = setting(None, "Git revision of a hub checkpoint (source checkpoint)", "revision", identity=False, added=True)
    sha256: str | None = setting(
        None,
        "SHA-256 of the checkpoint's weights, or its beginning; none: not checked (source checkpoint)",
        "hexadecimal digits",
        added=True,
        allowed="8 to 64 lower-case hexadecimal digits, as text (quote them)",
        pattern=r"^[0-9a-f]{8,64}$",
    )
    initialisation: Literal["random", "layers", "prune"] = setting(
        "random",
        "random; layers: evenly spaced layers of the teacher; prune: the teacher's most important channels, heads and layers",
    )
    samples: int = setting(256, "Training sequences that importance is estimated from (prune)", "sequences", ge=1, le=1_000_000)
    vocabulary: Literal["teacher", "used"] = setting(
        "teacher", "teacher: every id of the tokenizer; used: the ids that the data use, all bytes and specials (causal-lm)"
    )

    vision: Literal["own", "kept", "frozen"] = setting(
        "own",
        "own: its own vision part; kept: the teacher's, copied and trained on; frozen: the same, not trained (image-text)",
        added=True,
    )

    @field_validator("config", mode="before")
    @classmethod
    def _mapping_or_path(cls, value: Any) -> Any:
        if not isinstance(value, str | None) and not (isinstance(value, dict) and all(isinstance(name, str) for name in value)):
            raise ValueError(f"got {value!r}; allowed: {CONFIG}. Give one of them.")
        return value

    @field_validator("parameters", mode="before")
    @classmethod
    def _read_size(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = parameters_of(value)
        if found is None:
            raise ValueError(f"got {value!r}; allowed: {PARAMETERS}. Write a number and k, m or b.")
        return found

    @model_validator(mode="after")
    def _one_origin(self) -> Student:
        given = [name for name in ("shape", "parameters", "config") if getattr(self, name) is not None]
        if self.source == "checkpoint":
            if self.path is None:
                raise ValueError("got source 'checkpoint' without a path; allowed: source checkpoint with path. Name its folder.")
            if given:
                raise ValueError(f"got a checkpoint and {given[0]}; allowed: one of them. Leave out {given[0]}, or source and path.")
            if self.initialisation != "random":
                raise ValueError(
                    f"got a checkpoint and initialisation {self.initialisation!r}; allowed: a checkpoint, which has first weights. "
                    "Leave out initialisation."
                )
            if self.vision == "kept":
                raise ValueError("got a checkpoint and vision 'kept'; allowed: own or frozen, as it has its own. Leave it out.")
            if self.vocabulary == "used":
                raise ValueError("got a checkpoint and vocabulary 'used'; allowed: teacher, as it has its own ids. Leave out vocabulary.")
            return self
        for name in ("path", "revision", "sha256"):
            if getattr(self, name) is not None:
                raise ValueError(f"got {name} without source; allowed: source: checkpoint with path. Add it, or leave out {name}.")
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"got {found}; allowed: one of shape, parameters and config, or source: checkpoint with path. Give one.")
        if isinstance(self.config, dict) and not isinstance(self.config.get("model_type"), str):
            raise ValueError(f"got config {self.config!r}; allowed: a mapping with model_type. Add it, such as model_type: qwen3.")
        if self.vision != "own" and isinstance(self.config, dict) and "vision_config" in self.config:
            raise ValueError(
                f"got vision {self.vision!r} and config.vision_config; allowed: one of them. The vision part is the teacher's."
            )
        if self.config is not None and self.initialisation == "prune":
            raise ValueError("got config and initialisation 'prune'; allowed: random or layers, for a config. Give a shape, or random.")
        if self.parameters is not None and (self.initialisation == "layers" or self.vocabulary == "used"):
            wrong = "initialisation 'layers'" if self.initialisation == "layers" else "vocabulary 'used'"
            raise ValueError(f"got parameters and {wrong}; allowed: a shape with it. Give the student's shape, or leave it out.")
        return self


def is_settled(student: Student) -> bool:
    """Whether a student can be made without a look at its teacher, at files or at the hub."""
    if student.source == "checkpoint":
        return student.sha256 is not None and len(student.sha256) == 64 and Path(str(student.path)).is_absolute()
    return student.shape is not None or isinstance(student.config, dict)
