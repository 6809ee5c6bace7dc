"""Settings of `data.generate`: texts that a teacher writes, and which are kept."""

from __future__ import annotations

import re
from string import Formatter
from typing import Literal

from pydantic import field_validator, model_validator
from pydantic_core import PydanticCustomError

from conf.schema.base import Settings, setting
from conf.secrets import masked


class Endpoint(Settings):
    """A language model behind OpenAI's API, as OpenAI, vLLM, llama.cpp and `ladder serve-model` offer it."""

    url: str = setting(
        ...,
        "Address of the API without user and password, such as http://127.0.0.1:8000/v1",
        "URL",
        allowed="an address that begins with http:// or https:// and holds no user, password, question mark or space",
        pattern=r"^https?://[^\s@?#]+$",
    )
    model: str = setting(..., "Name of the model there", "name", min_length=1)
    api: Literal["completions", "chat"] = setting("completions", "completions: a prompt is a text; chat: it is a person's message")
    key: str = setting(
        "OPENAI_API_KEY",
        "Environment variable that holds the API key, which is in no record and no log; none: the server needs no key",
        "variable",
        identity=False,
        allowed="the name of an environment variable that ends in _API_KEY",
        pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$",
    )
    timeout: float = setting(120.0, "Longest wait for one answer", "seconds", identity=False, gt=0, le=86_400)
    retries: int = setting(
        5, "Further tries after no answer, 429, 5xx or an answer that cannot be read", "tries", identity=False, ge=0, le=100
    )
    concurrency: int = setting(4, "Requests at once", "requests", identity=False, ge=1, le=1024)
    requests_per_minute: float | None = setting(None, "Most requests a minute; none: no limit", "requests", identity=False, gt=0, le=1e6)
    price_in: float = setting(0.0, "Price of input tokens", "currency/million tokens", identity=False, ge=0, le=1e9)
    price_out: float = setting(0.0, "Price of output tokens", "currency/million tokens", identity=False, ge=0, le=1e9)

    @field_validator("url", mode="before")
    @classmethod
    def _no_password(cls, value: object) -> object:
        """Refuse an address with a password before a message could repeat it."""
        if isinstance(value, str) and "@" in value:
            words = f"got {masked(value)!r}; allowed: an address without user and password. Put the key into the variable that `key` names."
            raise PydanticCustomError("value_error", "{words}", {"words": words})
        return value


