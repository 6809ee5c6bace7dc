"""Settings and models of the run that a drop of a champion asks for."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import Loaded, load, load_whole
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from conf.schema.workloads import refuse_unserved
from tasks.records.run import TEACHER, RunRecord, StageRecord, stage_record
from tasks.registry.versions import Version
from tasks.runtime.runs.run_registry import full_record
from tasks.store.cached import find_stored
from tasks.store.store import Store

REFRESH = "refresh the teacher"


@dataclass(frozen=True)
class ChampionRun:
    """The run of a champion.

    Attributes:
        record: Of the run.
        settings: Its ladder as it ran.
        now: Its ladder's file as it is now, with the same overrides; the same as `settings` where the file is gone.
        inline: Whether it is gone, or the ladder was given in full.
    """

    record: RunRecord
    settings: Ladder
    now: Loaded
    inline: bool

    @property
    def teacher(self) -> StageRecord:
        """The root teacher."""
        assert self.record.teacher is not None
        return self.record.teacher

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the champion answers with; empty for language models."""
        assert self.record.data is not None
        return self.record.data.corpus().info.label_names

    @property
    def own_rows(self) -> int:
        """Training documents of the ladder's own data, those of earlier windows not counted."""
        data = self.record.data
        assert data is not None
        return data.corpus().info.documents["train"] - (data.counts.transfer if data.counts else 0)


def champion_run(home: Home, champion: Version) -> ChampionRun:
    """The run of a champion, with its data.

    Raises:
        UserError: Its record, its settings or its data are not in this home.
    """
    refuse_unserved(champion.workload, "NAME", champion.label, "a champion")
    record = full_record(home, champion.run)
    path = home.runs / champion.run / "ladder.yaml"
    data = record.data if record is not None else None
    if record is None or record.teacher is None or not path.is_file() or data is None or not (Path(data.folder) / "corpus.json").is_file():
        remedy = f"The run {champion.run}, its settings or its data are not in this home: run its ladder again here."
        raise UserError.about("NAME", champion.label, "a champion whose run and data are in this home", remedy)
    settings = load(str(path)).ladder
    if not record.whole:
        with suppress(UserError):  # the file was moved, or is damaged
            return ChampionRun(record, settings, load(record.source, record.overrides), inline=False)
    return ChampionRun(record, settings, load_whole(settings), inline=True)


def overrides_of(home: Home, origin: ChampionRun, diagnosis: str, transfer: Path, weight: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Settings of the run over those of the champion's, and the names of the models that stay as they are.

    The root teacher stays, as the store has it, unless it is to be refreshed: then it is trained on from there. All students change,
    since their data do.

    Raises:
        UserError: The teacher is gone, or is a file of answers, which has none to new rows.
    """
    ladder, teacher = origin.settings, origin.settings.teacher
    if teacher.source == "answers":
        remedy = "It has no answers to the rows of the windows: add some to the file, and run the ladder with them."
        raise UserError.about("teacher.source", "answers", "a teacher that can be asked", remedy)
    rows = [rows.model_dump(mode="json", exclude_none=True) for rows in ladder.data.transfer]
    rows.append({"paths": [str(transfer)], "weight": weight})
    overrides = [f"data.transfer={json.dumps(rows)}"]
    folder = _stored(home, origin.teacher)
    refreshed = diagnosis == REFRESH
    if folder is None and not (isinstance(teacher, CheckpointTeacher) and _reachable(teacher, origin)):
        where = origin.teacher.folder
        remedy = f"The store no longer has {where}: run the ladder again, which makes the teacher anew, or set teacher.path."
        raise UserError.about("teacher", origin.teacher.fingerprint[:12], "a teacher that is in the store or at its path", remedy)
    if folder is not None or refreshed:
        overrides.append(f"teacher={json.dumps(_teacher(origin, folder, refreshed))}")
    if teacher.source == "train" and ladder.tokenizer.kind == "bpe":
        overrides.append('tokenizer={"kind": "teacher"}')  # one that is trained anew would have other ids
    return tuple(overrides), () if refreshed else (TEACHER,)


def _teacher(origin: ChampionRun, folder: Path | None, refreshed: bool) -> dict[str, Any]:
    ladder, teacher = origin.settings, origin.settings.teacher
    made: dict[str, Any] = {"source": "checkpoint"}
    if isinstance(teacher, CheckpointTeacher):
        left = {"training", "sha256", "class_weights", "rationale"}
        made |= teacher.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude=left)
    if folder is not None:
        made |= {"path": str(folder)}
        made.pop("revision", None)
    if origin.teacher.poor:
        made["allow_poor"] = True
    if refreshed:
        training = origin.now.ladder.redistill.teacher_training or teacher.training or ladder.stages[0].training
        made["training"] = training.model_dump(mode="json", exclude_none=True)
        if teacher.source != "answers" and teacher.class_weights != "none":
            made["class_weights"] = teacher.model_dump(mode="json")["class_weights"]
        if teacher.source != "answers" and teacher.rationale is not None:
            made["rationale"] = teacher.rationale
    return made


def _stored(home: Home, teacher: StageRecord) -> Path | None:
    found = find_stored(Store(home), "teacher", teacher.fingerprint, stage_record)
    return found.folder if found else None


def _reachable(teacher: CheckpointTeacher, origin: ChampionRun) -> bool:
    """Whether a checkpoint is at its path; hub ids and recorded models are asked for when the run begins."""
    if not teacher.path.startswith((".", "/", "~")):
        return True
    return (origin.now.base / Path(teacher.path).expanduser()).exists()
