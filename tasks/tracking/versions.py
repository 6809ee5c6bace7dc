"""Versions of registered models as MLflow lists them: entries, names, aliases.

Functions of an open `Tracker`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.tracking.client import is_server, translate_errors
from tasks.tracking.models import link_version, location, model_of
from tasks.tracking.registry import all_pages, or_none
from tasks.tracking.runs import again_after_race, log_figures, set_tags
from tasks.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"  # aliases
CLAIM = "ladder.claim."  # begins the tag of a registered model that a process is changing
CLAIM_SECONDS = 120.0


@dataclass(frozen=True)
class ListedVersion:
    """A version as MLflow lists it; its bytes are not looked at."""

    name: str
    version: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    created: float  # seconds since 1970
    ready: bool
    description: str


def create_version(tracker: Tracker, name: str, run_id: str, tags: Mapping[str, str], description: str, about: str) -> ListedVersion | None:
    """Make a version of the model that a run has recorded; its bytes are the recorded ones, not a copy.

    Args:
        tracker: The record in MLflow.
        name: The registered model; made where it is not there.
        run_id: MLflow run of the stage.
        tags: Of the version.
        description: Text of the version's page.
        about: Text of the registered model's page, where it is made.

    Returns:
        The version; None where the run has recorded no model.
    """
    client = tracker.client
    with translate_errors(tracker.home, tracker.address):
        model_id = model_of(client, run_id)
        if model_id is None:
            return None

        def make_name() -> None:
            if or_none(lambda: client.get_registered_model(name)) is None:
                client.create_registered_model(name, description=about)

        again_after_race(make_name)
        source, own = location(client, model_id)
        # A server takes a model's id only with files of the model's own place; a run's files belong to the run.
        linked = model_id if not is_server(tracker.address) or source.startswith(own) else None
        made = client.create_model_version(name, source, run_id, tags=dict(tags), description=description, model_id=linked)
        if linked and not is_server(tracker.address):  # as a server does, for the model's page
            link_version(client, model_id, name, str(made.version))
        return _entry(made, ())


def list_versions(tracker: Tracker, name: str) -> list[ListedVersion]:
    """All versions of a ladder's model, the newest first; empty where MLflow has no such model.

    Raises:
        RecordUnavailable: MLflow does not answer.
    """
    client = tracker.client
    with translate_errors(tracker.home, tracker.address):
        model = or_none(lambda: client.get_registered_model(name))
        if model is None:
            return []
        found = all_pages(lambda **page: client.search_model_versions(f"name = '{name}'", **page))
    aliases: dict[str, list[str]] = {}
    for alias, version in model.aliases.items():
        aliases.setdefault(str(version), []).append(alias)
    entries = [_entry(version, tuple(sorted(aliases.get(str(version.version), ())))) for version in found]
    return sorted(entries, key=lambda entry: int(entry.version), reverse=True)


def list_names(tracker: Tracker) -> list[str]:
    """Names of all registered models."""
    with translate_errors(tracker.home, tracker.address):
        return sorted(model.name for model in all_pages(lambda **page: tracker.client.search_registered_models(**page)))


def _entry(version: ModelVersion, aliases: tuple[str, ...]) -> ListedVersion:
    return ListedVersion(
        name=version.name,
        version=str(version.version),
        aliases=aliases,
        tags=dict(version.tags or {}),
        created=version.creation_timestamp / 1000,
        ready=version.status == "READY",
        description=version.description or "",
    )


def alias_of(tracker: Tracker, name: str, alias: str = CHAMPION) -> str | None:
    """The version with an alias; None where there is none."""
    with translate_errors(tracker.home, tracker.address):
        model = or_none(lambda: tracker.client.get_registered_model(name))
    version = model.aliases.get(alias) if model else None
    return None if version is None else str(version)


def move_alias(tracker: Tracker, name: str, alias: str, version: str | None) -> None:
    """Put an alias on a version; None: take it away."""
    with translate_errors(tracker.home, tracker.address):
        if version is not None:
            tracker.client.set_registered_model_alias(name, alias, version)
        elif alias_of(tracker, name, alias) is not None:
            tracker.client.delete_registered_model_alias(name, alias)


def tag_version(tracker: Tracker, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    with translate_errors(tracker.home, tracker.address):
        for key, value in tags.items():
            tracker.client.set_model_version_tag(name, version, key, value)


def log_judgement(tracker: Tracker, name: str, version: str, tags: Mapping[str, str], figures: Mapping[str, float]) -> None:
    """Set tags of a version and of the run that made it, and log figures of that run."""
    client = tracker.client
    tag_version(tracker, name, version, tags)
    with translate_errors(tracker.home, tracker.address):
        run_id = client.get_model_version(name, version).run_id
        run = or_none(lambda: client.get_run(run_id)) if run_id else None
        if run is not None:
            log_figures(client, run, figures)
            set_tags(client, run.info.run_id, tags)


@contextmanager
def claim(tracker: Tracker, name: str) -> Iterator[bool]:
    """Claim a registered model for the moment of a change; gives False where another process, of any home, has claimed it.

    MLflow cannot change an alias on a condition. Each process first writes a claim of its own as a tag, then looks: it goes on only
    if there is no other. Of two at once at most one goes on, perhaps none. The claim of a process that died lapses after `CLAIM_SECONDS`.
    """
    client, own = tracker.client, f"{CLAIM}{secrets.token_hex(8)}"
    with translate_errors(tracker.home, tracker.address):
        client.set_registered_model_tag(name, own, str(time.time()))
        try:
            tags = client.get_registered_model(name).tags
            others = [key for key, since in tags.items() if key.startswith(CLAIM) and key != own and not _lapsed(since)]
            yield not others
            lapsed = [key for key, since in tags.items() if key.startswith(CLAIM) and key != own and _lapsed(since)]
            for key in lapsed:
                client.delete_registered_model_tag(name, key)
        finally:
            client.delete_registered_model_tag(name, own)


def _lapsed(since: str) -> bool:
    try:
        return time.time() - float(since) > CLAIM_SECONDS
    except ValueError:
        return True
