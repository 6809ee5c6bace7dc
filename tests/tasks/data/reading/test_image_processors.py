"""The teacher's own image processor makes the pixels, and the identity of image corpora."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from conf.errors import UserError
from conf.schema.data import FilesData, PictureData
from conf.schema.ladder import Ladder
from models.data import image_processors as processors
from models.data.batches import TrainingBatches
from models.data.images import ImageReader
from tasks.data.identity import corpus_identity
from tests.tasks.data.reading.pictures import SHAPE, build, class_folders, ladder, picture


def checkpoint(folder: Path, processor: Any, channels: int = 3) -> Path:
    folder.mkdir()
    processor.save_pretrained(str(folder))
    (folder / "config.json").write_text(json.dumps({"num_channels": channels}))
    return folder


KINDS = [
    transformers.ViTImageProcessorPil(size={"height": 8, "width": 8}),
    transformers.ConvNextImageProcessorPil(size={"shortest_edge": 8}),
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
    transformers.EfficientNetImageProcessorPil(size={"height": 8, "width": 8}),
]


@pytest.mark.parametrize("processor", KINDS, ids=lambda each: type(each).__name__)
def test_a_batch_holds_what_the_teachers_processor_makes(tmp_path: Path, processor: Any) -> None:
    class_folders(tmp_path / "pictures", 12, (20, 13))
    teacher = checkpoint(tmp_path / "teacher", processor)
    corpus, info = build(ladder({"source": "files", "paths": ["pictures"]}, {"source": "checkpoint", "path": "teacher"}), tmp_path, teacher)
    assert info.image_shape == (3, 8, 8)
    bytes_stored = type(processor).__name__ != "EfficientNetImageProcessorPil"
    assert (corpus.split("train").values.dtype == np.uint8) is bytes_stored, "floats only where bytes do not do"
    batches = TrainingBatches(corpus, len(corpus.split("train")), seed=0)
    made = batches.at(0).inputs["pixel_values"].numpy()
    wanted = [processors.pixels(processor, picture(number, (20, 13))) for number in range(12)]
    for image in made:
        assert min(np.abs(image - each).max() for each in wanted) < 1e-5
    assert corpus.processor_folder is not None
    again = transformers.AutoImageProcessor.from_pretrained(corpus.processor_folder, backend="pil")
    assert again.to_dict() == processor.to_dict(), "students carry the teacher's"


def test_a_size_of_ones_own_keeps_the_teachers_normalisation(tmp_path: Path) -> None:
    teacher = checkpoint(tmp_path / "teacher", KINDS[0])
    reader = ImageReader(PictureData.model_validate({"resize": {"size": [4, 4]}}), teacher)
    assert reader.read(picture(0), "", "data")[0].shape == (3, 4, 4)
    assert reader.pixels is not None
    assert reader.pixels.mean == (0.5, 0.5, 0.5)


def test_a_grey_teacher_gets_grey_images(tmp_path: Path) -> None:
    one = transformers.ViTImageProcessorPil(size={"height": 4, "width": 4}, image_mean=[0.5], image_std=[0.25])
    reader = ImageReader(PictureData(), checkpoint(tmp_path / "grey", one, channels=1))
    assert reader.read(picture(0), "", "data")[0].shape == (1, 4, 4)
    with pytest.raises(UserError, match=r"data\.channels: got 1.*cannot take 1"):
        ImageReader(PictureData(channels=1), checkpoint(tmp_path / "colour", KINDS[0]))


def test_identities(tmp_path: Path) -> None:
    class_folders(tmp_path / "pictures")
    data = {"source": "files", "paths": ["pictures"]}

    def of(more: dict[str, Any], processor: str | None = None) -> dict[str, Any]:
        return corpus_identity(ladder({**data, **more}), tmp_path, None, processor)

    assert of({}) != of({"channels": 1})
    assert of({}) != of({"resize": {"size": [4, 4]}})
    assert of({}) != of({}, "another processor")
    digits = corpus_identity(ladder({"source": "digits"}), tmp_path, None)
    assert "images" not in digits, "corpora of digits are found again"
    (tmp_path / "a.txt").write_text("text")
    text = Ladder.model_validate({**ladder(data).model_dump(exclude={"teacher", "stages"}), **text_models(), "workload": "causal-lm"})
    text = text.model_copy(update={"data": FilesData(paths=("a.txt",))})
    known = corpus_identity(text, tmp_path, None)
    assert "images" not in known
    assert not {"resize", "channels"} & set(known["data"]), "nor are those of text made anew"


def text_models() -> dict[str, Any]:
    shape = {**SHAPE, "family": "llama"}
    return {
        "teacher": {"source": "train", "shape": shape, "training": {"steps": 1}},
        "stages": [{"name": "only", "student": {"shape": shape}, "training": {"steps": 1}}],
    }
