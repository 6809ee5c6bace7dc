"""Rows of windows as training data; a part, drawn by content, judges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from conf.atomic import write_atomic
from conf.errors import UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from conf.schema.tables import Columns
from tasks.data.reading.conversations import columns_of
from tasks.data.reading.labels import class_name, stands_for_none
from tasks.monitoring.windows import list_windows, read_window
from tasks.records.redistill import TransferCounts
from tasks.runtime.logs import log

WHOLE = 2**64
LARGEST_WEIGHT = 100.0
Answerer = Callable[[Sequence[str]], Sequence[str]]  # texts, or places of images, to names of classes


@dataclass(frozen=True)
class WindowExample:
    """One different content of the windows.

    Attributes:
        key: Hash of the content.
        content: Text, conversation, or place of an image.
        label: Name of its class, or its right text; None: not known.
        slice: Of the last row that had it.
    """

    key: str
    content: Any
    label: str | None
    slice: str | None


class Gathered(NamedTuple):
    """The different contents of some windows, in their order, and the rows that they came from."""

    examples: list[WindowExample]
    files: int
    rows: int
    unusable: int


@dataclass(frozen=True)
class WindowData:
    """Files of a re-distillation.

    Attributes:
        transfer: Rows that train; None: there are none.
        held_out: Rows that judge; None: there are none.
        judged_by: Whose labels these have.
        counts: Of both.
    """

    transfer: Path | None
    held_out: Path | None
    judged_by: str | None
    counts: TransferCounts


def window_files(pattern: str | None, home: Home, name: str, base: Path) -> list[Path]:
    """Closed window files: those of a folder or pattern, or those that were served under the model's name; in the order of their names.

    Raises:
        UserError: There are none.
    """
    place = Path(pattern).expanduser() if pattern else home.windows / name
    place = place if place.is_absolute() else base / place
    files = list_windows(str(place)) if pattern or place.is_dir() else []
    if not files:
        remedy = "`ladder serve-model --log-share` writes them."
        raise UserError.about("--windows", pattern or str(place), "a folder or pattern of window files", remedy)
    return files


def gather(files: Sequence[Path], ladder: Ladder, classes: Sequence[str], most: int) -> Gathered:
    """Read windows, each content once with its last label.

    Args:
        files: The oldest first.
        ladder: Its workload decides what a content is.
        classes: Names of the champion's classes; a row with another label is unusable.
        most: Rows that are used, the newest.
    """
    found: dict[str, WindowExample] = {}
    rows = unusable = 0
    for content, label, group in list(_rows(files, ladder))[-most:]:
        rows += 1
        name = _label(label)
        if not _is_content(content, ladder) or (name is not None and classes and name not in classes):
            unusable += 1
            continue
        key = _key(content, ladder)
        known = found.get(key)
        if known is not None and name is None:
            name = known.label
        found[key] = WindowExample(key, content, name, group if group is not None else known and known.slice)
    return Gathered(list(found.values()), len(files), rows, unusable)


def is_held_out(example: WindowExample, share: float) -> bool:
    """Whether an example judges: the same content always falls on the same side, in whatever window it comes."""
    number = int.from_bytes(hashlib.sha256(f"held out\0{example.key}".encode()).digest()[:8])
    return number < share * WHOLE


def write_window_data(folder: Path, gathered: Gathered, ladder: Ladder, base_rows: int, answer: Answerer | None) -> WindowData:
    """Write `transfer.jsonl` and `held-out.jsonl`.

    Args:
        folder: Made where it does not exist.
        gathered: Contents of the windows.
        ladder: Columns, workload, share held out, and mix.
        base_rows: Training documents of the ladder's own data, which the weight balances.
        answer: Answers of the teacher, for held-out rows where too few have a label; None: not asked.
    """
    settings, columns = ladder.redistill, columns_of(ladder.data)
    judging = [example for example in gathered.examples if is_held_out(example, settings.holdout)]
    training = [example for example in gathered.examples if not is_held_out(example, settings.holdout)]
    labelled = sum(each.label is not None for each in judging)
    if ladder.workload == "causal-lm":
        judged_by, judged = "texts", [row for each in judging if (row := _as_row(each, columns, ladder)) is not None]
    else:
        judged_by, judging = _with_labels(judging, ladder.promotion.min_rows, answer)
        judged = [row for each in judging if (row := _as_row(each, columns, ladder)) is not None]
    trained = [row for each in training if (row := _as_row(each, columns, ladder)) is not None]
    weight = weight_of(settings.mix, base_rows, len(trained))
    counts = TransferCounts(
        files=gathered.files,
        rows=gathered.rows,
        repeated=gathered.rows - gathered.unusable - len(gathered.examples),
        unusable=gathered.unusable,
        transfer=len(trained),
        labelled=sum(each.label is not None for each in training),
        held_out=len(judged),
        held_out_labelled=labelled,
        weight=weight,
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"transfer": folder / "transfer.jsonl", "held-out": folder / "held-out.jsonl"}
    for path, rows in zip(paths.values(), (trained, judged), strict=True):
        write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return WindowData(
        paths["transfer"] if trained else None,
        paths["held-out"] if judged else None,
        judged_by if judged else None,
        counts,
    )


def weight_of(mix: float | None, base_rows: int, rows: int) -> float:
    """Times that each of some rows is read, so that they make a share of an epoch: three digits, at most 100."""
    if mix is None or not rows:
        return 1.0
    return float(f"{min(mix / (1 - mix) * base_rows / rows, LARGEST_WEIGHT):.3g}")


def _with_labels(judging: list[WindowExample], least: int, answer: Answerer | None) -> tuple[str | None, list[WindowExample]]:
    """Held-out examples that have labels: people's where they are enough, the teacher's for the others else."""
    labelled = [each for each in judging if each.label is not None]
    others = [each for each in judging if each.label is None]
    if len(labelled) >= least or not others or answer is None:
        return ("labels" if labelled else None), labelled
    answers = answer([each.content for each in others])
    taught = [replace(each, label=name) for each, name in zip(others, answers, strict=True)]
    return ("labels and the teacher" if labelled else "the teacher"), [*labelled, *taught]


def _rows(files: Iterable[Path], ladder: Ladder) -> Iterator[tuple[Any, Any, Any]]:
    """Input, label and slice of each row; a window that cannot be used is named in the log and left out."""
    for path in files:
        window = read_window(path, ladder.monitoring.columns)
        if window is None or window.unusable:
            log.warning("window %s left out: %s", path.name, window.unusable if window else "it is still written")
            continue
        yield from ((row.input, row.label, row.slice) for row in window.rows)


def _label(value: Any) -> str | None:
    if value is None or isinstance(value, bool | list | dict) or (isinstance(value, float) and value != value):
        return None
    name = class_name(value if isinstance(value, int) else str(value).strip())
    return None if not name or stands_for_none(name) else name


def _is_content(content: Any, ladder: Ladder) -> bool:
    if columns_of(ladder.data).messages is not None:
        return isinstance(content, list) and bool(content)
    return isinstance(content, str) and bool(content.strip())


def _key(content: Any, ladder: Ladder) -> str:
    """Hash of a text, of a conversation, or of an image's file where it can be read."""
    if ladder.workload == "image-classification":
        path = Path(content)
        return hashlib.sha256(path.read_bytes() if path.is_file() else content.encode()).hexdigest()
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _as_row(example: WindowExample, columns: Columns, ladder: Ladder) -> dict[str, Any] | None:
    """The row of a table in the ladder's own columns; None where a conversation has no right answer."""
    group = {columns.slice: example.slice or "requests"} if columns.slice is not None else {}
    if ladder.workload != "causal-lm":
        content = columns.image if ladder.workload == "image-classification" else columns.text
        return {content: example.content, columns.label: example.label, **group}
    if columns.conversations and example.label is None:
        return None
    if columns.messages is not None:
        return {columns.messages: [*example.content, {"role": "assistant", "content": example.label}], **group}
    if columns.prompt is not None and columns.completion is not None:
        unexplained = {} if columns.rationale is None else {columns.rationale: None}  # a request comes without one
        return {columns.prompt: example.content, columns.completion: example.label, **unexplained, **group}
    return {columns.text: example.content + (example.label or ""), **group}
