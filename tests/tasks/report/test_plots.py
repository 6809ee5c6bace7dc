"""Pictures of the report: colours, smoothing, marks."""

from pathlib import Path

import pytest

from tasks.records.run import RunRecord
from tasks.report.page import TEMPLATES
from tasks.report.plots import curves, style
from tasks.report.plots.quality import quality_png, quality_svg


def test_a_model_has_one_colour_and_the_pictures_follow_the_theme(language: RunRecord) -> None:
    quality = quality_svg(language)
    assert quality
    for i, name in enumerate(("teacher", "300k", "100k", "30k")):
        assert f">{name}</text>" in quality
        assert f"var(--model-{i}, {style.MODELS[i]})" in quality
    curve = curves.read_curve(Path(language.stages[1].folder))
    assert curve
    drawn = curves.curves_svg({"100k": curve}, ["teacher", "300k", "100k", "30k"], "narrow")
    assert drawn
    assert "var(--model-2," in drawn
    assert "var(--model-0," not in drawn
    template = (TEMPLATES / "style.css").read_text()
    for colour, variable in style.VARIABLES.items():
        assert f"{variable}: {colour};" in template, "the light theme and the drawn colours have parted"
        assert template.count(f"{variable}: #") == 2, "a colour lacks its light or its dark form"


def test_the_png_is_a_picture(language: RunRecord) -> None:
    png = quality_png(language)
    assert png
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == 1840
    assert quality_png(language.model_copy(update={"teacher": None, "stages": ()})) is None


def test_smoothing_keeps_the_mean_and_the_ends_in_place(language: RunRecord) -> None:
    curve = curves.read_curve(Path(language.stages[0].folder))
    assert curve
    assert len(curve.train) == 399  # the lost value is left out
    drawn = curves.smooth(curve.train)
    assert len(drawn) == curves.POINTS
    assert (drawn[0, 0], drawn[-1, 0]) == (1, 400)
    assert drawn[:, 1].min() > curve.train[:, 1].min()
    constant = curve.train.copy()
    constant[:, 1] = 2.5
    assert curves.smooth(constant)[:, 1] == pytest.approx(2.5)


def test_as_many_looks_as_models_and_the_ends_are_named() -> None:
    for number in (1, 8, 12, 13, 40, 101):
        found = style.looks(number)
        assert len(found) == number
        assert found[0].named
        assert found[-1].named
        assert sum(look.named for look in found) == (number if number <= style.MANY else style.NAMED)
