"""A budget shortens a ladder by what was measured here, the same way each time; one that is too short is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.home import Home
from conf.loading.load import load, load_whole
from conf.schema.ladder import Ladder
from tasks.planning.budget import PLANNED_SHARE, fit_budget, parse_budget
from tasks.proof.arms import replicate
from tasks.training.identity import untaught

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("1d", 86400)])
def test_a_budget_is_read(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 minutes", "0m", "1.5h", "5w"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"--budget: got .*; allowed: a whole number with s, m, h or d"):
        parse_budget(text)


def steps_of(overrides: tuple[str, ...]) -> dict[str, int]:
    return {key: int(value) for key, _, value in (text.partition("=") for text in overrides)}


def seconds_in(words: str) -> float:
    found = re.search(r"about (\d+) s", words)
    assert found is not None
    return float(found[1])


def test_a_ladder_is_shortened_and_the_same_budget_does_it_alike(tmp_path: Path) -> None:
    loaded, home = load("digits"), Home(tmp_path)
    generous = fit_budget(loaded, "9d", home)
    assert generous.overrides == ()
    assert "the whole ladder fits" in generous.words
    needed = seconds_in(generous.words)

    with pytest.raises(UserError, match=r"--budget: got '1s'; allowed: at least (\d+)s for digits on this machine") as caught:
        fit_budget(loaded, "1s", home)
    least = int(re.findall(r"at least (\d+)s", str(caught.value))[0])
    assert least < needed

    half = f"{round((least / PLANNED_SHARE + needed) / 2)}s"
    first = fit_budget(loaded, half, home)
    assert fit_budget(loaded, half, home).overrides == first.overrides
    assert "by a calibration remembered from before" in first.words
    assert steps_of(first.overrides).keys() == {
        "teacher.training.steps",
        *(f"stages.{stage.name}.training.steps" for stage in loaded.ladder.stages),
        "evaluation.examples",
    }
    shortened = load_whole(loaded.ladder, first.overrides).ladder
    before = [stage.training.steps for stage in loaded.ladder.stages]
    after = [stage.training.steps for stage in shortened.stages]
    assert all(10 <= now < then for now, then in zip(after, before, strict=True))
    shares = [now / then for now, then in zip(after, before, strict=True)]
    assert max(shares) - min(shares) < 0.02

    more = steps_of(fit_budget(loaded, f"{round(needed * 0.98)}s", home).overrides)
    assert all(value >= steps_of(first.overrides)[key] for key, value in more.items())


def test_all_that_is_trained_shares_the_budget(tmp_path: Path) -> None:
    loaded, home = load("digits"), Home(tmp_path)
    seeds = [replicate(loaded.ladder, number) for number in range(50)]
    alone = [each.model_copy(update={"stages": tuple(map(untaught, each.stages))}) for each in seeds]

    def needed(*trained: Ladder) -> float:
        return seconds_in(fit_budget(loaded, "9d", home, trained).words)

    assert needed(loaded.ladder) == needed()
    assert needed(*[loaded.ladder] * 50) == needed(), "the same training is found in the store"
    assert needed(*seeds) - needed() == pytest.approx(49 * (needed(*seeds[:2]) - needed()), abs=50)
    assert needed(*seeds) > 10 * needed()
    assert needed(*alone) < needed(*seeds), "no teacher is asked"


def test_another_batch_size_is_measured_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    fit_budget(load("digits"), "9d", home)
    kept = (tmp_path / "calibration.json").stat().st_size
    fit_budget(load("digits", ["stages.half.gate.policy=warn"]), "9d", home)
    assert (tmp_path / "calibration.json").stat().st_size == kept, "a gate changes no pace"
    fit_budget(load("digits", ["stages.half.training.batch_size=8"]), "9d", home)
    assert (tmp_path / "calibration.json").stat().st_size > kept
