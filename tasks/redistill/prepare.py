"""From a drop to a run that can begin: champion, windows, teacher, settings.

Whatever speaks against it is a `UserError`, whose sentence becomes the reason of the decision.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from models.base.files import file_sha256
from tasks.monitoring.history import read_history
from tasks.records.monitoring import WindowReport
from tasks.records.redistill import Redistillation
from tasks.redistill.decisions import MONITOR, begun_this_week, folder_of
from tasks.redistill.plan import REFRESH, ChampionRun, overrides_of
from tasks.redistill.transfer import Answerer, WindowData, gather, window_files, write_window_data
from tasks.registry.versions import Version, find_version
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import now
from tasks.tracking.null import NullTracker
from tasks.tracking.tracker import Tracker
from tasks.tracking.versions import CHAMPION

DISTIL = "distil again"
WORKING = (DISTIL, REFRESH)  # diagnoses that a run can mend


@dataclass(frozen=True)
class Drop:
    """A drop, as the monitor or a person reports it.

    Attributes:
        name: Of the registered model.
        cause: Its id; None: a person asks, and the windows' content names it.
        diagnosis: `distil again` or `refresh the teacher`; others begin nothing.
        why: In words.
        by: `monitor`, or a person, whom neither the policy `off` nor `per_week` binds.
        windows: Window files, or patterns; none: those that were served.
        window_run_id: MLflow run of the window that triggered.
    """

    name: str
    cause: str | None = None
    diagnosis: str = DISTIL
    why: str = ""
    by: str = MONITOR
    windows: tuple[str, ...] = ()
    window_run_id: str | None = None


@dataclass(frozen=True)
class Ready:
    """All that a run needs.

    Attributes:
        origin: Run of the champion.
        champion: Its version.
        data: Files of the windows' rows.
        overrides: Settings over those of the champion's run.
        kept: Models that stay as they are.
        fields: Of the decision.
    """

    origin: ChampionRun
    champion: Version
    data: WindowData
    overrides: tuple[str, ...]
    kept: tuple[str, ...]
    fields: dict[str, Any]


class PutOff(UserError):
    """It is to be tried again with the next window of the drop."""


def champion_of(home: Home, tracker: Tracker | NullTracker, name: str) -> Version:
    """The champion of a model, with its bytes.

    Raises:
        UserError: There is none.
        RecordUnavailable: MLflow does not answer.
    """
    return find_version(tracker, home, f"{name}@{CHAMPION}")


def cause_by_hand(name: str, files: Sequence[Path]) -> str:
    """Id of a request of a person: the model and the content of the windows."""
    content = hashlib.sha256("\n".join(file_sha256(path) for path in files).encode()).hexdigest()
    return f"{name}:by-hand-{content[:12]}"


def files_of(drop: Drop, home: Home, origin: ChampionRun) -> list[Path]:
    """The window files of a drop, each once: those that are named, else those that showed it, else all that were served.

    Raises:
        UserError: There are none.
    """
    reports = [entry.report for entry in read_history(home, drop.name)] if drop.cause and not drop.windows else []
    if found := [path for path in drop_windows(reports, drop.cause or "") if path.is_file()]:
        return found
    usual = (origin.now.ladder.monitoring.windows,)
    found = [path for pattern in drop.windows or usual for path in window_files(pattern, home, drop.name, origin.now.base)]
    return list(dict.fromkeys(found))


def drop_windows(reports: Sequence[WindowReport], cause: str) -> list[Path]:
    """Files of a drop's windows: from the first that showed it, which the cause names, to the newest of that version."""
    version, _, first = cause.partition(":")
    own = [each for each in reports if each.version == version and not each.unusable]
    begins = next((place for place, each in enumerate(own) if each.window == first), None)
    found = [each for each in own if each.cause == cause] if begins is None else own[begins:]
    return list(dict.fromkeys(Path(each.path) for each in found))


