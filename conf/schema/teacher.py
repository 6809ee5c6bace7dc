"""Settings of the root teacher: trained here, a checkpoint, or its answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from conf.schema.base import Choices, Settings, setting
from conf.schema.stage.objective import ClassWeights, class_weights, plain_class_weights, rationale_weight
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training


class TrainedTeacher(Settings):
    """A root teacher trained here, from labels alone."""

    source: Literal["train"] = setting("train", "train: train the teacher here")
    shape: Shape = setting(..., "Shape of the teacher")
    training: Training = setting(..., "Steps, optimizer, validation")
    allow_poor: Literal["trial", True, False] = setting(
        "trial",
        "Let it teach though it is no better than the majority class (classification) or unigram frequencies (causal-lm); trial: after "
        "fewer than 100 steps, or less than an epoch, alone",
        identity=False,
        added=True,
        allowed="trial, true or false",
    )
    class_weights: ClassWeights = class_weights("Weights of classes in its cross-entropy (classification), as objective.class_weights")
    rationale: float | None = rationale_weight("Weight of rationales in its training, as objective.rationale")
    keep: tuple[float, ...] = setting(
        (),
        "Shares of its training after which its weights are kept, the early checkpoints of stages with teachers: checkpoints",
        "fraction of steps",
        added=True,
        max_length=100,
    )

    _plain_class_weights = field_validator("class_weights", mode="before")(plain_class_weights)

    @field_validator("keep")
    @classmethod
    def _moments_in_turn(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share < 1 for share in value) or sorted(set(value)) != list(value):
            raise ValueError(f"got {list(value)}; allowed: rising numbers between 0 and 1, such as [0.1, 0.3]. Correct it.")
        return value

    @model_validator(mode="after")
    def _kept_of_a_whole_training(self) -> TrainedTeacher:
        if self.keep and self.training.patience is not None:
            raise ValueError(
                f"training.patience: got {self.training.patience}; allowed: none, with teacher.keep, whose shares are of a training of "
                "known length. Leave one of them out."
            )
        return self


class CheckpointTeacher(Settings):
    """An existing root teacher: any Hugging Face checkpoint with safetensors weights, or a GGUF file."""

    source: Literal["checkpoint"] = setting("checkpoint", "checkpoint: use an existing model")
    path: str = setting(
        ...,
        "Local folder, `.gguf` file, `package:NAME` (the model in an installed package), hub id, or MLflow URI `models:/...`",
        "path, package, id or URI",
        min_length=1,
    )
    revision: str | None = setting(None, "Git revision of a hub checkpoint", "revision")
    sha256: str | None = setting(
        None,
        "SHA-256 of the GGUF file, or of a folder's weights, or its beginning; none: not checked",
        "hexadecimal digits",
        allowed="8 to 64 lower-case hexadecimal digits, as text (quote them)",
        pattern=r"^[0-9a-f]{8,64}$",
    )
    shape: Shape | None = setting(None, "Its shape, so that `plan` works before the checkpoint is available", identity=False)
    training: Training | None = setting(
        None,
        "Train all its weights on the data before it teaches, with a new head where it has none for their classes; none: as it is",
        added=True,
    )
    classes: tuple[str, ...] | None = setting(
        None,
        "Names of its classes as the data call them, in the order of its outputs; none: those of its config.json",
        "names",
        identity=False,  # the classes are in the identity of the data
        added=True,
    )
    allow_poor: bool = setting(
        False,
        "Let it teach though it is no better than the majority class (classification) or unigram frequencies (causal-lm)",
        identity=False,
        added=True,
    )
    class_weights: ClassWeights = class_weights(
        "Weights of classes in its cross-entropy where it is trained on (classification), as objective.class_weights"
    )
    rationale: float | None = rationale_weight("Weight of rationales where it is trained on, as objective.rationale")

    _plain_class_weights = field_validator("class_weights", mode="before")(plain_class_weights)

    @model_validator(mode="after")
    def _class_weights_need_training(self) -> CheckpointTeacher:
        if self.class_weights != "none" and self.training is None:
            raise ValueError(
                f"class_weights: got {self.class_weights!r}; allowed: none, where the checkpoint teaches as it is. "
                "Set training, or leave it out."
            )
        if self.rationale is not None and self.training is None:
            raise ValueError(
                f"rationale: got {self.rationale:g}; allowed: none, where the checkpoint teaches as it is. Set training, or leave it out."
            )
        return self


class AnswersTeacher(Settings):
    """Answers of a teacher that is not here: class probabilities of texts or images, or top-k log-probabilities of the ids of documents."""

    source: Literal["answers"] = setting("answers", "answers: use stored answers of a model")
    path: str = setting(..., "Parquet file with a row for each text or image; relative to the ladder's YAML file", "path", min_length=1)
    text: str = setting("text", "Column of the texts, which are matched with those of the data", "column name", min_length=1)
    image: str = setting(
        "image",
        "Column of the images, which are matched with those of the data by their pixels: bytes, paths that count from the Parquet file, or "
        "for digits scikit-learn's numbers (image-classification)",
        "column name",
        added=True,
        min_length=1,
    )
    classes: tuple[str, ...] = setting(
        (),
        "Names of the classes, and of the columns of their probabilities, unless `probabilities` is set (classification)",
        "names",
    )
    probabilities: str | None = setting(None, "Column with a list of all probabilities; none: a column for each class", "column name")
    ids: str = setting("ids", "Column with a list of ids for each predicted position of the text (causal-lm)", "column name", added=True)
    logprobs: str = setting("logprobs", "Column with the log-probabilities of these ids (causal-lm)", "column name", added=True)
    tokenizer: str | None = setting(
        None, "Folder of the tokenizer of the model that gave the answers, for tokenizer.kind teacher (causal-lm)", "path", added=True
    )
    parameters: int = setting(..., "Size of the model that gave the answers, for reports", "parameters", ge=1, le=10**14)
    allow_poor: bool = setting(
        False,
        "Let it teach though it is no better than the majority class (classification) or unigram frequencies (causal-lm)",
        identity=False,
    )

    @property
    def shape(self) -> None:
        """None: nothing is known of it."""

    @property
    def training(self) -> None:
        """None: it is not trained here."""


Teacher = Annotated[TrainedTeacher | CheckpointTeacher | AnswersTeacher, Field(discriminator="source"), Choices()]