class Prompts(Settings):
    """Prompts: a line of a text file is one, and so is a row of a table."""

    paths: tuple[str, ...] = setting(
        ..., "Files or glob patterns: .txt, and tables; relative ones count from the ladder's YAML file", "paths", min_length=1
    )
    template: str = setting(
        "{prompt}",
        'Text of a prompt, with columns of a table in braces, such as "Question: {question}\\nAnswer:"; a line of a text file is {prompt}',
        "text",
    )
    learned: str | None = setting(
        None,
        "Text of the prompt in the row that is learned, where the teacher is asked in other words, such as to think step by step; none: "
        "that of `template`",
        "text",
        added=True,
    )
    reference: str | None = setting(
        None, "Column with the right answer, for `selection.reference` and the student's failures", "column name"
    )
    most: int | None = setting(None, "Use at most this many prompts, drawn by `seed`; none: all", "prompts", ge=1, le=10**9)

    @field_validator("template", "learned")
    @classmethod
    def _columns_in_braces(cls, value: str | None) -> str | None:
        if value is not None and not fields_of(value):
            raise ValueError(f'got {value!r}; allowed: a text with a column in braces, such as "Question: {{question}}". Add one.')
        return value

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that the templates name."""
        return tuple(dict.fromkeys((*fields_of(self.template), *fields_of(self.learned or ""))))


def fields_of(template: str) -> tuple[str, ...]:
    """The columns that a template names in braces, each once; a doubled brace is a brace.

    Raises:
        ValueError: A brace is open, or holds more than a name.
    """
    found: dict[str, None] = {}
    for _, name, form, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name or form or conversion or any(letter in name for letter in ".[]{}"):
            raise ValueError(f"got {template!r}; allowed: names of columns in braces, and doubled braces for braces. Correct it.")
        found[name] = None
    return tuple(found)


class Perplexity(Settings):
    """Bounds of the perplexity of an answer under a model, its prompt given."""

    model: str = setting(
        "student",
        "student: of the last round, so nothing is dropped in the first one; else a checkpoint's folder, or `package:NAME`",
        "path",
        min_length=1,
    )
    least: float = setting(1.0, "Answers of a lower perplexity teach the model nothing", "perplexity", ge=1, le=1e12)
    most: float = setting(1e12, "Answers of a higher one are nonsense to it", "perplexity", ge=1, le=1e12)


class Selection(Settings):
    """Rules that drop answers; each counts what it dropped."""

    min_length: int = setting(1, "Shortest answer, without the space around it", "characters", ge=1, le=10**7)
    max_length: int | None = setting(None, "Longest answer; none: no limit", "characters", ge=1, le=10**7)
    unfinished: Literal["drop", "keep"] = setting("drop", "Answers that `max_tokens` cut off")
    max_repeated: float = setting(
        0.5, "Largest share of an answer's runs of four words, or twelve letters, that stand in it before", "fraction", gt=0, le=1
    )
    duplicates: float | None = setting(
        0.8,
        "Similarity (Jaccard's, of runs of three words) from which on an answer counts as a near duplicate; none: equal ones alone",
        "fraction",
        gt=0.3,
        lt=1,
    )
    agreement: float | None = setting(
        None,
        "Least share of a prompt's samples that give the same answer, of which one is kept; none: all samples are kept",
        "fraction",
        gt=0,
        le=1,
    )
    reference: bool = setting(False, "Drop answers that are not the one in `prompts.reference`")
    answer: str | None = setting(
        None,
        "Regular expression whose last group, or match, is the answer in a text, where answers are compared; none: the whole text",
        "pattern",
    )
    perplexity: Perplexity | None = setting(None, "Bounds of perplexity; none: not computed")
    function: str | None = setting(
        None,
        "A function (prompt, completion) -> bool that decides which rows are kept, listed by its module in `LADDER_FILTERS`",
        "package:function",
        allowed="package.module:function",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
    )

    @field_validator("answer")
    @classmethod
    def _a_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"got {value!r}; allowed: a regular expression of Python's. It says: {error}. Correct it.") from None
        return value


class Generate(Settings):
    """Answers that a teacher writes to prompts, which join the training documents; see docs/how-to/generate.md."""

    endpoint: Endpoint | None = setting(None, "A model behind OpenAI's API that writes; none: the ladder's root teacher")
    prompts: Prompts = setting(..., "The prompts")
    samples: int = setting(1, "Answers to each prompt, with seeds of their own", "answers", ge=1, le=1000)
    max_tokens: int = setting(128, "Longest answer", "tokens", ge=1, le=1_048_576)
    temperature: float = setting(1.0, "Divisor of the logits; 0 takes the most probable token", "ratio", ge=0, le=2)
    top_p: float = setting(1.0, "Probability of the nucleus that is sampled from", "probability", gt=0, le=1)
    stop: tuple[str, ...] = setting((), "Texts that end an answer and do not belong to it", "texts", max_length=4)
    rationale_before: str | None = setting(
        None,
        'Text such as "Answer:": of an answer, what stands before its last occurrence is the rationale (data.columns.rationale), and what '
        "follows is learned as the answer; none: all is the answer",
        "text",
        added=True,
        min_length=1,
    )
    seed: int = setting(0, "Seed of the draws; each answer has its own, of this number, its prompt and its sample", "seed", ge=0, lt=2**31)
    batch_size: int = setting(16, "Answers that the root teacher writes at once", "answers", identity=False, ge=1, le=4096)
    selection: Selection = setting(Selection(), "Rules that drop answers")
    weight: float = setting(1.0, "Times that a row is read in an epoch; 2.5: twice, and half of them once more", "times", gt=0, le=100)
    rounds: int = setting(
        1,
        "Rounds; after each the first stage's student is trained and answers, and the prompts that it gets wrong, or where it is "
        "farthest from its teacher, are the next ones",
        "rounds",
        ge=1,
        le=100,
    )
    per_round: int | None = setting(
        None, "Prompts of a round, where there are several; none: an equal share of all", "prompts", ge=1, le=10**9
    )
    held: int = setting(
        100, "Prompts that only judge the students of rounds, at most half of all; drawn by `seed`", "prompts", ge=1, le=10**6
    )
    least_gain: float = setting(
        0.01,
        "Smallest gain of a round's student on held prompts that makes another round worth its price: of the share of right answers where "
        "there is `prompts.reference`, else of the loss on the teacher's answers, in nats a token",
        "score",
        ge=0,
        le=10,
    )
    max_held_out: float = setting(
        0.01, "Largest share of prompts that hold held-out documents; these are left out, a larger share is refused", "fraction", ge=0, le=1
    )
    max_repeating: float = setting(
        0.5, "Largest share of answers that repeat themselves; a teacher with a larger one is refused", "fraction", gt=0, le=1
    )

    @model_validator(mode="after")
    def _rules_have_what_they_compare(self) -> Generate:
        rules = self.selection
        if rules.reference and self.prompts.reference is None:
            raise ValueError("selection.reference: got true; allowed: with prompts.reference. Name the column of the right answers there.")
        if rules.agreement is not None and self.samples < 2:
            raise ValueError(f"selection.agreement: got {rules.agreement}; allowed: with samples of 2 or more. Raise samples.")
        return self
