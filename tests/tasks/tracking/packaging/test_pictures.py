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

from tasks.tracking.packaging.package import About, write_package
from tests.vision_models import TEMPLATE, picture, png, save_clip, save_model


def packed(folder: Path, workload: str, place: Path) -> Any:
    """The folder of a model in MLflow's form, loaded."""
    target, parts = place / "package", place / "parts"
    target.mkdir()
    parts.mkdir()
    write_package(folder, parts, About(workload, "run", "m-1", str(target), None, {}), target)
    for path in folder.iterdir():
        shutil.copy(path, target)
    return mlflow.pyfunc.load_model(str(target))


@pytest.mark.filterwarnings("ignore")  # MLflow's, of its own annotations
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_answers_are_those_of_transformers(tmp_path: Path, template: str | None) -> None:
    folder = tmp_path / "vlm"
    model = save_model(folder, "idefics3", template)
    loaded = packed(folder, "image-text", tmp_path)
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


@pytest.mark.filterwarnings("ignore")  # MLflow's, of its own annotations
def test_embeddings_are_those_of_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    model = save_clip(folder)
    loaded = packed(folder, "image-text-embedding", tmp_path)
    image = base64.b64encode(png(picture(1))).decode()
    found = loaded.predict([json.dumps({"image": image}), json.dumps({"text": "kind 1"})])
    own = AutoProcessor.from_pretrained(str(folder), backend="pil")
    made = model(**own(text=["kind 1"], images=[picture(1)], return_tensors="pt"))
    assert found[0] == pytest.approx(made.image_embeds[0].tolist(), abs=1e-6)
    assert found[1] == pytest.approx(made.text_embeds[0].tolist(), abs=1e-6)
    assert len(loaded.predict(loaded.input_example)[0]) == 12
    with pytest.raises(MlflowException, match="row 0 is no JSON object of image or text"):
        loaded.predict([json.dumps({"image": image, "text": "x"})])
