"""Guess which columns of a table hold the texts, classes and conversations."""

from __future__ import annotations

from collections.abc import Sequence

from conf.errors import UserError
from conf.schema.ladder import Workload
from conf.schema.workloads import has_classes
from models.data.classes import fold
from tasks.data.reading.labels import stands_for_none
from tasks.setup.data_look import ColumnLook, DataLook
from tasks.setup.guesses import Ask, Draft, Question
from tasks.setup.teacher_look import TeacherLook, has_tokenizer, shown

TEXT_NAMES = ("text", "content", "body", "review", "sentence", "document", "message", "comment", "description", "question", "title")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "stars", "rating", "kind", "y")
PROMPT_NAMES = ("prompt", "instruction", "question")
ANSWER_NAMES = ("completion", "response", "answer", "output")
RATIONALE_NAMES = ("rationale", "reasoning", "explanation", "chain_of_thought", "solution", "steps")
MOST_CLASSES = 100


def choose_columns(teacher: TeacherLook, data: DataLook, workload: Workload, ask: Ask, draft: Draft) -> dict[str, str]:
    """The columns of a table by their role, with the reasons in the draft; empty where the data are no table."""
    if not data.columns:
        return {}
    chosen: dict[str, str] = {}
    content = "image" if workload == "image-classification" else "text"
    if workload == "causal-lm" and (found := _conversations(data, draft)):
        _chat_template(teacher, found, draft)
        return found
    if content == "image":
        chosen["image"] = next(column.name for column in data.columns if column.kind == "image")
    else:
        chosen["text"] = _pick("text", _text_candidates(data), TEXT_NAMES, ask)
    if has_classes(workload):
        labels = [column for column in label_candidates(data, teacher) if column.name not in chosen.values()]
        if not labels:
            found = ", ".join(column.name for column in data.columns)
            raise UserError.about("--data", found, "a column with classes", "No column has between 2 and 100 values that repeat: add one.")
        matching = [column for column in labels if _matches(column, teacher)]
        chosen["label"] = _pick("label", matching or labels, LABEL_NAMES, ask)
        _say_classes(next(column for column in labels if column.name == chosen["label"]), teacher, draft)
        rest = [f"{c.name} ({c.distinct} values)" for c in labels if c.name != chosen["label"] and not c.is_split]
        if rest:
            draft.reasons["data.columns"] += f"; slice: may name another column: {shown(rest)}"
    return chosen


def marks_of_none(data: DataLook, label: str | None) -> list[str]:
    """Values of the column of labels that programs write for a row without one, such as -100."""
    values = [value for column in data.columns if column.name == label for value, _ in column.values]
    return [value for value in values if stands_for_none(value)]


def _conversations(data: DataLook, draft: Draft) -> dict[str, str]:
    """The columns of conversations, or of prompts and completions; none where the data hold plain text."""
    names = {column.name.casefold(): column for column in data.columns}
    chats = [column.name for column in data.columns if column.kind == "messages"]
    if chats:
        draft.reasons["data.columns"] = f"{chats[0]!r} holds conversations; the assistant's answers alone are learned"
        return {"messages": chats[0]}
    prompt = next((names[name] for name in PROMPT_NAMES if name in names and names[name].kind == "text"), None)
    answer = next((names[name] for name in ANSWER_NAMES if name in names and names[name].kind == "text"), None)
    if prompt is None or answer is None:
        return {}
    draft.reasons["data.columns"] = f"{answer.name!r} answers {prompt.name!r}, and alone is learned"
    found = {"prompt": prompt.name, "completion": answer.name}
    reasons = next((names[name] for name in RATIONALE_NAMES if name in names and names[name].kind == "text"), None)
    if reasons is None:
        return found
    draft.reasons["data.columns"] = f"{answer.name!r} answers {prompt.name!r}; the reasoning in {reasons.name!r} is a second task"
    return {**found, "rationale": reasons.name}


def _chat_template(teacher: TeacherLook, columns: dict[str, str], draft: Draft) -> None:
    """Say where a conversation needs a template that the teacher's tokenizer does not have."""
    if teacher.folder is None or "messages" not in columns:
        return
    from models.data import tokenizers

    if has_tokenizer(teacher.folder) and tokenizers.load(teacher.folder).chat_template is None:
        draft.warnings.append(
            "the teacher's tokenizer has no chat template: set tokenizer.chat_template to the one that it was trained with"
        )


def _text_candidates(data: DataLook) -> list[ColumnLook]:
    found = [column for column in data.columns if column.kind == "text" and not column.is_split]
    if not found:
        names = ", ".join(f"{column.name} ({column.kind})" for column in data.columns)
        raise UserError.about("--data", names, "a column of text", "There is none: name other data.")
    long = [column for column in found if not column.values] or found
    return sorted(long, key=lambda column: -column.length)


def label_candidates(data: DataLook, teacher: TeacherLook) -> list[ColumnLook]:
    """Columns whose values repeat, those first whose values are the teacher's classes, then those with a usual name."""
    fitting = [column for column in data.columns if 2 <= column.distinct <= MOST_CLASSES and column.values and not column.is_split]
    return sorted(fitting, key=lambda column: (not _matches(column, teacher), *_usual(column, LABEL_NAMES), column.distinct))


def _usual(column: ColumnLook, names: Sequence[str]) -> tuple[int]:
    name = column.name.casefold()
    return (names.index(name) if name in names else len(names),)


def _matches(column: ColumnLook, teacher: TeacherLook) -> bool:
    """Whether a column holds the teacher's classes by name."""
    theirs = {fold(name) for name in teacher.classes}
    return bool(theirs) and {fold(value) for value in classes_of(column)} == theirs


def classes_of(column: ColumnLook) -> list[str]:
    """Its values without those that stand for no label."""
    return [value for value, _ in column.values if not stands_for_none(value)]


def _pick(role: str, candidates: Sequence[ColumnLook], usual: Sequence[str], ask: Ask) -> str:
    """The column of a role; asked where several could be it and the usual names do not tell."""
    ranked = sorted(candidates, key=lambda column: _usual(column, usual))
    first = ranked[0]
    if len(ranked) == 1 or _usual(first, usual) < _usual(ranked[1], usual):
        return first.name
    choices = tuple((column.name, _about(column)) for column in ranked)
    return ask(Question(f"data.columns.{role}", f"Which column holds the {role}?", choices))


def _about(column: ColumnLook) -> str:
    values = shown([value for value, _ in column.values])
    return f"{column.distinct} values: {values}" if column.values else f"{column.length:,.0f} characters on average"


def _say_classes(column: ColumnLook, teacher: TeacherLook, draft: Draft) -> None:
    names = classes_of(column)
    text = f"{column.name!r} holds {len(names)} classes: {shown(sorted(names))}"
    if teacher.workload == "sequence-classification" or teacher.is_vision:
        count = int(teacher.config.num_labels)
        if _matches(column, teacher):
            text += ", the teacher's"
        elif count != len(names):
            theirs = f": {shown(teacher.classes)}" if teacher.classes else ""
            draft.warnings.append(f"{text}, and the teacher has {count}{theirs}: the run refuses that unless it is trained on these")
    draft.reasons["data.columns"] = text
