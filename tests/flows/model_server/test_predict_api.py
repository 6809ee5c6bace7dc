"""Classes of texts and images as plain JSON."""

import asyncio
import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.model_server.batching import RowBatcher
from flows.model_server.metrics import Metrics
from models.engines.base import Classifier, Prediction
from models.engines.load import load_engine
from tasks.export.write import write_files
from tests.flows.model_server.conftest import Running, Serve
from tests.published import published_folder


def engine_of(running: Running, workload: str) -> Classifier:
    engine = load_engine(running.state.serving.current.source.place, workload)
    assert isinstance(engine, Classifier)
    return engine


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_texts_of_many_clients_are_answered_as_one_by_one_and_in_batches(serve: Serve) -> None:
    running = serve("sequence-classification", batch=8)
    engine = engine_of(running, "sequence-classification")
    texts = [f"text number {i} {'x' * (i % 5)}" for i in range(40)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda text: running.post("/predict", {"inputs": [text]}).json(), texts))
    for text, answer in zip(texts, answers, strict=True):
        (wanted,), (found,) = engine.predict([text]), answer["predictions"]
        assert found["label"] == wanted.label
        assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)
        assert answer["model"] == "tiny/1"
        assert answer["labels"] == list(engine.labels)
    assert running.figure("ladder_batch_rows_sum") == 40
    assert running.figure("ladder_batch_rows_count") < 40
    assert running.figure("ladder_requests_total", path="/predict", status="200") == 40


def test_images_come_as_base64_or_as_data_urls(serve: Serve) -> None:
    running = serve("image-classification")
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16)
    (wanted,) = engine_of(running, "image-classification").predict([image])
    answer = running.post("/predict", {"inputs": [encoded(image), f"data:image/png;base64,{encoded(image)}"]}).json()
    for found in answer["predictions"]:
        assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)


@pytest.mark.slow  # a graph is traced
def test_an_onnx_export_answers_images_as_the_student(serve: Serve, tmp_path: Path) -> None:
    student, export = published_folder(tmp_path / "student", "image-classification"), tmp_path / "onnx"
    export.mkdir()
    write_files("onnx", student, "image-classification", export)
    running = serve("image-classification", folder=export, kind="onnx")
    own = load_engine(student, "image-classification")
    assert isinstance(own, Classifier)
    images = [Image.fromarray(np.roll(np.arange(16, dtype=np.uint8).reshape(4, 4) * 16, i)) for i in range(9)]
    answer = running.post("/predict", {"inputs": [encoded(image) for image in images]}).json()
    for wanted, found in zip(own.predict(images), answer["predictions"], strict=True):
        assert found["label"] == wanted.label
        assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)


def test_wrong_images_are_refused_by_their_place(serve: Serve) -> None:
    running = serve("image-classification")
    for wrong, allowed in (
        ("no base64!", "an image as base64"),
        (base64.b64encode(b"no image").decode(), "readable images"),
        (encoded(Image.new("L", (8000, 6000))), "at most 40,000,000 pixels"),
    ):
        answer = running.post("/predict", {"inputs": [encoded(Image.new("L", (4, 4))), wrong]})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "inputs[1]")
        assert allowed in answer.json()["error"]["message"]


def test_wrong_texts_are_refused_with_key_value_and_what_is_allowed(serve: Serve) -> None:
    running = serve("sequence-classification", max_queue=4)
    for body, status, key, allowed in (
        ({"inputs": "text"}, 400, "inputs", "a list of one or more texts"),
        ({"inputs": []}, 400, "inputs", "a list of one or more texts"),
        ({"inputs": ["a", 5]}, 400, "inputs[1]", "a list of one or more texts"),
        ({"input": ["a"], "inputs": ["a"]}, 400, "input", "inputs, truncate, model"),
        ({}, 400, "inputs", "a list of one or more texts"),
        ([], 400, "body", "a JSON object"),
        ({"inputs": ["a"], "model": "other"}, 404, "model", "tiny"),
        ({"inputs": ["a", "x" * 64]}, 413, "inputs[1]", "at most 64 tokens"),
        ({"inputs": ["a"] * 5}, 413, "inputs", "at most 4"),
    ):
        answer = running.post("/predict", body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, key), (body, answer.text)
        assert allowed in answer.json()["error"]["message"]
    whole, cut = (running.post("/predict", {"inputs": ["x" * n], "truncate": True}).json()["predictions"] for n in (63, 500))
    assert whole == cut
    assert running.post("/v1/completions", {"model": "tiny", "prompt": "a"}).status_code == 404


class Odd(Classifier):
    """Refuses one word, and any batch with it."""

    kind, images, max_length, labels = "torch", False, None, ("a", "b")

    def warm(self) -> None: ...

    def lengths(self, rows: Sequence[Any]) -> list[int]:
        return [1] * len(rows)

    def predict(self, rows: Sequence[Any]) -> list[Prediction]:
        if "bad" in rows:
            raise ValueError("bad")
        return [Prediction(row, 1.0, (1.0, 0.0)) for row in rows]


def test_a_row_that_the_model_fails_on_costs_its_own_request_alone() -> None:
    async def ask() -> list[Any]:
        batcher = RowBatcher(Odd(), 16, Metrics())
        return await asyncio.gather(*(batcher.predict([word]) for word in ("one", "bad", "two")), return_exceptions=True)

    one, bad, two = asyncio.run(ask())
    assert (one[0].label, two[0].label) == ("one", "two")
    assert isinstance(bad, ValueError)
