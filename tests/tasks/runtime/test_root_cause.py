"""The error that a run ends with where Prefect's server fails."""

import httpx
import pytest

from conf import home as homes
from conf.errors import ServerAway, StoreError
from tasks.runtime.prefect_client import root_cause


def answered(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1:4200/api/flow_runs/1/set_state")
    return httpx.HTTPStatusError(f"HTTP {status}", request=request, response=httpx.Response(status, request=request))


def raised_while(handled: Exception, error: Exception) -> Exception:
    try:
        try:
            raise handled
        except type(handled):
            raise error  # noqa: B904 - as Prefect's engine does
    except type(error) as found:
        return found


def test_the_runs_own_error_counts_and_not_that_of_the_server_that_could_not_note_it() -> None:
    full = StoreError("the disk is full")
    assert root_cause(raised_while(full, answered(500))) is full


def test_a_server_that_fails_on_a_full_disk_is_said_to_be_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "LEAST_FREE", 2**62)
    assert isinstance(found := root_cause(answered(500)), StoreError)
    assert "No space left on device" in str(found)


def test_a_server_that_fails_is_named_with_what_it_answers() -> None:
    assert isinstance(found := root_cause(answered(503)), ServerAway)
    assert "failed (HTTP 503)" in str(found)


@pytest.mark.parametrize("error", [ValueError("a fault of ours"), answered(422)])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert root_cause(error) is error


def test_a_circle_of_causes_ends() -> None:
    first, second = answered(404), ValueError("its cause")
    first.__cause__, second.__context__ = second, first
    assert root_cause(first) is first


def test_a_fault_while_an_error_is_handled_is_not_hidden_by_it() -> None:
    fault = raised_while(StoreError("the disk is full"), ValueError("a fault of ours"))
    assert root_cause(fault) is fault
