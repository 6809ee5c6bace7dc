"""The tracker of runs that are not recorded in MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from conf.errors import UserError
from tasks.runtime.logs import log


@dataclass(frozen=True)
class NullTracker:
    """Stands in for `Tracker` where MLflow is off: runs get no ids, and nothing imports mlflow.

    Attributes:
        reason: The setting or variable that turned MLflow off.
    """

    reason: str
    uri: None = None

    def open_ladder(self, *_: object, **__: object) -> None:
        """Log once per run that it is not recorded in MLflow; it has no id there."""
        log.info("MLflow is off (%s): the run is kept in the store and in its own folder", self.reason)

    def experiment(self, _: str) -> None:
        """No experiment, hence no id."""

    def resolve_model(self, uri: str) -> NoReturn:
        """Refuse a recorded model.

        Raises:
            UserError: Always: the model lies in MLflow.
        """
        allowed = f"a folder, a GGUF file, a package or a hub id, as MLflow is off ({self.reason})"
        raise UserError.about("teacher.path", uri, allowed, "Turn MLflow on, or download the model and name its folder.")
