"""Versions in a real registry: once per weights, found by every name, bytes verified."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.home import Home
from models.base.files import weights_sha256
from tasks.registry.versions import find_version, list_versions, register
from tasks.tracking.null import NullTracker
from tasks.tracking.tracker import Tracker
from tests.tasks.registry.conftest import Ran

pytestmark = pytest.mark.thorough


def test_a_student_is_registered_once_per_weights_with_its_lineage(home: Home, tracker: Tracker, ran: Ran) -> None:
    first, again, other = ran("a", b"one"), ran("b", b"one"), ran("c", b"two")
    entries = [register(tracker, home, record, record.stages[-1]) for record in (first, again, other)]
    assert [entry.version for entry in entries] == ["1", "1", "2"]
    assert entries[0].name == "tiny"
    assert entries[0].ready
    tags = entries[0].tags
    assert (tags["ladder.run"], tags["ladder.stage"], tags["ladder.teachers"]) == ("a", "small", "teacher")
    assert first.teacher
    assert tags["ladder.teacher_runs"] == first.teacher.mlflow_run_id
    assert first.data
    assert tags["ladder.data_hash"] == first.data.content_hash
    assert [entry.version for entry in list_versions(tracker, "tiny")] == ["2", "1"]
    assert list_versions(tracker, "absent") == []


def test_a_version_is_found_by_alias_number_and_run(home: Home, tracker: Tracker, ran: Ran) -> None:
    first, second = ran("a", b"one"), ran("b", b"two")
    for record in (first, second):
        register(tracker, home, record, record.stages[-1])
    tracker.client.set_registered_model_alias("tiny", "champion", "2")
    for text in ("tiny@champion", "tiny/2", "b", "b:small", "tiny"):
        found = find_version(tracker, home, text)
        assert (found.label, found.run, found.aliases) == ("tiny/2", "b", ("challenger", "champion"))
        assert weights_sha256(found.folder) == found.weights_sha256 == second.stages[-1].weights_sha256
    unregistered = find_version(tracker, home, "a:teacher")
    assert (unregistered.version, unregistered.label) == (None, "a:teacher")
    assert find_version(NullTracker("tracking: off"), home, "a").folder == find_version(tracker, home, "tiny/1").folder


def test_a_wrong_name_is_refused_with_what_there_is(home: Home, tracker: Tracker, ran: Ran) -> None:
    record = ran("a", b"one")
    register(tracker, home, record, record.stages[-1])
    for text, says in (
        ("tiny@champion", "one of tiny/1"),
        ("tiny/7", "one of tiny/1"),
        ("tinny@champion", "Did you mean 'tiny'"),
        ("a:smal", "Did you mean 'small'"),
        ("nothing", "NAME@ALIAS, NAME/VERSION, RUN or RUN:STAGE"),
        ("a/b/c@d", "NAME@ALIAS"),
    ):
        with pytest.raises(UserError, match="allowed") as refused:
            find_version(tracker, home, text)
        assert says in str(refused.value)


def test_a_name_without_mlflow_is_refused_with_the_reason(home: Home) -> None:
    with pytest.raises(UserError, match="MLflow is off \\(tracking: off\\)"):
        find_version(NullTracker("tracking: off"), home, "tiny@champion")


def test_bytes_come_from_mlflow_where_the_store_was_cleaned_and_are_verified(home: Home, tracker: Tracker, ran: Ran) -> None:
    record = ran("a", b"one")
    register(tracker, home, record, record.stages[-1])
    shutil.rmtree(record.stages[-1].folder)
    found = find_version(tracker, home, "tiny/1")
    assert found.folder.is_relative_to(home.mlflow)
    assert weights_sha256(found.folder) == record.stages[-1].weights_sha256
    weights = next(Path(found.folder).glob("*.safetensors"))
    weights.write_bytes(b"eno")
    with pytest.raises(UserError, match=r"weights in .* have changed"):
        find_version(tracker, home, "tiny/1")
    shutil.rmtree(found.folder)
    with pytest.raises(UserError, match="in the store or in MLflow"):
        find_version(tracker, home, "tiny/1")
