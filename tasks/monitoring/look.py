"""Look at the windows of a promoted version that were not judged yet.

Shapes: n rows of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.home import Home
from conf.schema.shipping.monitoring import Monitoring
from models.monitoring.calibration import confidences
from models.monitoring.features import Described
from tasks.monitoring.contents import Content, contents_of
from tasks.monitoring.decide import Values, judge, yardsticks
from tasks.monitoring.history import alone, next_number, read_history, write_entry
from tasks.monitoring.reference import Reference, Watched, find_or_compute_reference, find_or_compute_teacher_reference
from tasks.monitoring.shifts import shifts_of, slice_figures
from tasks.monitoring.windows import Window, list_windows, pack_keys, read_window, unpack_keys
from tasks.records.monitoring import ShiftFigures, Signal, SliceFigures, WindowEntry, WindowReport
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import now

if TYPE_CHECKING:
    from tasks.monitoring.scoring import GivenCorpus, Scorer

Floats = NDArray[np.float64]
Done = Callable[[WindowEntry], object]


@dataclass
class Looked:
    """Result of a look.

    Attributes:
        entries: Windows that were judged now, in their order.
        put_off: Files that are still written; they are read next time.
    """

    entries: list[WindowEntry] = field(default_factory=list)
    put_off: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class NewWindows:
    """Windows that were not judged yet, by time, and those that were."""

    windows: list[Window]
    history: list[WindowEntry]
    put_off: list[Path]


def look(home: Home, seen: Watched, pattern: str | None, settings: Monitoring, done: Done = lambda entry: None) -> Looked:
    """Judge the windows that were not judged yet, by time.

    Args:
        home: Where the history is kept.
        seen: The version.
        pattern: Folder or pattern of window files; None: that of the settings, else the windows of `ladder serve-model`.
        settings: Of monitoring.
        done: Called with each entry once it is kept.

    Raises:
        UserError: There is no such folder.
        StoreError: The disk is full.
    """
    with new_windows(home, seen, pattern, settings) as new:
        found = Looked(put_off=new.put_off)
        for entry in judge_windows(home, seen, settings, new.history, new.windows):
            write_entry(home, entry)
            found.entries.append(entry)
            done(entry)
    return found


@contextmanager
def new_windows(home: Home, seen: Watched, pattern: str | None, settings: Monitoring) -> Iterator[NewWindows]:
    """The windows to judge; until the end of the block nobody else adds to the history. Arguments and errors as `look`."""
    name, given = seen.version.name, pattern or settings.windows
    files = list_windows(given) if given else list_windows(str(home.windows / name)) if (home.windows / name).is_dir() else []
    with alone(home, name):
        new = NewWindows([], read_history(home, name), [])
        known = {entry.report.content for entry in new.history if entry.report.content}
        for path in files:
            window = read_window(path, settings.columns)
            if window is None:
                new.put_off.append(path)
            elif window.content not in known:
                known.add(window.content)
                new.windows.append(window)
        new.windows.sort(key=lambda window: (window.began or "", window.path.name))
        yield new
    for path in new.put_off:
        log.info("%s is still written; it is read next time", path.name)


def judge_windows(
    home: Home, seen: Watched, settings: Monitoring, history: Sequence[WindowEntry], windows: Sequence[Window]
) -> Iterator[WindowEntry]:
    """Judge windows in their order, each after those before it.

    Args:
        home: Where the store is.
        seen: The version.
        settings: Of monitoring.
        history: Windows that were judged before.
        windows: New ones.
    """
    watch = _Watch(home, seen, settings, list(history))
    for window in windows:
        entry = watch.judge(window)
        yield entry
        watch.history.append(entry)


class _Watch:
    """A version with its history, its reference and its model, which is loaded when the first window needs it."""

    def __init__(self, home: Home, seen: Watched, settings: Monitoring, history: list[WindowEntry]) -> None:
        self.home, self.seen, self.settings, self.history = home, seen, settings, history
        self.seen_keys: set[bytes] = set()
        self.labelled_keys: set[bytes] = set()
        for entry in history:
            self._remember(entry)

    def _remember(self, entry: WindowEntry) -> None:
        self.seen_keys |= unpack_keys(entry.seen)
        self.labelled_keys |= unpack_keys(entry.labelled)

    @cached_property
    def scorer(self) -> Scorer:
        from tasks.monitoring.scoring import Scorer

        log.info("loading %s", self.seen.version.label)
        return Scorer(self.seen.version.folder, self.seen.ladder, self.seen.data.corpus())

    @cached_property
    def reference(self) -> Reference:
        return find_or_compute_reference(self.home, self.seen, self.scorer)

    @cached_property
    def teacher(self) -> dict[str, Floats]:
        """The root teacher's figures on the reference's rows; empty where it is not asked."""
        root = self.seen.root
        if not self.settings.shadow_rows or root is None:
            return {}
        return find_or_compute_teacher_reference(self.home, self.seen, self.reference, root)

    @cached_property
    def measures(self) -> dict[Signal, Any]:
        own: dict[Signal, Floats] = {"quality": self.reference.quality, "estimate": self.reference.estimate}
        theirs: dict[Signal, Floats] = {signal: self.teacher[signal] for signal in ("agreement", "teacher") if signal in self.teacher}
        return yardsticks(Values({**own, **theirs}), self.settings, self.seen.metric)

    def judge(self, window: Window) -> WindowEntry:
        """Judge a window, whatever is wrong with it."""
        problems = list(window.problems)
        if window.unusable is None:
            try:
                entry = self._judge(window, problems)
            except UserError as error:  # of its rows, such as a picture that is none; the next window goes on
                window.unusable = str(error)
            else:
                self._remember(entry)
                return entry
        return WindowEntry(
            report=self._draft(window).model_copy(
                update={"unusable": True, "problems": (window.unusable, *problems), "diagnosis": "nothing", "why": window.unusable}
            )
        )

    def _draft(self, window: Window) -> WindowReport:
        version = self.seen.version
        return WindowReport(
            name=version.name,
            version=version.label,
            weights_sha256=version.weights_sha256,
            ladder_run=version.run,
            stage=version.stage,
            workload=self.seen.ladder.workload,
            metric=self.seen.metric,
            window=window.name,
            path=str(window.path),
            content=window.content,
            began=window.began,
            ended=window.ended,
            looked=now(),
            number=next_number(self.history),
            drop=self.settings.drop,
        )

    def _judge(self, window: Window, problems: list[str]) -> WindowEntry:
        repeated = sum(key in self.seen_keys for key in window.keys)
        pairs = [
            (row, key)
            for row, key in zip(window.rows, window.keys, strict=True)
            if key not in self.seen_keys or (row.label is not None and key not in self.labelled_keys)
        ]
        if repeated:
            problems.append(f"{repeated:,} of {len(window.rows):,} rows came in an earlier window; they are counted once.")
        rows = contents_of(pairs, window, self.seen, problems)
        values, shifts, slices = self._figures(rows, problems)
        fresh = [key for _, key, _, _ in rows if key not in self.seen_keys]
        named = [key for _, key, _, label in rows if label >= 0]
        draft = self._draft(window).model_copy(
            update={
                "rows": len(fresh),
                "labelled": len(named),
                "repeated": repeated,
                "problems": tuple(problems),
                "shifts": shifts,
                "slices": slices,
            }
        )
        before = [entry for entry in self.history if entry.report.version == self.seen.version.label and not entry.report.unusable]
        entry = judge(draft, values, self.measures, self.settings, before)
        return entry.model_copy(update={"seen": pack_keys(fresh), "labelled": pack_keys(named)})

    def _figures(self, rows: Sequence[Content], problems: list[str]) -> tuple[Values, tuple[ShiftFigures, ...], dict[str, SliceFigures]]:
        """Values for each signal, shifts and slices of a window's rows."""
        if not rows:
            return Values({}), (), {}
        fresh = np.array([key not in self.seen_keys for _, key, _, _ in rows])
        labels = np.array([label for _, _, _, label in rows])
        groups = [group for _, _, group, _ in rows]
        given = self.scorer.rows([content for content, _, _, _ in rows], labels.tolist(), groups)
        values: dict[Signal, Floats] = {}
        described = self.scorer.features(given, "test", np.flatnonzero(fresh), self.reference.log_frequency)
        words = list(np.array(groups)[fresh])
        if self.seen.metric == "bits_per_byte":
            most = self.settings.reference_rows
            losses, documents = self.scorer.bits_per_byte(given, "test", most)
            values["quality"] = losses[fresh[documents]]
            outputs = Described({}, {})
            slices = slice_figures(self.reference, [groups[place] for place in documents], losses)
        else:
            found = self.scorer.probabilities(given, "test", len(rows))
            answers = found.argmax(axis=1)
            right = (answers == labels).astype(np.float64)
            sure = confidences(found, self.reference.temperature)
            values["quality"] = right[labels >= 0]
            values["estimate"] = sure[fresh]
            names = self.scorer.corpus.info.label_names
            outputs = Described({"confidence": sure[fresh]}, {"answer": [names[answer] for answer in answers[fresh]]})
            known = labels >= 0
            slices = slice_figures(self.reference, [group for group, one in zip(groups, known, strict=True) if one], right[known])
            values |= self._shadow(given, rows, labels, answers, problems)
        if self.seen.metric == "bits_per_byte":
            values |= self._shadow(given, rows, labels, None, problems)
        shifts = shifts_of(self.reference, described, outputs, words, self.scorer.corpus.info.label_names, self.settings)
        return Values(values), shifts, slices

    def _shadow(
        self,
        given: GivenCorpus,
        rows: Sequence[Content],
        labels: NDArray[np.int64],
        answers: NDArray[np.int64] | None,
        problems: list[str],
    ) -> dict[Signal, Floats]:
        """Agreement with the root teacher, and its own quality, on a sample; empty where it is not asked."""
        if not self.teacher:
            return {}
        from tasks.monitoring.shadow import chosen_rows, shadow_answers

        root = self.seen.root
        assert root is not None
        chosen = chosen_rows([key for _, key, _, _ in rows], self.settings.shadow_rows, self.seen_keys)
        if not len(chosen):
            return {}
        found = shadow_answers(self.home, self.seen, root, [rows[place] for place in chosen])
        if answers is None:
            return {"teacher": found}
        known = labels[chosen] >= 0
        values: dict[Signal, Floats] = {"agreement": (found == answers[chosen]).astype(np.float64)}
        if known.any():
            values["teacher"] = (found == labels[chosen]).astype(np.float64)[known]
        return values
