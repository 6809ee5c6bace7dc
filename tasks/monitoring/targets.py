"""The versions to watch: champions, or a run's last student without MLflow."""

from __future__ import annotations

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load
from tasks.monitoring.reference import Watched, watched
from tasks.registry.versions import find_version, list_names, list_versions
from tasks.runtime.runs.run_registry import list_runs
from tasks.tracking.null import NullTracker
from tasks.tracking.tracker import Tracker
from tasks.tracking.versions import CHAMPION


def logged_share(tracker: Tracker | NullTracker, home: Home, text: str) -> float:
    """`monitoring.log_share` of the run that made a model; 0 where that run is not kept.

    Raises:
        UserError: There is no such model.
        RecordUnavailable: MLflow does not answer.
    """
    settings = home.runs / find_version(tracker, home, text).run / "ladder.yaml"
    return load(str(settings)).ladder.monitoring.log_share if settings.is_file() else 0.0


def targets(tracker: Tracker | NullTracker, home: Home, text: str) -> list[Watched]:
    """The versions that a name stands for.

    Args:
        tracker: The record in MLflow.
        home: Home of the runs.
        text: `NAME@ALIAS`, `NAME/VERSION`, `NAME` for its champion, or a run; empty: every champion. Where MLflow is off, a ladder's name
            stands for the last student of its newest finished run, and an empty text for that of the newest run.

    Raises:
        UserError: There is no such version, nothing was promoted, or its run or data are gone.
        RecordUnavailable: MLflow does not answer.
    """
    if isinstance(tracker, NullTracker):
        done = [record for record in list_runs(home) if record.status == "done" and record.stages]
        named = next((record.run for record in done if not text or record.ladder == text), None)
        if named is None and not text:
            raise UserError.about("MODEL", "none", "a finished run, as MLflow is off", "Run a ladder first.")
        return [watched(home, find_version(tracker, home, named or text))]
    if text:
        return [watched(home, find_version(tracker, home, text))]
    names = [name for name in list_names(tracker) if any(CHAMPION in entry.aliases for entry in list_versions(tracker, name))]
    if not names:
        raise UserError.about("MODEL", "none", "a promoted model", "`ladder promote` makes a champion; or name a run.")
    return [watched(home, find_version(tracker, home, f"{name}@{CHAMPION}")) for name in names]
