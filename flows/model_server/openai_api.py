"""Completions and chat completions, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conf.errors import UserError, reason_of
from flows.model_server.metrics import Metrics
from flows.model_server.openai_schema import ALLOWED, DEFAULT_TOKENS, ChatBody, Common, CompletionBody
from flows.model_server.predict_api import check_model
from flows.model_server.refusals import Refused, parse
from flows.model_server.serving import LiveModel
from flows.model_server.window_log import WindowLog, moment
from models.engines.base import GenerationSettings, LanguageModel, Token
from tasks.records.window import WindowRow

DONE = "data: [DONE]\n\n"
LONG_TEXT = 4096  # characters from which on a prompt is encoded in another thread


@dataclass
class Reply:
    """One answer as it grows."""

    prompt: list[int]
    settings: GenerationSettings
    text: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)

    @property
    def finish(self) -> str | None:
        """Why it ended."""
        return self.tokens[-1].finish if self.tokens else None


@dataclass
class Completion:
    """A checked request.

    Attributes:
        chat: Which of the two APIs.
        body: The request.
        asked: Its prompts as the client sent them, for windows.
        choices: An answer for each.
        loaded: The model.
        id: Of the answer.
        created: Seconds since 1970.
    """

    chat: bool
    body: Common
    asked: Sequence[Any]
    choices: list[Reply]
    loaded: LiveModel
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:24])
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def usage(self) -> dict[str, int]:
        """Tokens that were read and written."""
        read, wrote = (sum(len(part) for part in parts) for parts in ([c.prompt for c in self.choices], [c.tokens for c in self.choices]))
        return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}

    def envelope(self, choices: list[Any], chunk: bool) -> dict[str, Any]:
        """Object around the choices of an answer, or of a part of a stream."""
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        name = f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}"
        return {"id": name, "object": kind, "created": self.created, "model": self.loaded.source.label, "choices": choices}


async def prepare(document: Any, chat: bool, loaded: LiveModel) -> Completion:
    """Check a request, and encode its prompts.

    Raises:
        Refused: It is wrong, too long, or the model cannot answer it.
    """
    engine = loaded.engine
    if not isinstance(engine, LanguageModel):
        raise Refused(404, "This model gives classes: ask /predict.", None, "not_found")
    body: ChatBody | CompletionBody = parse(ChatBody if chat else CompletionBody, document, ALLOWED)
    check_model(body.model, loaded)
    asked: list[Any]
    if isinstance(body, ChatBody):
        asked, top, usual = [[m.model_dump(exclude_none=True) for m in body.messages]], body.top_logprobs or 0, None
        if body.top_logprobs is not None and not body.logprobs:
            raise Refused.about("top_logprobs", body.top_logprobs, ALLOWED["top_logprobs"], "Send logprobs: true, too.")
    else:
        asked, top, usual = body.prompts, body.logprobs or 0, DEFAULT_TOKENS
        if body.prompt_logprobs is not None and body.stream:
            raise Refused.about("prompt_logprobs", body.prompt_logprobs, ALLOWED["prompt_logprobs"], "Leave stream out.")
    choices: list[Reply] = []
    for prompt in asked:
        ids = await _ids(engine, prompt)
        room = None if engine.max_length is None else engine.max_length - len(ids)
        if room is not None and room < 1:
            key = "messages" if chat else "prompt"
            allowed = f"at most {len(ids) + room - 1} tokens, so that an answer fits"
            raise Refused.about(key, f"{len(ids)} tokens", allowed, "Shorten it.", code="context_length_exceeded")
        choices.append(Reply(ids, body.settings(room, usual, top)))
    return Completion(chat, body, asked, choices, loaded)


async def _ids(engine: LanguageModel, prompt: Any) -> list[int]:
    if isinstance(prompt, list) and isinstance(prompt[0], int):
        if max(prompt) >= engine.vocabulary:
            raise Refused.about("prompt", max(prompt), f"ids below {engine.vocabulary}", "Send a text, or ids of this model's tokenizer.")
        return prompt
    try:
        size = len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)
        return engine.ids(prompt) if size < LONG_TEXT else await asyncio.to_thread(engine.ids, prompt)
    except UserError as error:
        raise Refused(400, str(error), "messages") from None


async def steps(job: Completion, metrics: Metrics) -> AsyncIterator[tuple[int, Token]]:
    """The tokens of all choices, each with the number of its choice; leaving it early cancels what is left.

    Raises:
        Refused: 500, if the engine fails.
    """
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    items: asyncio.Queue[tuple[int, Token | BaseException]] = asyncio.Queue()
    engine = job.loaded.engine
    assert isinstance(engine, LanguageModel)

    def emitter(index: int) -> Any:
        return lambda item: loop.call_soon_threadsafe(items.put_nowait, (index, item))

    metrics.tokens.labels("prompt").inc(job.usage["prompt_tokens"])
    running = {index: engine.start(choice.prompt, choice.settings, emitter(index)) for index, choice in enumerate(job.choices)}
    try:
        first = True
        while running:
            index, item = await items.get()
            if isinstance(item, BaseException):
                raise Refused(500, f"The model failed: {reason_of(item)}.", None, "engine_failed")
            if first:
                metrics.first_token.observe(time.perf_counter() - began)
                first = False
            if item.finish == "cancelled":
                raise Refused(503, "The answer was cut off, as the server ends.", None, "cancelled", 1)
            metrics.tokens.labels("completion").inc()
            job.choices[index].tokens.append(item)
            job.choices[index].text.append(item.text)
            if item.finish:
                del running[index]
            yield index, item
    finally:
        for generation in running.values():
            generation.cancel()


async def whole(job: Completion, metrics: Metrics, windows: WindowLog) -> dict[str, Any]:
    """The answer in one piece."""
    async for _ in steps(job, metrics):
        pass
    log_windows(job, windows)
    choices = [{**_choice(job, index), **await _of_prompt(job, index)} for index in range(len(job.choices))]
    return {**job.envelope(choices, chunk=False), "usage": job.usage}


async def _of_prompt(job: Completion, index: int) -> dict[str, Any]:
    """Log-probabilities at each id of the prompt by id, as vLLM shapes them, where they were asked for."""
    top, engine = getattr(job.body, "prompt_logprobs", None), job.loaded.engine
    if top is None:
        return {}
    assert isinstance(engine, LanguageModel)
    found = await asyncio.to_thread(engine.prompt_logprobs, job.choices[index].prompt, top)
    if found is None:
        raise Refused.about("prompt_logprobs", top, "null, for a model that does not run in PyTorch", "Leave it out.")
    return {"prompt_logprobs": [None, *({str(number): {"logprob": value} for number, value in place.items()} for place in found)]}


async def stream(job: Completion, metrics: Metrics, windows: WindowLog) -> AsyncGenerator[str, None]:
    """The answer as server-sent events; an error after the first of them is an event, too."""
    options = job.body.stream_options
    if job.chat:
        yield _event(job.envelope([_part(0, {"delta": {"role": "assistant", "content": ""}}, None)], chunk=True))
    try:
        async for index, token in steps(job, metrics):
            content: dict[str, Any] = {"delta": {"content": token.text} if token.text else {}} if job.chat else {"text": token.text}
            if token.text or token.finish or _wants_logprobs(job):
                yield _event(job.envelope([_part(index, content, token.finish, _logprobs(job, index, [token]))], chunk=True))
    except Refused as error:
        yield _event(error.document)
        return
    log_windows(job, windows)
    if options is not None and options.include_usage:
        yield _event({**job.envelope([], chunk=True), "usage": job.usage})
    yield DONE


def _event(document: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def _choice(job: Completion, index: int) -> dict[str, Any]:
    choice, text = job.choices[index], "".join(job.choices[index].text)
    content: dict[str, Any] = {"message": {"role": "assistant", "content": text, "refusal": None}} if job.chat else {"text": text}
    return _part(index, content, choice.finish, _logprobs(job, index, choice.tokens))


def _part(index: int, content: dict[str, Any], finish: str | None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, **content, "finish_reason": finish, "logprobs": logprobs}


def _wants_logprobs(job: Completion) -> bool:
    wanted = getattr(job.body, "logprobs", None)
    return wanted is not None and wanted is not False


def _logprobs(job: Completion, index: int, tokens: Sequence[Token]) -> dict[str, Any] | None:
    """Log-probabilities as each of the two APIs shapes them; None where they were not asked for, or the engine tells none."""
    if not _wants_logprobs(job) or any(token.logprob is None for token in tokens):
        return None
    if job.chat:
        return {
            "content": [{**_named(t.token, t.logprob), "top_logprobs": [_named(*each) for each in t.top]} for t in tokens],
            "refusal": None,
        }
    choice = job.choices[index]
    begin = sum(len(text) for text in choice.text) - sum(len(token.text) for token in tokens)
    offsets: list[int] = []
    for token in tokens:
        offsets.append(begin)
        begin += len(token.text)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [dict(token.top) for token in tokens],
        "text_offset": offsets,
    }


def _named(token: str, logprob: float | None) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def log_windows(job: Completion, windows: WindowLog) -> None:
    """Log a sample of the answers."""
    for number, (asked, choice) in enumerate(zip(job.asked, job.choices, strict=True)):
        if windows.chosen():
            values = [token.logprob for token in choice.tokens if token.logprob is not None]
            windows.add(
                WindowRow(
                    time=moment(),
                    input=asked,
                    prediction="".join(choice.text),
                    confidence=sum(values) / len(values) if values else None,
                    model=job.loaded.source.label,
                    request=f"{job.id}-{number}",
                )
            )
