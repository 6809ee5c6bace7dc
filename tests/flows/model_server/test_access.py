"""Who is let in, and what is bounded."""

import stat
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest

from conf.errors import UserError
from flows.model_server.access import read_token
from tests.flows.model_server.conftest import Serve

TOKEN = "a-token-of-many-letters"


def test_a_token_is_asked_for_everywhere_but_for_probes(serve: Serve) -> None:
    running = serve("causal-lm", token=TOKEN)
    body = {"model": "tiny", "prompt": "a", "max_tokens": 2}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": f"Bearer {TOKEN}x"}):
        for path in ("/v1/models", "/metrics", "/nothing"):
            assert running.get(path, headers=headers).status_code == 401
        assert running.post("/v1/completions", body, headers=headers).json()["error"]["code"] == "invalid_api_key"
    assert running.get("/health").status_code == running.get("/ready").status_code == 200
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=TOKEN, max_retries=0)
    assert client.completions.create(**body).choices[0].finish_reason == "length"


def test_other_host_names_and_pages_of_other_origins_are_refused(serve: Serve) -> None:
    running = serve("sequence-classification")
    assert running.post("/predict", {"inputs": ["a"]}, headers={"Host": "evil.example"}).status_code == 400
    assert running.post("/predict", {"inputs": ["a"]}, headers={"Origin": "http://evil.example"}).status_code == 403
    form = httpx.post(f"{running.url}/predict", content=b'{"inputs": ["a"]}', headers={"Content-Type": "text/plain"})
    assert form.status_code == 415
    assert running.post("/predict", {"inputs": ["a"]}).status_code == 200


def test_a_token_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = read_token(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) > 30
    assert read_token(path) == token
    path.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        read_token(path)
    path.chmod(0o600)
    for wrong in ("", "short", "two words of sixteen letters"):
        path.write_text(wrong)
        with pytest.raises(UserError, match="content not shown"):
            read_token(path)
    with pytest.raises(UserError, match="existing folder"):
        read_token(tmp_path / "none" / "token")


def test_more_requests_than_the_queue_holds_are_asked_to_come_again(serve: Serve) -> None:
    running = serve("causal-lm", max_queue=1)
    short = {"model": "tiny", "prompt": "b", "max_tokens": 1}
    with running.state.admission.of(1):
        refused = running.post("/v1/completions", short)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert running.post("/v1/completions", short).status_code == 200


def test_a_body_beyond_the_limit_is_refused_before_it_is_read_whole(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.model_server.app.MOST_BYTES", 1000)
    refused = serve("sequence-classification").post("/predict", {"inputs": ["a" * 2000]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (413, "body")


def test_answers_under_way_are_finished_at_the_end(serve: Serve) -> None:
    running = serve("causal-lm")
    got: list[httpx.Response] = []
    body = {"model": "tiny", "prompt": "a", "max_tokens": 150, "temperature": 1, "seed": 1}
    asking = threading.Thread(target=lambda: got.append(running.post("/v1/completions", body)))
    asking.start()
    while not running.figure("ladder_in_flight"):
        time.sleep(0.001)
    running.end()
    asking.join(30)
    assert got[0].status_code == 200
    assert got[0].json()["choices"][0]["finish_reason"] in ("stop", "length")
    with pytest.raises(httpx.ConnectError):
        running.get("/health")
