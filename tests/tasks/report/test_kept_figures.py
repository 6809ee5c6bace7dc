"""A figure is drawn once for all runs that show the same, and anew where anything that it shows has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.report.plots import kept
from tasks.report.plots.kept import keeping
from tasks.report.plots.quality import Control, quality_png, quality_svg
from tests.factories import model_record, run_record


def a_run(name: str = "tiny-1", bits: float = 2.0, **more: object):
    models = [model_record(each, metrics={"bits_per_byte": bits}, **more) for each in ("teacher", "100k")]
    return run_record(name, teacher=models[0], stages=(models[1],))


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_another_run_with_the_same_models_finds_the_figure(tmp_path: Path) -> None:
    plain = quality_svg(a_run())
    assert files(tmp_path / "figures") == [], "nothing is kept unasked"
    with keeping(tmp_path / "figures"):
        assert quality_svg(a_run()) == plain
        (first,) = files(tmp_path / "figures")
        written = first.read_bytes()
        assert quality_svg(a_run("tiny-2", reused=True, reused_from="tiny-1")) == plain
        assert files(tmp_path / "figures") == [first]
        first.write_bytes(b"damaged" + written)
        assert quality_svg(a_run()) == plain
        assert first.read_bytes() == written


def test_whatever_it_shows_is_in_its_key(tmp_path: Path) -> None:
    with keeping(tmp_path / "figures"):
        drawn = {
            quality_svg(a_run()),
            quality_svg(a_run(bits=2.1)),
            quality_svg(a_run(), "narrow"),
            quality_svg(a_run(), "wide", [Control("control", 1000, 3.0)]),
            quality_svg(a_run(), "wide", (), {"100k": (1.9, 2.2)}),
        }
        picture = quality_png(a_run())
        assert picture is not None
        assert quality_png(a_run("tiny-9")) == picture
        assert quality_svg(run_record("tiny-3")) is quality_svg(run_record("tiny-4")) is None
    assert len(drawn) == 5
    assert len(files(tmp_path / "figures")) == 7


def test_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 4)
    draw = kept.kept(lambda number: str(number))
    with keeping(tmp_path):
        assert [draw(number) for number in range(9)] == [str(number) for number in range(9)]
        assert 0 < len(files(tmp_path)) <= 4
        assert draw(8) == "8"


def test_a_full_disk_costs_the_time_alone(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("a file where the folder would be")
    with keeping(tmp_path / "figures"):
        assert quality_svg(a_run()) == quality_svg(a_run())
