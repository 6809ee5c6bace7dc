"""Parameters of the deployed flows: the forms, and the same refusals by the API."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.flows.driver import ask_prefect, clean_environment, run_python

REGISTER = """
from flows.distill import distill
from flows.one_stage import one_stage
print(distill.to_deployment("form").apply(), one_stage.to_deployment("form").apply())
"""


@pytest.fixture(scope="module")
def deployments(prefect_api: str, tmp_path_factory) -> tuple[str, str]:
    """Ids of deployments that nobody serves."""
    env = clean_environment(PREFECT_API_URL=prefect_api, PREFECT_HOME=str(tmp_path_factory.mktemp("client")))
    made = run_python(REGISTER, env=env)
    assert made.code == 0, made.err
    first, second = made.out.split()
    return first, second


def schema(api: str, deployment: str) -> dict:
    return ask_prefect("GET", f"{api}/deployments/{deployment}").raise_for_status().json()["parameter_openapi_schema"]


def test_the_form_has_descriptions_choices_bounds_and_defaults(prefect_api: str, deployments: tuple[str, str]):
    whole = schema(prefect_api, deployments[0])
    form = whole["properties"]
    assert list(form) == ["ladder", "overrides", "start_at", "seed", "fresh", "budget", "route", "name", "note", "by"]
    assert all(field["description"] for field in form.values())
    assert "required" not in whole or whole["required"] == [], "an engineer may submit the form as it is"
    assert form["overrides"]["default"] == []
    assert form["fresh"]["default"] is False
    assert "digits: half, quarter, eighth; " in form["start_at"]["description"], "the stages of the shipped ladders are named"
    assert form["route"]["enum"][:3] == ["", "as-written", "direct"]
    shipped, path = form["ladder"]["anyOf"]
    assert {"digits", "python-stdlib", "llama-1b"} <= set(shipped["enum"])
    assert path["type"] == "string"
    assert form["seed"].items() >= {"type": "integer", "minimum": -1, "exclusiveMaximum": 2**31, "default": -1}.items()


def create(api: str, deployment: str, parameters: dict) -> httpx.Response:
    return ask_prefect("POST", f"{api}/deployments/{deployment}/create_flow_run", json={"parameters": parameters})


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"seed": -2}, "-2 is less than the minimum of -1"),
        ({"seed": "x"}, "'x' is not of type 'integer'"),
        ({"ladder": "digit"}, "'digit' is not valid under any of the given schemas"),
        ({"overrides": ["alpha"]}, "'alpha' does not match"),
        ({"start_at": "no such/name"}, "'no such/name' does not match"),
        ({"name": "two words"}, "'two words' does not match"),
        ({"fresh": "perhaps"}, "'perhaps' is not of type 'boolean'"),
    ],
)
def test_the_api_refuses_what_the_form_refuses_in_the_same_words(prefect_api: str, deployments, parameters: dict, words: str):
    # The form asks this address while one types.
    body = {"schema": schema(prefect_api, deployments[0]), "values": parameters}
    told = ask_prefect("POST", f"{prefect_api}/ui/schemas/validate", json=body).raise_for_status().json()
    assert not told["valid"]
    assert words in json.dumps(told)
    refused = create(prefect_api, deployments[0], parameters)
    assert refused.status_code == httpx.codes.CONFLICT
    assert words in refused.json()["detail"]


def test_what_is_right_is_taken(prefect_api: str, deployments: tuple[str, str], tiny):
    for parameters in ({}, {"ladder": str(tiny), "seed": 3, "overrides": ["stages.one.training.steps=5"], "start_at": "one"}):
        made = create(prefect_api, deployments[0], parameters)
        assert made.is_success, made.text
        ask_prefect("DELETE", f"{prefect_api}/flow_runs/{made.json()['id']}").raise_for_status()
