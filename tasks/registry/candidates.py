"""Choose who is compared: a named challenger, and the champion of its name."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from conf.errors import UserError
from conf.home import Home, home
from conf.schema.ladder import Ladder
from tasks.records.run import RunRecord, StageRecord
from tasks.registry.promotion import finish_interrupted
from tasks.registry.versions import ListedVersion, Version, find_version, list_versions, open_version, register
from tasks.runtime.logs import log
from tasks.runtime.runs.run_registry import load_run
from tasks.tracking.null import NullTracker
from tasks.tracking.recorder import recorder_of
from tasks.tracking.tracker import Tracker
from tasks.tracking.versions import CHAMPION

PASSED = (None, "passed", "approved")  # gates of students that become versions by themselves
WHAT = "version in the registry"  # as `RunRecord.unrecorded` names it


class Rivals(NamedTuple):
    """A challenger and the champion.

    Attributes:
        champion: None: there is none, or its bytes are gone.
        previous: Number of the champion's version, whether its bytes are there or not.
        missing: Why the champion cannot be compared; None: it can, or there is none.
    """

    challenger: Version
    champion: Version | None
    previous: str | None
    missing: str | None


def registry_of(tracker: Tracker | NullTracker) -> Tracker:
    """The record in MLflow, which holds the registry.

    Raises:
        UserError: MLflow is off.
    """
    if isinstance(tracker, NullTracker):
        remedy = "Versions and aliases are kept in MLflow's registry: turn it on, and run the ladder again, which computes nothing anew."
        raise UserError.about("tracking", f"off ({tracker.reason})", "mlflow, for versions and promotions", remedy)
    return tracker


def rivals(tracker: Tracker, home: Home, text: str | None, *, register_anyway: bool = False) -> Rivals:
    """The challenger and the champion of its name, both with verified bytes.

    Args:
        tracker: The record in MLflow.
        home: Where the runs are.
        text: As of `find_version`; None: the last run.
        register_anyway: Whether to register even a student whose gate was missed (`--force`).

    Raises:
        UserError: There is no such model, its bytes are gone, or it may not be registered.
    """
    challenger = find_version(tracker, home, text or load_run(home).run)
    finish_interrupted(tracker, home, challenger.name)
    if challenger.version is None:
        challenger = _registered(tracker, home, challenger, register_anyway)
    entry = next((each for each in list_versions(tracker, challenger.name) if CHAMPION in each.aliases), None)
    if entry is None or entry.version == challenger.version:
        return Rivals(challenger, None, entry and entry.version, None)
    try:
        return Rivals(challenger, open_version(tracker, home, entry), entry.version, None)
    except UserError as gone:
        return Rivals(challenger, None, entry.version, str(gone))


def _registered(tracker: Tracker, home: Home, challenger: Version, anyway: bool) -> Version:
    """Register the student of a finished run that is no version yet."""
    record = load_run(home, challenger.run)
    model = next(each for each in record.models if each.fingerprint == challenger.fingerprint)
    if record.status != "done" and not anyway:
        raise UserError.about("RUN", record.run, f"a run that is done; it is {record.status}", "Finish it, or use --force with a reason.")
    if model.gate not in PASSED and not anyway:
        remedy = f"{'; '.join(model.gate_reasons)}. Improve it, or use --force with a reason."
        raise UserError.about("RUN", f"{record.run}:{model.name}", f"a student that passed its gate; it was {model.gate}", remedy)
    return open_version(tracker, home, register(tracker, home, record, model))


def students_to_register(record: RunRecord, ladder: Ladder) -> list[StageRecord]:
    """The students of a run that become versions: of a whole ladder that is done, by `promotion.versions`, if their gates passed."""
    wanted = ladder.promotion.versions
    if record.status != "done" or record.kind != "ladder" or wanted == "none":
        return []
    return [model for model in record.stages if model.gate in PASSED and (wanted == "all" or model == record.stages[-1])]


def register_version(record: RunRecord, ladder: Ladder) -> RunRecord:
    """Register a finished run's students, if MLflow takes it; its record then names the last one's version, or the missing part."""
    act = partial(register_students, home=home(), record=record, ladder=ladder)
    entry = recorder_of(home(), record.run).attempt_with_tracker(WHAT, act)
    return record if entry is None else record.model_copy(update={"version": f"{entry.name}/{entry.version}"})


def register_students(tracker: Tracker, home: Home, record: RunRecord, ladder: Ladder) -> ListedVersion | None:
    """Register a finished run's students, and give the version of the last one.

    Raises:
        RecordUnavailable: MLflow does not take it.
    """
    last = None
    for model in students_to_register(record, ladder):
        is_last = model == record.stages[-1]
        entry = register(tracker, home, record, model, challenger=is_last)
        log.info("%s is %s/%s in MLflow's registry", model.name, entry.name, entry.version)
        last = entry if is_last else last
    return last
