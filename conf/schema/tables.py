"""Settings of tables: their columns, given splits, further rows."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator, model_validator

from conf.schema.base import Settings, setting

PROMPT = "{prompt}"  # in `columns.rationale_prompt`


class Columns(Settings):
    """Names of the columns in tabular data."""

    text: str = setting("text", "Column that holds the text of a document", "column name")
    label: str = setting("label", "Column that holds the class of an example", "column name")
    slice: str | None = setting(None, "Column that groups examples for reporting per slice; none: one slice", "column name")
    image: str = setting("image", "Column that holds the image of an example, or the path of its file", "column name")
    messages: str | None = setting(
        None, "Column that holds a conversation, a list of {role, content}, in place of `text` (causal-lm)", "column name", added=True
    )
    prompt: str | None = setting(
        None, "Column that holds a prompt, whose answer is in `completion`, in place of `text` (causal-lm)", "column name", added=True
    )
    completion: str | None = setting(None, "Column that holds the answer to `prompt`; it alone is learned", "column name", added=True)
    rationale: str | None = setting(
        None,
        "Column that holds the reasoning behind `completion`, which training rows teach as a second task (objective.rationale); none: "
        "answers alone",
        "column name",
        added=True,
    )
    rationale_prompt: str = setting(
        f"{PROMPT}\nReasoning:\n", f"Prompt of the second task; {PROMPT} stands for the row's own prompt", "text", added=True
    )

    @model_validator(mode="after")
    def _a_prompt_has_a_completion(self) -> Columns:
        if (self.prompt is None) != (self.completion is None) or (self.prompt is not None and self.messages is not None):
            given = ", ".join(name for name in ("messages", "prompt", "completion") if getattr(self, name) is not None)
            raise ValueError(f"got {given}; allowed: messages, or prompt and completion. Add or drop one.")
        if self.rationale is not None and self.prompt is None:
            raise ValueError(
                f"rationale: got {self.rationale!r}; allowed: with prompt and completion, which it explains. Name them, or leave it out."
            )
        if self.rationale_prompt.count(PROMPT) != 1 or not self.rationale_prompt.replace(PROMPT, "").strip():
            raise ValueError(
                f"rationale_prompt: got {self.rationale_prompt!r}; allowed: {PROMPT} once, with words that tell the task from that of the "
                "answer. Correct it."
            )
        return self

    @property
    def conversations(self) -> bool:
        """Whether rows are conversations, or prompts with completions, and not texts."""
        return self.messages is not None or self.prompt is not None

    def explained(self, prompt: str) -> str:
        """The prompt of the second task, which asks for the reasoning behind the answer to a prompt."""
        before, _, after = self.rationale_prompt.partition(PROMPT)
        return before + prompt + after


class Splits(Settings):
    """Splits that the data come with, kept as they are; where valid or test is missing, it is drawn from train by hash.

    Either `train`, `valid` and `test` name files (source files) or the splits of a dataset, or `column` names a column with the words
    train, valid (also validation, val, dev) and test.
    """

    train: tuple[str, ...] = setting((), "Files or dataset splits to train on", "paths or names")
    valid: tuple[str, ...] = setting((), "Files or dataset splits to validate and evaluate on; none: drawn from train", "paths or names")
    test: tuple[str, ...] = setting((), "Files or dataset splits kept apart for final proofs; none: drawn from train", "paths or names")
    column: str | None = setting(None, "Column that holds the name of each row's split", "column name")

    @field_validator("train", "valid", "test", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _names_or_column(self) -> Splits:
        if (self.column is not None) == bool(self.train) or (self.column is not None and (self.valid or self.test)):
            given = [name for name in ("train", "valid", "test", "column") if getattr(self, name)]
            raise ValueError(
                f"got {' and '.join(given) or 'none of them'}; allowed: train, with or without valid and test, or column alone."
            )
        return self

    def named(self) -> dict[str, tuple[str, ...]]:
        """Split -> its files or dataset splits, without empty ones; nothing where a column decides."""
        return {name: given for name in ("train", "valid", "test") if (given := getattr(self, name))}


class TransferRows(Settings):
    """Rows of tables that train and are never held out, such as requests of a served model."""

    paths: tuple[str, ...] = setting(..., "Tables or glob patterns; relative ones count from the ladder's YAML file", "paths", min_length=1)
    columns: Columns | None = setting(None, "Names of their columns; none: those of `data.columns`")
    weight: float = setting(1.0, "Times that they are read in an epoch; 2.5: twice, and half of them once more", "times", gt=0, le=100)


class ScoredPairs(Settings):
    """Tables of pairs of texts with a score of their likeness, by which embeddings are judged; nothing trains on them."""

    paths: tuple[str, ...] = setting(..., "Tables or glob patterns; relative ones count from the ladder's YAML file", "paths", min_length=1)
    first: str = setting("sentence1", "Column of the first text", "column name", min_length=1)
    second: str = setting("sentence2", "Column of the second text", "column name", min_length=1)
    score: str = setting("score", "Column of the score: the higher, the more alike, on any scale", "column name", min_length=1)
