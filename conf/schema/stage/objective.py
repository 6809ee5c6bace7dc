"""Settings of the objective: divergence, temperature, alpha and features."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema

from conf.schema.base import Settings, setting

ObjectiveKind = Literal[
    "forward-kl", "reverse-kl", "jsd", "skew-kl", "skew-reverse-kl", "tvd", "dkd", "logit-mse", "taid", "cosine", "mse", "similarity-kl"
]
# Restrictions of a kind, which `conf.schema.stage.compatibility` checks; a kind in none suits all workloads, and dense and top-k signals.
CLASSIFICATION_ONLY: tuple[ObjectiveKind, ...] = ("logit-mse",)
EMBEDDING_ONLY: tuple[ObjectiveKind, ...] = ("cosine", "mse", "similarity-kl")  # compare embeddings, and serve no other workload
DENSE_ONLY: tuple[ObjectiveKind, ...] = ("dkd", "logit-mse", *EMBEDDING_ONLY)  # need the probability of the label, or every number
# Compare the numbers' own size: no z-scores, no mean of probabilities.
SOFTMAX_FREE: tuple[ObjectiveKind, ...] = ("logit-mse", *EMBEDDING_ONLY)
WHOLE_BATCH: tuple[ObjectiveKind, ...] = ("similarity-kl",)  # compare each row with the others of its batch
Alignment = Literal["none", "bytes", "uld", "text"]
LONGEST = 10**6  # relative length of a teacher's time


class Schedule(Settings):
    """A value over the course of training: constant, or from start to end along half a cosine. A bare number is a constant."""

    kind: Literal["constant", "cosine"] = setting("constant", "constant: start throughout; cosine: from start to end")
    start: float = setting(..., "Value at the first step")
    end: float | None = setting(None, "Value at the last step (cosine)")

    @model_validator(mode="before")
    @classmethod
    def _number_is_constant(cls, value: Any) -> Any:
        return value if isinstance(value, dict | Schedule) else {"start": value}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler(core)
        start = handler.resolve_ref_schema(whole)["properties"]["start"]
        number = {key: start[key] for key in start if key in ("type", "minimum", "maximum", "exclusiveMinimum")}
        return {"anyOf": [{"title": "constant", **number}, {**whole, "title": "course"}]}

    @model_validator(mode="after")
    def _cosine_needs_an_end(self) -> Schedule:
        if (self.kind == "cosine") != (self.end is not None):
            given = f"an end of {self.end:g}" if self.end is not None else "no end"
            raise ValueError(f"got kind {self.kind!r} with {given}; allowed: cosine with an end, constant without. Add or drop the end.")
        return self


class Alpha(Schedule):
    """Weight of the teacher in the loss; the labels weigh 1 - alpha."""

    start: float = setting(..., "Weight of the teacher at the first step", "fraction", ge=0, le=1)
    end: float | None = setting(None, "Weight of the teacher at the last step (cosine)", "fraction", ge=0, le=1)


class Temperature(Schedule):
    """Temperature by which teacher and student logits are divided."""

    start: float = setting(..., "Temperature at the first step", "ratio", ge=0.01, le=100)
    end: float | None = setting(None, "Temperature at the last step (cosine)", "ratio", ge=0.01, le=100)


class Feature(Settings):
    """A loss on hidden states or attention relations of student and teacher; see docs/explanation/objectives.md."""

    kind: Literal["hidden", "minilm"] = setting(
        "hidden", "hidden: last hidden states, through a projector that is discarded; minilm: relations of the last attention (encoders)"
    )
    weight: float = setting(1.0, "Weight beside the loss of the answers", "ratio", gt=0, le=1e4)
    form: Literal["cosine", "mse"] = setting("cosine", "cosine: 1 - cos; mse: mean squared difference (hidden)")


ClassWeights = Literal["none", "balanced"] | dict[str, float]
CLASS_WEIGHTS = "none, balanced, or a mapping of class names to numbers above 0"


def class_weights(text: str) -> Any:
    """The setting of weights of classes in the cross-entropy."""
    return setting("none", text, "ratio", added=True, allowed=CLASS_WEIGHTS)


def rationale_weight(text: str) -> Any:
    """The setting of the weight of rationales in a training."""
    return setting(None, text, "ratio", added=True, ge=0, le=1e3)


def weight_of_rationales(given: float | None) -> float:
    """The weight that a setting of it stands for."""
    return 1.0 if given is None else given


def plain_class_weights(value: Any) -> Any:
    """A mapping with its names as texts, which YAML may have read as numbers; the weights checked."""
    if not isinstance(value, dict):
        return value
    wrong = [name for name, weight in value.items() if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0]
    if wrong or not value:
        raise ValueError(f"got {value!r}; allowed: {CLASS_WEIGHTS}. Correct it.")
    return {str(name): float(weight) for name, weight in value.items()}


class Objective(Settings):
    """The loss `(1 - alpha) CE + alpha T^2 D(teacher, student)`; see docs/explanation/method.md and docs/explanation/objectives.md."""

    kind: ObjectiveKind = setting(
        "forward-kl", "Divergence between teacher and student; for embedding cosine (where none is set), mse or similarity-kl"
    )
    alpha: Alpha = setting(Alpha(start=0.9), "Weight of the teacher: a number, or {kind: cosine, start, end}", "fraction")
    temperature: Temperature = setting(Temperature(start=1.0), "Temperature: a number, or {kind: cosine, start, end}", "ratio")
    beta: float = setting(0.5, "The teacher's side of the divergence; 0: forward KL, 1: reverse KL (jsd)", "fraction", ge=0, le=1)
    skew: float = setting(0.1, "Share mixed into the second distribution (skew-kl, skew-reverse-kl)", "fraction", ge=0, lt=1)
    target_weight: float = setting(1.0, "Weight of the label's probability (dkd)", "ratio", ge=0, le=1e3)
    other_weight: float = setting(8.0, "Weight of the other classes (dkd)", "ratio", ge=0, le=1e3)
    alignment: Alignment = setting(
        "none",
        "For a root teacher with another tokenizer than the students': bytes: its probabilities of the same bytes; uld: its sorted "
        "probabilities where both tokenizations have a boundary; text: it is not asked, its texts are the labels; none: there is none "
        "(causal-lm)",
        added=True,
    )
    standardize: bool = setting(False, "Compare z-scores of each row's logits instead of logits; temperature 2 suits them")
    combine: Literal["sum", "mean"] = setting(
        "sum", "Several teachers: sum: mean of the divergences to each; mean: divergence to the mean of their probabilities"
    )
    keep: float = setting(0.75, "Several teachers: probability with which each is kept in a step", "probability", gt=0, le=1)
    handover: tuple[float, ...] = setting(
        (),
        "Curriculum of teachers (teachers rising or checkpoints): relative lengths of their phases; none: equal",
        "ratio",
        added=True,
        max_length=120,
    )
    wrong_teacher: Literal["none", "correct-only", "confidence-gate", "correct"] = setting(
        "none",
        "Where the teacher's first choice is not the label: none: follow it; correct-only: do not; confidence-gate: weight each row by the "
        "teacher's probability of the label; correct: move probability to the label first",
    )
    margin: float = setting(0.2, "Lead of the label over the teacher's first choice (correct)", "probability", ge=0, lt=1)
    features: tuple[Feature, ...] = setting((), "Losses on hidden states or attention relations", "losses")
    class_weights: ClassWeights = class_weights(
        "Weights of classes in the cross-entropy (classification): balanced: rows / (classes x rows of the class); or by name, 1 for others"
    )

    rationale: float | None = rationale_weight(
        "Weight of the mean loss over the tokens of rationales (data.columns.rationale) beside that over the answers'; 0: answers alone; "
        "none: 1 where the data hold rationales"
    )

    _plain_class_weights = field_validator("class_weights", mode="before")(plain_class_weights)

    def of_labels(self, smoothing: float = 0.0) -> Objective:
        """The objective of a control without teachers, with the same weights of classes and rationales."""
        return Objective(alpha=Alpha(start=smoothing), class_weights=self.class_weights, rationale=self.rationale)

    @field_validator("handover")
    @classmethod
    def _time_is_positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < length <= LONGEST for length in value):
            raise ValueError(f"got {list(value)}; allowed: numbers above 0, at most {LONGEST:,}, one for each teacher. Correct it.")
        return value
