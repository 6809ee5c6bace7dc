"""Keep the answers that pass the rules; each rule counts what it drops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from conf.errors import UserError, reason_of
from conf.schema.generate import Generate, Selection
from models.generation.writers import WrittenAnswer
from tasks.generation.prompts import Prompt, plain
from tasks.generation.rules import Keep, NearDuplicates, answer_in, majority, parted, repeated
from tasks.records.choice.generation import KeptSample
from tasks.records.format import percent

SHOWN, LETTERS = 3, 400  # samples of each rule in a record, and characters of each text
FEW = 8  # answers from which on a teacher can be refused
Perplexities = Callable[[Sequence[tuple[str, str]]], Sequence[float]]  # of completions after their prompts


@dataclass(frozen=True)
class ChosenRow:
    """A prompt and an answer."""

    prompt: Prompt
    text: str


@dataclass
class Selected:
    """The rows that are kept, and the others by rule."""

    rows: list[ChosenRow] = field(default_factory=list)
    dropped: dict[str, list[ChosenRow]] = field(default_factory=dict)

    def drop(self, rule: str, row: ChosenRow) -> None:
        """Count a row as dropped."""
        self.dropped.setdefault(rule, []).append(row)

    @property
    def counts(self) -> dict[str, int]:
        """Rule -> rows."""
        return {rule: len(rows) for rule, rows in self.dropped.items()}

    def samples(self) -> tuple[KeptSample, ...]:
        """A few rows that were kept, and a few of each rule."""
        shown = [(None, self.rows), *self.dropped.items()]
        return tuple(
            KeptSample(prompt=row.prompt.text[-LETTERS:], text=row.text[:LETTERS], rule=rule)
            for rule, rows in shown
            for row in rows[:SHOWN]
        )


def select(
    settings: Generate,
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[WrittenAnswer]],
    function: Keep | None = None,
    perplexities: Perplexities | None = None,
) -> Selected:
    """Apply all rules.

    Args:
        settings: With the rules.
        prompts: All that were asked.
        answers: Of each prompt, its samples.
        function: The user's filter.
        perplexities: Of the model that `selection.perplexity` names; None: not computed.

    Raises:
        UserError: The teacher repeats itself in too many answers, no answer is left, or the user's function fails.
    """
    rules, made = settings.selection, Selected()
    written = sum(answer.finish != "refused" and bool(answer.text.strip()) for samples in answers for answer in samples)
    groups = [_single(rules, prompt, samples, made, settings.rationale_before) for prompt, samples in zip(prompts, answers, strict=True)]
    loops = len(made.dropped.get("repeating", ()))
    if written >= FEW and loops > settings.max_repeating * written:
        found = f"{loops:,} of {written:,} answers ({percent(loops / written)}) that repeat themselves"
        worst = made.dropped["repeating"][0].text[:80]
        remedy = f"Raise temperature, take a better teacher, or raise selection.max_repeated. One of them begins {worst!r}."
        raise UserError.about("data.generate", found, f"at most {percent(settings.max_repeating)}", remedy)
    rows: list[ChosenRow] = []
    for kept, asked in zip(groups, map(len, answers), strict=True):
        rows += _agreed(rules, kept, asked, made, settings.rationale_before)
    made.rows = _filtered(_distinct(rules, rows, made), function, made)
    if rules.perplexity is not None and perplexities is not None:
        made.rows = list(_within(rules, made.rows, _judged(perplexities, made.rows, settings.rationale_before), made))
    if not made.rows:
        counts = ", ".join(f"{count:,} {rule}" for rule, count in made.counts.items())
        hint = " The answers are cut at max_tokens: raise it, or set selection.unfinished=keep." if "unfinished" in made.counts else ""
        raise UserError.about(
            "data.generate.selection", f"rules that drop every answer ({counts})", "rules that keep some", f"Relax them.{hint}"
        )
    return made


def _single(rules: Selection, prompt: Prompt, samples: Iterable[WrittenAnswer], made: Selected, mark: str | None) -> list[ChosenRow]:
    """The samples of a prompt that pass the rules of single answers."""
    kept = []
    for answer in samples:
        text = answer.text.strip()
        if answer.finish == "refused":
            rule = "refused"
        elif not text:
            rule = "empty"
        elif repeated(text) > rules.max_repeated:
            rule = "repeating"
        elif answer.finish == "length" and rules.unfinished == "drop":
            rule = "unfinished"
        elif len(text) < rules.min_length:
            rule = "short"
        elif rules.max_length is not None and len(text) > rules.max_length:
            rule = "long"
        elif mark is not None and not (mark in text and parted(text, mark)[1].strip()):
            rule = "unparted"
        elif rules.reference and not _is_right(rules, prompt, parted(text, mark)[1]):
            rule = "wrong"
        else:
            kept.append(ChosenRow(prompt, answer.text))
            continue
        made.drop(rule, ChosenRow(prompt, answer.text))
    return kept


def _is_right(rules: Selection, prompt: Prompt, text: str) -> bool:
    return prompt.reference is not None and answer_in(text, rules.answer) == answer_in(prompt.reference, None)


def _agreed(rules: Selection, rows: list[ChosenRow], asked: int, made: Selected, mark: str | None) -> list[ChosenRow]:
    """The rows of a prompt: all samples, or one of those that agree where enough of all samples that were asked for do."""
    if rules.agreement is None or not rows:
        return rows
    answers = [answer_in(parted(row.text, mark)[1], rules.answer) for row in rows]
    answer, _ = majority(answers)
    agree = answers.count(answer)
    if not answer or agree / asked < rules.agreement:
        for row in rows:
            made.drop("disagreeing", row)
        return []
    chosen = answers.index(answer)
    for place, row in enumerate(rows):
        if place != chosen:
            made.drop("spare" if answers[place] == answer else "outvoted", row)
    return [rows[chosen]]


def _distinct(rules: Selection, rows: Iterable[ChosenRow], made: Selected) -> list[ChosenRow]:
    """The rows without those that equal an earlier one, or nearly do; what a prompt says counts, its template does not."""
    seen, kept = set[tuple[str, str]](), list[ChosenRow]()
    near = NearDuplicates(rules.duplicates) if rules.duplicates is not None else None
    for row in rows:
        key = (plain(row.prompt.text), plain(row.text))
        if key in seen:
            made.drop("equal", row)
        elif near is not None and near.is_like_another(" ".join((*row.prompt.values, row.text))):
            made.drop("near duplicate", row)
        else:
            seen.add(key)
            kept.append(row)
    return kept


def _filtered(rows: Sequence[ChosenRow], function: Keep | None, made: Selected) -> list[ChosenRow]:
    if function is None:
        return list(rows)
    kept = []
    for row in rows:
        try:
            keep = bool(function(row.prompt.text, row.text))
        except Exception as error:  # a user's function raises what it likes
            remedy = f"It raised {type(error).__name__}: {reason_of(error)}."
            raise UserError.about("data.generate.selection.function", row.text[:80], "texts that it takes", remedy) from error
        if keep:
            kept.append(row)
        else:
            made.drop("function", row)
    return kept


def _judged(perplexities: Perplexities, rows: Sequence[ChosenRow], mark: str | None) -> Sequence[float]:
    """Perplexities of what a student would learn: its own wording of the prompt, the answer without its rationale, and the end."""
    return perplexities([(row.prompt.row, parted(row.text, mark)[1]) for row in rows])


def _within(rules: Selection, rows: Sequence[ChosenRow], found: Sequence[float], made: Selected) -> Iterable[ChosenRow]:
    assert rules.perplexity is not None
    for row, perplexity in zip(rows, found, strict=True):
        if perplexity < rules.perplexity.least:
            made.drop("too easy", row)
        elif not perplexity <= rules.perplexity.most:
            made.drop("too strange", row)
        else:
            yield row
