"""Rows of a window in the form that the model is given them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from conf.errors import UserError
from tasks.data.reading.labels import class_name
from tasks.monitoring.reference import Watched
from tasks.monitoring.windows import Window
from tasks.records.window import WindowRow


class Content(NamedTuple):
    """A row: its text or picture, its id, its slice and its class, which is -1 where it is not known."""

    content: Any
    key: bytes
    group: str
    label: int


def contents_of(pairs: Sequence[tuple[WindowRow, bytes]], window: Window, seen: Watched, problems: list[str]) -> list[Content]:
    """The rows that the model can be given.

    Args:
        pairs: Rows of the window with their ids.
        window: The window.
        seen: The version, whose data names classes and size.
        problems: Gets a sentence about whatever could not be used.

    Raises:
        UserError: The window is of conversations.
    """
    info, read = seen.data.corpus().info, _reader(window, seen)
    names = {class_name(name): place for place, name in enumerate(info.label_names)}
    found: list[Content] = []
    broken, strange = [], Counter[str]()
    for row, key in pairs:
        try:
            content = read(row.input)
        except (UserError, ValueError, TypeError) as error:
            broken.append(str(error))
            continue
        label = -1
        if row.label is not None and info.classes:
            label = names.get(class_name(row.label), -1)
            strange[str(row.label)] += label < 0
        found.append(Content(content, key, row.slice or "all", label))
    if size := _size(seen):
        resized = Counter(content.size for content, *_ in found if not isinstance(content, str) and content.size != size)
        if resized:
            (width, height), count = resized.most_common(1)[0]
            problems.append(
                f"{resized.total():,} of {len(found):,} pictures have another size than the {size[0]} x {size[1]} that the model learned "
                f"from, such as {width} x {height} ({count:,} of them); they are scaled."
            )
    if broken:
        problems.append(f"{len(broken):,} of {len(pairs):,} inputs cannot be given to the model, the first: {broken[0]}")
    if wrong := {name: count for name, count in strange.items() if count}:
        shown = ", ".join(sorted(wrong)[:8])
        problems.append(f"{sum(wrong.values()):,} labels are none of the classes, such as {shown}; their rows count as unlabelled.")
    return found


def _size(seen: Watched) -> tuple[int, int] | None:
    """Width and height of the pictures that the model learned from; None for texts, and where every picture is scaled anyway."""
    shape = seen.data.corpus().info.image_shape
    scaled = getattr(seen.ladder.data, "resize", None) is not None or seen.ladder.teacher.source == "checkpoint"
    return None if shape is None or scaled else (shape[2], shape[1])


def _reader(window: Window, seen: Watched) -> Callable[[Any], Any]:
    """From the input of a row to a text or a picture."""
    info = seen.data.corpus().info
    if info.completions:
        raise UserError.about("monitoring.windows", window.path.name, "windows of texts", "Windows of conversations cannot be judged.")
    if info.workload == "image-classification":
        from models.data.images import open_picture

        return lambda value: open_picture(value, "input", window.path.name, window.path.parent)
    return _text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"an input of type {type(value).__name__} where a text belongs")
    value.encode()  # half of a surrogate pair is no text
    return value
