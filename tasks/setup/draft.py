"""Guess a ladder from a teacher and data, with the reason of each guess."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conf.errors import UserError
from conf.loading.short_forms import nameless_sources
from conf.schema.ladder import Workload
from conf.schema.stage.student import parameters_of, size_name
from tasks.records.format import human
from tasks.setup.columns import LABEL_NAMES, choose_columns, label_candidates, marks_of_none
from tasks.setup.data_look import ColumnLook, DataLook
from tasks.setup.guesses import Ask, Draft, Question
from tasks.setup.teacher_look import TeacherLook, has_tokenizer, shown

FEW_ROWS = 5_000  # of which the usual share held out is too few
RATIO = 3.0  # between the sizes of stages where none are given
WINDOW, LONGEST = 256, 512  # tokens: of a window of packed documents, and at most of a text that is one example
BATCH = 32
EPOCHS = {"causal-lm": 1, "sequence-classification": 3, "image-classification": 10, "embedding": 3}
TRAIN_SHARE = 0.9  # of the data
STEPS = (100, 5000)  # least and most


def draft_ladder(name: str, teacher: TeacherLook, data: DataLook, sizes: Sequence[str], ask: Ask) -> Draft:
    """Guess the settings.

    Args:
        name: Of the ladder.
        teacher: The teacher.
        data: The data.
        sizes: Numbers of parameters of the stages, such as `40m`; none: chosen.
        ask: Answers a question.

    Raises:
        UserError: Teacher and data do not go together.
    """
    draft = Draft({"name": name})
    workload = _workload(teacher, data, ask, draft)
    draft.settings["workload"] = workload
    draft.settings["teacher"] = _teacher(teacher, workload, draft)
    if isinstance(draft.settings["teacher"], dict) and workload != "image-classification":
        draft.settings["tokenizer"] = {"kind": "teacher"}  # which the short form of a teacher implies
    length = _data(teacher, data, workload, ask, draft)
    draft.settings["stages"] = _stages(teacher, sizes, draft)
    draft.settings["defaults"] = {"training": _training(data, workload, length, draft), "gate": {"policy": "warn"}}
    draft.reasons["defaults.gate"] = "with a bound such as min_parent_retention: 0.9, policy: stop ends a run that misses it"
    if workload == "embedding":
        draft.settings["defaults"]["objective"] = {"kind": "cosine"}
        draft.reasons["defaults.objective"] = "pulls each embedding to the teacher's; similarity-kl compares texts with one another instead"
        draft.reasons["data.pairs"] = "pairs of texts with a score, {paths: [pairs.csv]}, judge each model by the rank of its cosines"
    elif workload != "causal-lm":
        draft.settings["defaults"]["objective"] = {"alpha": 0.7, "temperature": 2.0}
        draft.reasons["defaults.objective"] = "alpha weighs the teacher, 1 - alpha the labels"
    return draft


def _workload(teacher: TeacherLook, data: DataLook, ask: Ask, draft: Draft) -> Workload:
    labels = label_candidates(data, teacher)
    if teacher.is_vision or data.has_images:
        if not (teacher.is_vision and data.has_images):
            found = "reads images, and the data hold none" if teacher.is_vision else "reads text, and the data hold images"
            raise UserError.about("--teacher", teacher.path, "a teacher for these data", f"A {teacher.kind} {found}.")
        draft.reasons["workload"] = f"{teacher.kind} reads images"
        return "image-classification"
    if teacher.workload == "sequence-classification":
        draft.reasons["workload"] = f"the teacher is a {teacher.kind}"
        return "sequence-classification"
    if teacher.workload == "embedding":
        draft.reasons["workload"] = f"the teacher's folder is one of sentence-transformers ({teacher.kind} with pooling)"
        if labels and labels[0].name.casefold() in LABEL_NAMES:
            choices = (
                ("embedding", "the teacher gives embeddings, and does as it is"),
                ("sequence-classification", f"the data have classes in {labels[0].name!r}; the teacher would be trained on them"),
            )
            if ask(Question("workload", "Which task shall the models learn?", choices)) == "sequence-classification":
                draft.reasons["workload"] = f"chosen, as the data have classes in {labels[0].name!r}"
                return "sequence-classification"
        return "embedding"
    if teacher.workload is None:  # an encoder without a head
        draft.reasons["workload"] = f"the teacher is a {teacher.kind}, an encoder, which classifies once it has a head"
        return "sequence-classification"
    draft.reasons["workload"] = f"the teacher is a language model ({teacher.kind})"
    if labels and labels[0].name.casefold() in LABEL_NAMES:
        choices = (
            ("causal-lm", "the teacher predicts the next token, and does as it is"),
            ("sequence-classification", f"the data have classes in {labels[0].name!r}; the teacher would be trained on them"),
        )
        answer = ask(Question("workload", "Which task shall the models learn?", choices))
        if answer == "sequence-classification":
            draft.reasons["workload"] = f"chosen, as the data have classes in {labels[0].name!r}"
            return "sequence-classification"
    return "causal-lm"


def _teacher(teacher: TeacherLook, workload: Workload, draft: Draft) -> Any:
    draft.reasons["teacher"] = teacher.words()
    if teacher.workload == workload:
        return teacher.path
    lacks = f"a {teacher.kind} has no head for {workload}"
    draft.reasons["teacher.training"] = f"{lacks}: one is made for the data's classes, and the teacher trained on them first"
    return {"source": "checkpoint", "path": teacher.path, "training": {"steps": 500, "batch_size": BATCH, "learning_rate": 5e-5}}


def _data(teacher: TeacherLook, data: DataLook, workload: Workload, ask: Ask, draft: Draft) -> int:
    """Settings of the data; returns the tokens of a sequence."""
    draft.reasons["data"] = data.words()
    if shipped := nameless_sources().get(data.source):
        if workload not in shipped.workloads:
            serves = " and ".join(shipped.workloads)
            raise UserError.about("--data", data.source, f"data for {workload}", f"It serves {serves}: name other data.")
        draft.settings["data"] = data.source
        return WINDOW
    settings: dict[str, Any] = {"source": data.source}
    if data.parts:
        settings["splits"] = {name: list(paths) for name, paths in data.parts.items()}
        draft.reasons["data.splits"] = "as the files are named; missing parts are drawn from train"
    else:
        settings |= {"paths": list(data.given)} if data.source == "files" else {"name": data.given[0]}
    columns = choose_columns(teacher, data, workload, ask, draft)
    if columns:
        settings["columns"] = columns
    if marks := marks_of_none(data, columns.get("label")):
        settings["unlabelled"] = marks
        draft.reasons["data.unlabelled"] = "programs write it for a row without label; the teacher alone labels such rows"
    for name in columns.values():
        lacking = sum(name not in row for row in data.sample)
        if lacking:
            draft.warnings.append(f"{lacking:,} of {len(data.sample):,} rows that were looked at have no column {name!r}")
    for column in data.columns:
        if column.is_split and not data.parts:
            _split(column, settings, draft)
    if workload != "causal-lm" and "splits" not in settings and data.rows < FEW_ROWS:
        settings |= {"valid_fraction": 0.2, "test_fraction": 0.1}
        draft.reasons["data.valid_fraction"] = f"a twentieth of {data.rows:,} rows would be few to judge by"
    length = 2
    if workload != "image-classification":
        read = [name for role, name in columns.items() if role not in ("label", "slice")] or ["text"]
        packed = workload == "causal-lm" and "text" in (columns or {"text": ""})
        length = settings["sequence_length"] = _length(teacher, data, data.texts(*read), packed, draft)
    draft.settings["data"] = settings
    return length


def _split(column: ColumnLook, settings: dict[str, Any], draft: Draft) -> None:
    words = shown([f"{value} ({count})" for value, count in column.values])
    settings["splits"] = {"column": column.name}
    draft.reasons["data.splits"] = f"{column.name!r} names the parts: {words}"


def _length(teacher: TeacherLook, data: DataLook, texts: list[str], packed: bool, draft: Draft) -> int:
    """Tokens of a sequence: those of 95 % of the texts, or a usual window where texts are packed, as far as the teacher goes."""
    usual = WINDOW if packed else LONGEST
    most = min(usual, teacher.positions or usual)
    sizes = _tokens(teacher, texts)
    if not sizes:
        draft.reasons["data.sequence_length"] = "a usual window"
        return most
    ordered = sorted(sizes)
    at = ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)]
    estimated = "" if teacher.folder is not None else ", estimated by their bytes"
    draft.reasons["data.sequence_length"] = (
        f"95 % of {len(ordered):,} texts have at most {at:,} tokens, the longest {ordered[-1]:,}{estimated}"
    )
    if packed:
        total = sum(sizes) * data.rows // max(len(sizes), 1)
        while most > 16 and total < 200 * most:  # few windows teach little
            most //= 2
        return most
    return min(max(8 * -(-at // 8), 16), most)


def _tokens(teacher: TeacherLook, texts: Sequence[str], most: int = 300) -> list[int]:
    few = list(texts[:most])
    if teacher.folder is None or teacher.vocabulary is None:
        return [len(text.encode()) // 4 + 1 for text in few]
    from models.data import tokenizers

    if not has_tokenizer(teacher.folder):
        return [len(text.encode()) + 1 for text in few]
    loaded = tokenizers.load(teacher.folder)
    return [len(ids) for ids in loaded([text[:20000] for text in few])["input_ids"]] if few else []


def _stages(teacher: TeacherLook, sizes: Sequence[str], draft: Draft) -> list[str]:
    if sizes:
        for size in sizes:
            number = parameters_of(size)
            if number is None:
                raise UserError.about("--to", size, "numbers of parameters such as 40m,12m", "Write each as a number and k, m or b.")
            if number > teacher.parameters:
                allowed = f"fewer than the {human(teacher.parameters)} parameters of the teacher"
                raise UserError.about("--to", size, allowed, "Name smaller students.")
        draft.reasons["stages"] = "as asked"
        return [size.strip().lower() for size in sizes]
    draft.reasons["stages"] = f"each about {RATIO:g} times smaller than the one above"
    return [size_name(teacher.parameters / RATIO**step) for step in (1, 2)]


def _training(data: DataLook, workload: Workload, length: int, draft: Draft) -> dict[str, Any]:
    packed = workload == "causal-lm" and _is_packed(draft.settings["data"])
    epochs = EPOCHS["causal-lm" if packed else "sequence-classification" if workload == "causal-lm" else workload]
    examples = estimated_examples(data, draft.settings, length)
    wanted = round(TRAIN_SHARE * examples * epochs / BATCH)
    steps = int(min(max(wanted, STEPS[0]), STEPS[1])) if examples else 1000
    passes = steps * BATCH / max(TRAIN_SHARE * examples, 1)
    draft.reasons["defaults.training"] = f"about {passes:.1f} passes over the training part" if examples else "a first try"
    return {"steps": steps, "batch_size": BATCH, "learning_rate": 1e-3}


def estimated_examples(data: DataLook, settings: dict[str, Any], length: int) -> int:
    """Examples of data before they are prepared, as a draft's settings read them; 0: unknown."""
    packed = settings["workload"] == "causal-lm" and _is_packed(settings["data"])
    return data.bytes // 4 // length if packed else data.rows


def _is_packed(settings: Any) -> bool:
    """Whether the settings of a language model's data cut windows out of its documents; a conversation is an example."""
    return not isinstance(settings, dict) or "text" in settings.get("columns", {"text": ""})
