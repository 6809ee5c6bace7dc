"""An endpoint that is away, slow, busy, or answers nonsense: bounded tries and one clear message; the key stays secret."""

import threading
import time

import pytest
from pydantic import ValidationError

from conf.errors import LadderError, RunCancelled, TransientError, UserError
from conf.schema.generate import Endpoint
from models.generation import endpoint as module
from models.generation.endpoint import EndpointClient, seconds_to_wait, text_of
from tests.endpoints import endpoint

pytestmark = pytest.mark.thorough

EMPTY = '{"choices": []}'


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def client_of(url: str, **settings: object) -> EndpointClient:
    return EndpointClient(Endpoint.model_validate({"url": url, "model": "m", "retries": 2, "timeout": 5.0} | settings))


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_answers_are_counted_and_priced(api: str) -> None:
    with endpoint() as server:
        client = client_of(server.url, api=api, price_in=2.0, price_out=4.0)
        content = {"prompt": "abc"} if api == "completions" else {"messages": [{"role": "user", "content": "abc"}]}
        assert text_of(client.ask({**content, "top_k": 5})) == ("cba", "stop")
    assert server.bodies[0]["model"] == "m"
    assert server.bodies[0]["top_k"] == 5  # what OpenAI's client does not know arrives, too
    assert (client.usage.requests, client.usage.read, client.usage.written, client.usage.uncounted) == (1, 3, 3, 0)
    assert client.usage.price(client.endpoint) == pytest.approx((3 * 2 + 3 * 4) / 1e6)


@pytest.mark.parametrize("trouble", [429, 500, 503, "no JSON", "[1]", EMPTY, '{"choices": [{"index": 0}]}', '{"choices": 3}'])
def test_a_trouble_that_passes_is_tried_again(trouble: object) -> None:
    lines: list[str] = []
    with endpoint() as server:
        server.troubles = [trouble] * 2
        client = client_of(server.url)
        client._on_retry = lines.append
        assert text_of(client.ask({"prompt": "ab"}, once="one"))[0] == "ba"
    assert server.tried == 3
    assert server.once == ["one"] * 3
    assert len(lines) == client.usage.retries == 2


@pytest.mark.parametrize("trouble", [503, "no JSON", EMPTY, "slow"])
def test_a_trouble_that_stays_ends_after_the_tries_with_one_message(trouble: object) -> None:
    with endpoint() as server:
        server.troubles = [trouble] * 9
        client = client_of(server.url, timeout=0.2)
        with pytest.raises(TransientError, match="no usable answer in 3 tries") as caught:
            client.ask({"prompt": "ab"})
    assert server.tried == 3
    assert server.url in str(caught.value)


def test_an_endpoint_that_is_away() -> None:
    with endpoint() as server:
        url = server.url
    with pytest.raises(TransientError, match="no connection") as caught:
        client_of(url).ask({"prompt": "ab"})
    assert "Is it up?" in str(caught.value)


def test_retry_after_holds_all_threads() -> None:
    with endpoint() as server:
        server.troubles = [(429, {"retry-after": "0.4"})]
        client, began = client_of(server.url), time.monotonic()
        client.ask({"prompt": "a"})
        assert time.monotonic() - began >= 0.4
        server.troubles = [(429, {"retry-after": "3600"})]
        with pytest.raises(TransientError, match="asks to wait 3600 s"):
            client.ask({"prompt": "b"})


def test_seconds_to_wait() -> None:
    assert seconds_to_wait("2") == 2
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [seconds_to_wait(header) for header in (None, "soon", "")] == [None] * 3
    assert seconds_to_wait("nan") == 0
    assert seconds_to_wait("-1") == 0


def test_the_pace_is_kept() -> None:
    with endpoint() as server:
        client, began = client_of(server.url, requests_per_minute=600), time.monotonic()
        for letter in "abcd":
            client.ask({"prompt": letter})
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("state", [400, 401, 403, 404, 422])
def test_a_refusal_is_not_asked_again(state: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with endpoint() as server:
        server.troubles = [state]
        with pytest.raises(UserError, match=f"HTTP {state}") as caught:
            client_of(server.url).ask({"prompt": "ab"})
    assert server.tried == 1
    assert "very-secret" not in str(caught.value)


def test_the_key_is_sent_and_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sk-very-secret")
    with endpoint(lambda prompt: prompt) as server:
        client = client_of(server.url, key="MY_API_KEY")
        client.ask({"prompt": "ab"})
        assert server.keys == {"Bearer sk-very-secret"}
        server.troubles = [(400, {}, b'{"error": {"message": "wrong key sk-very-secret"}}')]
        with pytest.raises(LadderError) as caught:
            client.ask({"prompt": "ab"})
    assert "very-secret" not in str(caught.value)
    assert "***" in str(caught.value)
    assert "very-secret" not in repr(vars(client.endpoint))


def test_closing_ends_what_waits() -> None:
    with endpoint() as server:
        server.troubles = [(429, {"retry-after": "30"})]
        settings = client_of(server.url).endpoint
        # It waits from a retry on, with no request under way.
        client = EndpointClient(settings, on_retry=lambda line: threading.Timer(0.1, lambda: client.close()).start())
        with pytest.raises(RunCancelled):
            client.ask({"prompt": "ab"})


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://user:secret@x/v1", "http://x/v1?key=secret", "x"])
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="url") as caught:
        Endpoint(url=url, model="m")
    assert "secret" not in caught.value.errors()[0]["msg"]


def test_a_key_variable_must_be_one() -> None:
    with pytest.raises(ValueError, match="key"):
        Endpoint(url="http://x/v1", model="m", key="HOME")
