"""A model of pictures with texts answers in MLflow's `pyfunc` form as it does in transformers."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from transformers import AutoProcessor

from tasks.tracking.package import About, write_package
from tests.vision_models import TEMPLATE, picture, png, save_model


@pytest.mark.filterwarnings("ignore")  # MLflow's, of its own annotations
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_answers_are_those_of_transformers(tmp_path: Path, template: str | None) -> None:
    folder, target, parts = tmp_path / "vlm", tmp_path / "package", tmp_path / "parts"
    model = save_model(folder, "idefics3", template)
    target.mkdir()
    parts.mkdir()
    write_package(folder, parts, About("image-text", "run", "m-1", str(target), None, {}), target)
    for path in folder.iterdir():
        shutil.copy(path, target)
    loaded: Any = mlflow.pyfunc.load_model(str(target))
    rows = [json.dumps({"image": base64.b64encode(png(picture(n))).decode(), "prompt": f"row {n}?"}) for n in range(2)]
    found = loaded.predict(rows, params={"max_new_tokens": 3})
    own = AutoProcessor.from_pretrained(str(folder), backend="pil")
    for number, answer in enumerate(found):
        text = f"<image>row {number}?"
        if template is not None:
            asked = [{"type": "image"}, {"type": "text", "text": f"row {number}?"}]
            text = own.apply_chat_template([{"role": "user", "content": asked}], add_generation_prompt=True)
        inputs = own(text=[text], images=[picture(number)], return_tensors="pt")
        written = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        assert answer == own.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert loaded.predict(loaded.input_example)
    with pytest.raises(MlflowException, match="row 0 is no JSON object of image and prompt"):
        loaded.predict(["What?"])
    with pytest.raises(MlflowException, match="row 0 is no image file in base64"):
        loaded.predict([json.dumps({"image": "bm8gaW1hZ2U=", "prompt": "x"})])
