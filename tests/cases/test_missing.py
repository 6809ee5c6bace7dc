"""Rows of a dataset that lack an image or a label."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from conf.errors import UserError
from conf.schema.data import DatasetData
from tasks.data.reading.sources import read_source


def test_rows_without_image_are_refused_or_left_out(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [None if number == 2 else Image.new("L", (4, 4), number) for number in range(4)]
    datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, -1]}, features=features).save_to_disk(str(tmp_path / "saved"))
    source = read_source(DatasetData(name="saved", missing="drop"), "image-classification", tmp_path)
    assert [each.label for each in source.documents] == [0, 1]
    assert source.dropped == {"image": 1, "label": 1}
    with pytest.raises(UserError, match=r"data\.columns\.image: got 'image'.*saved, row 2 has none: data\.missing=drop"):
        read_source(DatasetData(name="saved"), "image-classification", tmp_path)
