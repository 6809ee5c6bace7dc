"""The application of a model server: its addresses, and the life of a request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from conf.errors import reason_of
from flows.model_server import openai_api
from flows.model_server.batching import Admission
from flows.model_server.metrics import Metrics
from flows.model_server.predict_api import predict
from flows.model_server.refusals import Refused
from flows.model_server.serving import Serving
from flows.model_server.switching import Follower
from flows.model_server.window_log import WindowLog
from models.engines.base import Classifier
from tasks.runtime.logs import log

MOST_BYTES = 32 * 2**20  # of a request's body
CLOSED_BY_CLIENT = 499  # for the metrics alone, as nginx writes it
Handler = Callable[[Request, Any], Awaitable[Response]]


@dataclass
class State:
    """State shared by all requests."""

    serving: Serving
    admission: Admission
    metrics: Metrics
    windows: WindowLog
    follower: Follower | None
    draining: bool = False

    @property
    def health(self) -> dict[str, Any]:
        """Status of the model, its engine and the registry; the server itself works as long as it can report it."""
        loaded, follower = self.serving.current, self.follower
        source = loaded.source
        failed = follower.failed if follower else {}
        away = follower.away if follower else None
        registry = "not followed" if follower is None else f"away: {away}" if away else "answers"
        return {
            "status": "degraded" if failed or away else "ok",
            "model": source.label,
            "name": source.name,
            "workload": source.workload,
            "engine": source.kind,
            "max_length": loaded.engine.max_length,
            "registry": registry,
            "failed": failed,
            "draining": self.draining,
        }


class _HeldStream(StreamingResponse):
    """A stream that gives back what its request holds however it ends, also if it never began."""

    def __init__(self, parts: AsyncGenerator[str, None], held: ExitStack) -> None:
        super().__init__(parts, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._parts, self._held = parts, held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with self._held:
                await self._parts.aclose()


def create(state: State) -> FastAPI:
    """The application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(state.follower.run()) if state.follower else None
        yield
        if following:
            following.cancel()
        await asyncio.to_thread(state.windows.close)
        await asyncio.to_thread(state.serving.current.close)

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan, redirect_slashes=False)

    async def predicting(request: Request, document: Any) -> Response:
        with state.serving.lease() as loaded:
            answer = predict(document, loaded, state.admission, state.windows)
            return JSONResponse(await _unless_gone(request, answer))

    async def completing(request: Request, document: Any) -> Response:
        return await _language(request, document, chat=False, state=state)

    async def chatting(request: Request, document: Any) -> Response:
        return await _language(request, document, chat=True, state=state)

    for path, handler in (("/predict", predicting), ("/v1/completions", completing), ("/v1/chat/completions", chatting)):
        app.add_api_route(path, _answered(path, handler, state.metrics), methods=["POST"], response_model=None)

    async def health() -> Response:
        return JSONResponse(state.health)

    async def ready() -> Response:
        return JSONResponse({"ready": not state.draining}, 503 if state.draining else 200)

    async def metrics() -> Response:
        return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def models() -> Response:
        return JSONResponse({"object": "list", "data": _models(state)})

    async def model(name: str) -> Response:
        found = next((each for each in _models(state) if each["id"] == name), None)
        names = ", ".join(each["id"] for each in _models(state))
        return JSONResponse(found) if found else Refused.about("model", name, names, "Name one of them.", 404, "model_not_found").response

    for path, answer in (
        ("/health", health),
        ("/ready", ready),
        ("/metrics", metrics),
        ("/v1/models", models),
        ("/v1/models/{name:path}", model),
    ):
        app.add_api_route(path, answer, methods=["GET"], response_model=None)

    async def unknown(request: Request, _: Exception) -> Response:
        places = "/predict" if isinstance(state.serving.current.engine, Classifier) else "/v1/completions, /v1/chat/completions"
        known = f"POST {places}; GET /health, /ready, /metrics, /v1/models"
        return Refused(404, f"{request.method} {request.url.path} does not exist here. There are: {known}.", None, "not_found").response

    app.add_exception_handler(404, unknown)
    app.add_exception_handler(405, unknown)
    return app


async def _language(request: Request, document: Any, chat: bool, state: State) -> Response:
    with ExitStack() as held:
        loaded = held.enter_context(state.serving.lease())
        job = await openai_api.prepare(document, chat, loaded)
        held.enter_context(state.admission.of(len(job.choices)))
        if job.body.stream:
            return _HeldStream(openai_api.stream(job, state.metrics, state.windows), held.pop_all())
        return JSONResponse(await _unless_gone(request, openai_api.whole(job, state.metrics, state.windows)))


def _models(state: State) -> list[dict[str, Any]]:
    source = state.serving.current.source
    names = dict.fromkeys((source.name, *source.aliases, source.label))
    return [{"id": name, "object": "model", "created": source.created, "owned_by": "ladder"} for name in names]


def _answered(path: str, handler: Handler, metrics: Metrics) -> Callable[[Request], Awaitable[Response]]:
    """A route that reads JSON, and counts and times what becomes of a request."""

    async def route(request: Request) -> Response:
        began, status = time.perf_counter(), 500
        try:
            response = await handler(request, await _read_json(request))
            status = response.status_code
        except Refused as refused:
            status, response = refused.status, refused.response
        except asyncio.CancelledError:
            status, response = CLOSED_BY_CLIENT, Response(status_code=CLOSED_BY_CLIENT)
        except Exception as error:  # noqa: BLE001  of the model; every request gets an answer
            log.error("%s failed: %s", path, reason_of(error))
            response = Refused(500, f"The model failed: {reason_of(error)}.", None, "engine_failed").response
        metrics.requests.labels(path, str(status)).inc()
        metrics.seconds.labels(path).observe(time.perf_counter() - began)
        return response

    return route


async def _unless_gone(request: Request, work: Awaitable[Any]) -> Any:
    """The result of some work, which is cancelled when the client closes the connection.

    Raises:
        CancelledError: The client has gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        return await task
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read_json(request: Request) -> Any:
    """The body of a request.

    Raises:
        Refused: It is too large, or no JSON.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise Refused.about(
                "body", f"more than {MOST_BYTES} bytes", f"at most {MOST_BYTES} bytes", "Send fewer inputs.", 413, "too_large"
            )
        parts.append(part)
    raw = b"".join(parts)
    try:
        document = json.loads(raw)
        if b"\\u" in raw:
            json.dumps(document, ensure_ascii=False).encode()  # fails for halves of letters, which no tokenizer takes
    except (ValueError, RecursionError) as error:
        raise Refused.about("body", raw[:40].decode(errors="replace"), "JSON in UTF-8", f"{reason_of(error)}.") from None
    return document
