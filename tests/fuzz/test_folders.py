"""A teacher's folder with anything wrong in it is refused in one message, or it teaches."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import LadderError, UserError
from tests.fuzz.folders import WORKLOADS, ladder_for, make_folder, mutated, mutations, trial
from tests.fuzz.tried import tried

MOST = 1500  # characters of a message


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    import transformers

    transformers.utils.logging.set_verbosity_error()


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[] if kind == "gpt2" else pytest.mark.slow) for kind in WORKLOADS])
def test_a_mutated_folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    source = tmp_path_factory.mktemp(kind)
    every = list(mutations(make_folder(kind, source)))
    trial(ladder_for(kind), source, tmp_path_factory.mktemp("home"))

    @settings(settings.get_profile("fuzz"))
    @given(st.sampled_from(every))
    def refused_or_taught(mutation) -> None:
        place, said = tmp_path_factory.mktemp("mutated"), ": got "
        try:
            trial(ladder_for(kind), mutated(source, place / "base", mutation), place / "home")
            tried(f"{kind}: it teaches")
        except UserError as error:
            tried(f"{kind}: refused")
            said = str(error)
        except Exception as error:
            raise AssertionError(f"{kind}, {mutation.name}: {type(error).__name__}: {error}") from error
        finally:
            shutil.rmtree(place)
        assert ": got " in said, (mutation.name, said)
        assert "\n" not in said
        assert len(said) < MOST, (mutation.name, said)

    refused_or_taught()


def test_a_folder_whose_path_is_too_long_or_loops(tmp_path: Path) -> None:
    make_folder("llama", tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("x" * 300, "a/" * 3000, "loop", "teacher/config.json", "teacher\0", ""):
        ladder = ladder_for("llama")
        ladder = ladder.model_copy(update={"teacher": ladder.teacher.model_copy(update={"path": path})})
        with pytest.raises(LadderError, match=r"^teacher\.path: "):
            trial(ladder, tmp_path, tmp_path / "home")
