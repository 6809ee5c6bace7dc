"""`POST /predict`: classes of texts and of images as plain JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
import uuid
from typing import Any

from conf.errors import UserError
from flows.model_server.batching import Admission
from flows.model_server.refusals import Body, Refused, parse
from flows.model_server.serving import LiveModel
from flows.model_server.window_log import WindowLog, moment
from models.data.images import open_picture
from models.engines.base import Classifier, Prediction
from tasks.records.window import WindowRow

ALLOWED = {
    "inputs": "a list of one or more texts, or of images as base64",
    "truncate": "true or false",
    "model": "the name of the model, as /v1/models lists it",
}
DATA_URL = "data:"
MOST_PIXELS = 40_000_000  # of one image: 120 MB in memory


class PredictBody(Body):
    """A request for classes."""

    inputs: list[str]
    truncate: bool = False
    model: str | None = None


async def predict(document: Any, loaded: LiveModel, admission: Admission, windows: WindowLog) -> dict[str, Any]:
    """Answer a request.

    Args:
        document: Its parsed JSON.
        loaded: The model.
        admission: Room for rows.
        windows: Told of rows and answers.

    Raises:
        Refused: The request is wrong or too large, or too many wait.
    """
    engine = loaded.engine
    if not isinstance(engine, Classifier) or loaded.batcher is None:
        raise Refused(404, "This model is a language model: ask /v1/completions.", None, "not_found")
    body = parse(PredictBody, document, ALLOWED)
    check_model(body.model, loaded)
    if not body.inputs:
        raise Refused.about("inputs", [], ALLOWED["inputs"], "Send at least one.")
    with admission.of(len(body.inputs)):
        rows = await _rows(engine, body)
        predictions = await loaded.batcher.predict(rows)
    _log_windows(body, predictions, loaded, windows)
    return {"model": loaded.source.label, "labels": list(engine.labels), "predictions": [_shape(each) for each in predictions]}


def check_model(wanted: str | None, loaded: LiveModel) -> None:
    """Refuse a request for another model.

    Raises:
        Refused: 404.
    """
    source = loaded.source
    names = (source.name, source.label, *source.aliases)
    if wanted is not None and wanted not in names:
        raise Refused.about(
            "model", wanted, " or ".join(dict.fromkeys(names)), "Leave it out, or name the model that is served.", 404, "model_not_found"
        )


def _log_windows(body: PredictBody, predictions: list[Prediction], loaded: LiveModel, windows: WindowLog) -> None:
    """Log a sample of rows and answers."""
    request = uuid.uuid4().hex[:24]
    for number, (given, prediction) in enumerate(zip(body.inputs, predictions, strict=True)):
        if windows.chosen():
            image = base64_bytes(given, "inputs") if isinstance(loaded.engine, Classifier) and loaded.engine.images else None
            row = WindowRow(
                time=moment(),
                input=given if image is None else None,
                prediction=prediction.label,
                confidence=prediction.probability,
                model=loaded.source.label,
                request=f"{request}-{number}",
            )
            windows.add(row, image)


async def _rows(engine: Classifier, body: PredictBody) -> list[Any]:
    if engine.images:
        return await asyncio.to_thread(lambda: [_picture(text, f"inputs[{index}]") for index, text in enumerate(body.inputs)])
    if not body.truncate and engine.max_length is not None:
        lengths = await asyncio.to_thread(engine.lengths, body.inputs)
        for index, length in enumerate(lengths):
            if length > engine.max_length:
                remedy = 'Shorten it, or send "truncate": true to have it cut as in training.'
                allowed = f"at most {engine.max_length} tokens"
                raise Refused.about(f"inputs[{index}]", f"{length} tokens", allowed, remedy, status=413, code="too_long")
    return list(body.inputs)


def base64_bytes(text: str, key: str) -> bytes:
    """The bytes behind base64, or behind a data URL.

    Raises:
        Refused: It is neither.
    """
    if text.startswith(DATA_URL):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused.about(key, text[:40], "an image as base64", "Encode the bytes of its file.") from None


def _picture(text: str, key: str) -> Any:
    try:
        return open_picture(base64_bytes(text, key), key, "the request", most_pixels=MOST_PIXELS)
    except UserError as error:
        raise Refused(400, str(error), key) from None


def _shape(prediction: Prediction) -> dict[str, Any]:
    return {"label": prediction.label, "probability": prediction.probability, "probabilities": list(prediction.probabilities)}
