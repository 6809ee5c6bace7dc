"""The API of language models, asked by OpenAI's own client."""

import httpx
import openai
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.flows.model_server.conftest import Running, Serve


def client_of(running: Running, token: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key=token, max_retries=0, timeout=30)


@pytest.fixture
def language(serve: Serve) -> Running:
    return serve("causal-lm", max_length=64)


def test_a_completion_is_the_one_of_plain_transformers_whole_and_streamed(language: Running) -> None:
    folder = language.state.serving.current.source.place
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("abc", return_tensors="pt")
    output = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, 3:]
    text = tokenizer.decode(output, skip_special_tokens=True)
    client = client_of(language)
    answer = client.completions.create(model="tiny", prompt="abc", max_tokens=12, temperature=0)
    assert answer.choices[0].text == text
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, len(output))
    assert answer.choices[0].finish_reason == "length"
    parts = list(client.completions.create(model="tiny@champion", prompt="abc", max_tokens=12, temperature=0, stream=True))
    assert "".join(part.choices[0].text for part in parts) == text
    assert parts[-1].choices[0].finish_reason == "length"


def test_a_conversation_is_answered_by_the_template_whole_and_streamed(language: Running) -> None:
    client = client_of(language)
    asked = [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]
    options = {"model": "tiny/1", "messages": asked, "seed": 5, "max_completion_tokens": 8, "temperature": 0.7, "top_p": 0.9}
    answer = client.chat.completions.create(**options)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("<system>be<user>hi<assistant>")
    parts = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == answer.choices[0].message.content
    assert parts[-1].usage == answer.usage


def test_log_probabilities_stop_texts_and_several_prompts(language: Running) -> None:
    client = client_of(language)
    answer = client.completions.create(model="tiny", prompt=["ab", "xyz"], max_tokens=6, temperature=0, logprobs=3)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.token_logprobs is not None
        assert choice.logprobs.top_logprobs is not None
        assert choice.logprobs.token_logprobs[0] == max(choice.logprobs.top_logprobs[0].values())
    text = answer.choices[1].text
    stopped = client.completions.create(model="tiny", prompt="xyz", max_tokens=6, temperature=0, stop=[text[2:4]])
    assert stopped.choices[0].text == text[: text.index(text[2:4])]
    assert stopped.choices[0].finish_reason == "stop"
    chat = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "a"}], max_tokens=2, temperature=0, logprobs=True, top_logprobs=2
    )
    assert chat.choices[0].logprobs is not None
    assert chat.choices[0].logprobs.content is not None
    assert len(chat.choices[0].logprobs.content[0].top_logprobs) == 2


def test_models_are_listed_under_every_name(language: Running) -> None:
    client = client_of(language)
    assert [model.id for model in client.models.list()] == ["tiny", "tiny@champion", "tiny/1"]
    assert client.models.retrieve("tiny@champion").owned_by == "ladder"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="tiny@champion"):
        client.completions.create(model="other", prompt="a")


def test_a_conversation_without_a_template_is_refused(serve: Serve) -> None:
    running = serve("causal-lm", template=None)
    with pytest.raises(openai.BadRequestError, match="chat template"):
        client_of(running).chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a"}])


WRONG: list[tuple[dict[str, object], str, str]] = [
    ({"prompt": 5}, "prompt", "a list of up to 64 texts"),
    ({"prompt": []}, "prompt", "a list of up to 64 texts"),
    ({"prompt": "x" * 64}, "prompt", "at most 63 tokens"),
    ({"prompt": [300]}, "prompt", "ids below 258"),
    ({"max_tokens": 0}, "max_tokens", "a whole number from 1"),
    ({"max_tokens": "5"}, "max_tokens", "a whole number from 1"),
    ({"max_tokens": 63}, "max_tokens", "at most 62"),
    ({"temperature": 3}, "temperature", "from 0 to 2"),
    ({"top_p": 0}, "top_p", "above 0"),
    ({"n": 2}, "n", "1"),
    ({"stop": [""]}, "stop", "not empty"),
    ({"logprobs": 21}, "logprobs", "from 0 to 20"),
    ({"echo": True}, "echo", "false"),
    ({"max_token": 5}, "max_token", "the keys model"),
    ({"model": None}, "model", "the name of the model"),
]


def test_a_wrong_request_is_refused_with_key_value_and_what_is_allowed(language: Running) -> None:
    for changed, key, allowed in WRONG:
        answer = language.post("/v1/completions", {"model": "tiny", "prompt": "ab", **changed})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["type"]) == (400, key, "invalid_request_error"), changed
        assert allowed in error["message"]


def test_bodies_that_are_no_json_and_wrong_addresses(language: Running) -> None:
    for content in (b"", b"{", b"[" * 100_000, b'{"prompt": "\\ud800"}', b"\xff"):
        answer = httpx.post(f"{language.url}/v1/completions", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, content[:10]
        assert answer.json()["error"]["param"] == "body"
    assert (
        language.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user"}]}).json()["error"]["param"]
        == "messages[0].content"
    )
    assert "POST /v1/completions" in language.get("/v1/nothing").json()["error"]["message"]
    assert language.get("/predict").status_code == 404
    assert "/v1/completions" in language.post("/predict", {"inputs": ["a"]}).json()["error"]["message"]


def test_a_client_that_leaves_ends_its_answer(serve: Serve) -> None:
    running = serve("causal-lm")
    body = {"model": "tiny", "prompt": "a", "max_tokens": 2000, "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/completions", json=body) as answer:
        next(answer.iter_lines())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{running.url}/v1/completions", json={**body, "stream": False}, timeout=0.2)
    for _ in range(200):
        if running.state.serving.current.users == 0:
            break
        httpx.get(f"{running.url}/health")
    assert running.state.serving.current.users == 0
    assert running.figure("ladder_in_flight") == 0
    assert running.figure("ladder_tokens_total", kind="completion") < 4000
