"""Questions and text of `ladder init`."""

from __future__ import annotations

import typer

from tasks.setup.guesses import Question
from tasks.setup.init import NewLadder


class InitAnswers:
    """Answers questions: on a terminal by a person, else by the likeliest answer, which is noted."""

    def __init__(self, asks: bool) -> None:
        self.asks = asks
        self.taken: list[str] = []

    def __call__(self, question: Question) -> str:
        """The answer to a question."""
        names = [name for name, _ in question.choices]
        if not self.asks:
            self.taken.append(f"{question.key}: took {names[0]!r} of {', '.join(names)}, without asking; edit the file to change it")
            return names[0]
        typer.echo(question.text)
        for number, (name, why) in enumerate(question.choices, 1):
            typer.echo(f"  {number}. {name}: {why}")
        number = typer.prompt("Number", default=1, type=int)
        return names[min(max(int(number), 1), len(names)) - 1]


def init_text(made: NewLadder, taken: list[str]) -> str:
    """Findings, guesses with their reasons, and the file."""
    draft = made.draft
    lines = [f"teacher   {made.teacher.words()}", f"data      {made.data.words()}", ""]
    shown = {key: reason for key, reason in draft.reasons.items() if key not in ("teacher", "data")}
    values = {key: _value(draft.settings, key) for key in shown}
    lines += [f"{key}: {values[key]}  because: {reason}" for key, reason in shown.items()]
    lines += [f"note: {note}" for note in (*taken, *draft.warnings)]
    return "\n".join([*lines, "", f"Written to {made.file}:", "", made.text])


def _value(settings: object, key: str) -> str:
    from conf.loading.yaml_output import in_one_line

    for part in key.split("."):
        settings = settings[part] if isinstance(settings, dict) and part in settings else {}
    return in_one_line(settings) if settings else ""
