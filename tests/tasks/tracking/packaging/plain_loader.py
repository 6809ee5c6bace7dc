"""Load models by MLflow's own API alone, and print their answers: run in a process of its own, without Ladder on its path.

`python plain_loader.py REQUESTS`: a JSON list of {"form": "transformers" or "pyfunc", "uri", "rows", "params"}; it prints a JSON list of
answers. A connection to another machine is an error, hence a look-up in the Hub.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from pathlib import Path
from typing import Any

assert importlib.util.find_spec("tasks") is None, "Ladder is on the path"
connect = socket.socket.connect


def on_this_machine(one: socket.socket, address: Any) -> None:
    assert one.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), f"it asks {address}"
    connect(one, address)


setattr(socket.socket, "connect", on_this_machine)  # noqa: B010 - the method of a class, which types forbid to assign

import mlflow  # noqa: E402
import torch  # noqa: E402


def logits(pipeline: Any, rows: list[Any]) -> list[Any]:
    """Of a pipeline's own model on what its own tokenizer or image processor makes of the rows."""
    found = []
    for row in rows:
        if pipeline.tokenizer is not None:
            inputs = pipeline.tokenizer(row, truncation=True, return_tensors="pt")
            inputs.pop("token_type_ids", None)
        else:
            inputs = pipeline.image_processor([torch.tensor(row, dtype=torch.uint8).numpy()], return_tensors="pt")
        with torch.no_grad():
            found.append(pipeline.model(**inputs).logits[0].tolist())
    return found


def answer(request: dict[str, Any]) -> Any:
    if request["form"] == "pyfunc":
        model = mlflow.pyfunc.load_model(request["uri"])
        assert model.input_example
        assert model.metadata.signature.inputs
        assert len(model.predict(model.input_example)) == 1
        return model.predict(request["rows"], params=request.get("params"))
    from mlflow.transformers import load_model

    pipeline: Any = load_model(request["uri"])
    return {"task": pipeline.task, "logits": logits(pipeline, request["rows"])}


print(json.dumps([answer(request) for request in json.loads(Path(sys.argv[1]).read_text())]))
