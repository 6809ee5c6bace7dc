"""Held-out pictures in files, read as the ladder's own data are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from conf.errors import UserError
from conf.schema.data import FilesData
from models.data.corpus import SPLITS
from tasks.data.prepare import prepare_data, prepare_like
from tasks.runtime.runs.run_registry import Context
from tests.tasks.data.builders import ladder


def test_grey_pictures_are_read_in_one_channel_where_the_ladder_has_one(tmp_path: Path) -> None:
    digits: Any = load_digits()
    for place in range(60):
        (tmp_path / "fresh" / str(digits.target[place])).mkdir(parents=True, exist_ok=True)
        picture = (digits.images[place] * 255 / 16).round().astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "fresh" / str(digits.target[place]) / f"{place}.png")
    made = ladder("image-classification", {"source": "digits", "valid_fraction": 0.2, "test_fraction": 0.2})
    context = Context(run="run-1", ladder="tiny", home=str(tmp_path / "home"), base=str(tmp_path))
    own = prepare_data(made, context).corpus()
    fresh = FilesData(paths=(f"{tmp_path}/fresh/*/*.png",))
    found = prepare_like(own, "--data", fresh, made, context).corpus()
    assert found.info.image_shape == own.info.image_shape == (1, 8, 8)
    assert found.info.label_names == own.info.label_names
    parts = [found.split(name) for name in SPLITS]
    values = np.concatenate([found.info.pixels.of(part.values[:]) if found.info.pixels else part.values[:] for part in parts])
    assert len(values) == 60
    assert np.sort(values.reshape(60, -1).mean(-1)) == pytest.approx(np.sort(digits.images[:60].mean((1, 2)) / 16), abs=1 / 255)
    (tmp_path / "fresh" / "7").rename(tmp_path / "fresh" / "seven")
    with pytest.raises(UserError, match=r"of the labels in the data: 0, 1, .*, seven"):
        prepare_like(own, "--data", fresh, made, context)
