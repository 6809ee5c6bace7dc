"""A flow has its result, or its error, also where the answer of Prefect's server to its end is lost."""

from __future__ import annotations

import pytest

from tests.flows.driver import clean_environment, run_python

# The first answer to the end of a flow is lost after the server has taken it; its client then tells it again.
PROGRAM = """
import sys
import httpx
from prefect import flow
from conf.errors import GateStopped
from flows.adapter.steps import cancellable, result_of

lost, send = [], httpx.Client.send

def loses_one(self, request, **options):
    answer = send(self, request, **options)
    if request.url.path.endswith("/set_state") and sys.argv[1].encode() in request.content and not lost:
        lost.append(answer)
        raise httpx.ReadTimeout("lost", request=request)
    return answer

httpx.Client.send = loses_one

@flow(persist_result=False)
@cancellable
def made():
    if sys.argv[1] == "FAILED":
        raise GateStopped("too poor")
    return ["a record"]

state = made(return_state=True)
assert lost and state.data is None, (lost, state)
print(repr(result_of(state, raise_on_failure=False)))
"""


@pytest.mark.parametrize(("end", "says"), [("COMPLETED", "['a record']"), ("FAILED", "GateStopped('too poor')")])
def test_what_a_flow_returned_is_known(prefect_api: str, end: str, says: str) -> None:
    done = run_python(PROGRAM, end, env=clean_environment(PREFECT_API_URL=prefect_api))
    assert done.out.splitlines()[-1:] == [says], done.err