def require_wanted(drop: Drop, ladder: Ladder, found: Sequence[Redistillation]) -> None:
    """Refuse what the settings, the diagnosis or the number of runs this week speak against.

    Raises:
        UserError: With the reason.
        PutOff: With the reason; later it may be done.
    """
    settings = ladder.redistill
    if drop.by == MONITOR and settings.policy == "off":
        raise UserError("redistill.policy is off: nothing begins by itself. `ladder redistill` begins it by hand.")
    if drop.diagnosis not in WORKING:
        raise UserError(f"the diagnosis is '{drop.diagnosis}': no training mends it.")
    done = begun_this_week(found, now())
    if drop.by == MONITOR and len(done) >= settings.per_week:
        raise PutOff(f"{len(done)} began in the last seven days; redistill.per_week allows {settings.per_week}.")


def make_ready(drop: Drop, home: Home, origin: ChampionRun, champion: Version, cause: str, folder: Path, answer: Answerer | None) -> Ready:
    """Read the windows, write their rows into a folder, and choose the settings of the run.

    Args:
        drop: What happened.
        home: Where the store is.
        origin: Run of the champion.
        champion: Its version.
        cause: Id of the drop.
        folder: Of the rows' files.
        answer: Asks the root teacher about held-out rows without label.

    Raises:
        UserError: The windows hold no row to learn from, no label where the teacher must learn, or the teacher is gone.
    """
    ladder = origin.settings.model_copy(update={"redistill": origin.now.ladder.redistill, "monitoring": origin.now.ladder.monitoring})
    files = files_of(drop, home, origin)
    gathered = gather(files, ladder, origin.classes, ladder.redistill.max_rows)
    if not gathered.examples:
        words = f"{gathered.rows} rows, of which {gathered.unusable} could not be used"
        raise UserError.about("--windows", words, "rows with content", f"Files: {', '.join(path.name for path in files[:8])}.")
    data = write_window_data(folder, gathered, ladder, origin.own_rows, None if drop.diagnosis == REFRESH else answer)
    if data.transfer is None:
        raise UserError.about("--windows", f"{len(gathered.examples)} rows, all held out", "rows to learn from", "Lower redistill.holdout.")
    if drop.diagnosis == REFRESH and not data.counts.labelled:
        raise UserError.about("--windows", "no labelled row", "labels to refresh the teacher by", "Label some rows of the windows.")
    overrides, kept = overrides_of(home, origin, drop.diagnosis, data.transfer, data.counts.weight)
    fields = {
        "champion": champion.label,
        "windows": tuple(map(str, files)),
        "counts": data.counts,
        "transfer": str(data.transfer),
        "held_out": str(data.held_out) if data.held_out else None,
        "judged_by": data.judged_by,
        "source": origin.record.source,
        "kept": kept,
        "overrides": overrides,
    }
    return Ready(origin, champion, data, overrides, kept, fields)


def rows_folder(home: Home, name: str, cause: str) -> Path:
    """Folder of the rows of a cause."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", cause).strip("-.")[-60:]
    return folder_of(home, name) / "rows" / f"{slug}-{hashlib.sha256(cause.encode()).hexdigest()[:8]}"


def teachers_answers(origin: ChampionRun, rows: Sequence[str]) -> list[str]:
    """The root teacher's answers to texts, or to images at their places."""
    from models.engines.base import Classifier
    from models.engines.load import load_engine

    log.info("asking the teacher about %d held-out rows without label", len(rows))
    engine = load_engine(Path(origin.teacher.folder), origin.settings.workload, key="teacher")
    assert isinstance(engine, Classifier)
    answers: list[str] = []
    for first in range(0, len(rows), 64):
        batch: Sequence[Any] = rows[first : first + 64]
        if engine.images:
            from PIL import Image

            batch = [Image.open(place) for place in batch]
        answers += [prediction.label for prediction in engine.predict(batch)]
    engine.close()
    return answers
