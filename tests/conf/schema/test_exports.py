"""Exports by name or mapping, and their tolerances."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from conf.schema.shipping.exports import Export
from conf.schema.shipping.formats import BOUNDS, SHORT


def test_every_short_name_is_an_export_with_bounds() -> None:
    named = {short: Export.model_validate(short).name for short in SHORT}
    assert named == {name: name for name in SHORT} | {"gguf": "gguf-f16"}
    assert set(named.values()) == set(BOUNDS)


def test_settings_take_the_place_of_usual_bounds() -> None:
    assert Export.model_validate("onnx-int8").bounds == BOUNDS["onnx-int8"]
    bounds = Export(format="gguf", dtype="q8_0", max_kl=0.5, min_agreement=0.25, max_difference=3.0).bounds
    assert bounds == (0.5, 0.25, 3.0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("onxx", "got 'onxx'; allowed: hf, onnx, onnx-int8, gguf, gguf-f32, gguf-f16, gguf-q8_0, or a mapping with format."),
        ({"format": "onnx", "dtype": "f16"}, "dtype: got 'f16'; allowed: none, for onnx"),
    ],
)
def test_other_names_and_dtypes_of_others_are_refused(given: object, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Export.model_validate(given)
    assert words in str(caught.value)
