"""Overrides reach no environment, which files of ladders may read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conf.errors import UserError
from conf.loading.load import load, load_whole
from tests.conf.loading.test_path_policy import LADDER

SECRET = "a-secret-of-the-environment"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_TEST_SECRET", SECRET)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "ladder.yaml").write_text(LADDER)
    return tmp_path


def outcome(root: Path, overrides: list[str], text: str = LADDER) -> str:
    """Everything that a person gets to see of a ladder with these overrides: all its settings, or the refusal."""
    (root / "tried.yaml").write_text(text)
    try:
        return str(load(str(root / "tried.yaml"), overrides).ladder)
    except UserError as error:
        return str(error)


READ = "{oc.env:LADDER_TEST_SECRET}"


class TestOverridesReachNothing:
    @pytest.mark.parametrize(
        "value",
        [
            f"${READ}",
            f'"\\x24{READ}"',
            f'"\\u0024{READ}"',
            '"$\\x7boc.env:LADDER_TEST_SECRET}"',
            f"a ${READ} b",
            f'["\\x24{READ}"]',
            "${oc.decode:${oc.env:LADDER_TEST_SECRET}}",
            "${oc.create:'a'}",
            "${oc.${name}:LADDER_TEST_SECRET}",
            "${${description}}",
            f"{{a: {{b: ['x', \"\\x24{READ}\"]}}}}",
            f"'${READ}'",
            f"|\n  ${READ}",
            "${ oc.env:LADDER_TEST_SECRET}",
            f"\\${READ}",
            "!!python/object/apply:os.getenv [LADDER_TEST_SECRET]",
            "!ENV LADDER_TEST_SECRET",
            "$LADDER_TEST_SECRET",
            "%(LADDER_TEST_SECRET)s",
        ],
    )
    @pytest.mark.parametrize("key", ["description", "stages[0].notes", "data.source", "new"])
    def test_by_one_override(self, root: Path, key: str, value: str) -> None:
        assert SECRET not in outcome(root, [f"{key}={value}"])

    @pytest.mark.parametrize(
        "overrides",
        [
            ["stages[0].notes=$", f"description='{READ}'", "name=${stages[0].notes}${description}"],
            ["stages[0].notes=$", f"defaults.notes='{READ}'", "description=${stages[0].notes}${defaults.notes}"],
            ["stages[0].notes=$", f"defaults.notes='{READ}'", "description=${stages[0].notes}${defaults.notes}", "description.x=1"],
            ["stages[0].notes=oc.env:LADDER_TEST_SECRET", "description=${${stages[0].notes}}"],
            ["stages[0].notes='{oc.env'", "description='$${stages[0].notes}:LADDER_TEST_SECRET}'"],
            [f"description.x.${READ}=1"],
            [f"${READ}=1"],
            [f"stages[${READ}].name=1"],
            [f'description={{"\\x24{READ}": 1}}', "name=${description}"],
        ],
    )
    @pytest.mark.parametrize("order", [1, -1])
    def test_by_several_together(self, root: Path, overrides: list[str], order: int) -> None:
        assert SECRET not in outcome(root, overrides[::order])

    @pytest.mark.parametrize(
        ("field", "override"),
        [
            ("${oc.env:${stages[0].notes}}", ["stages[0].notes=LADDER_TEST_SECRET"]),
            ("${oc.env:NOT_SET_ANYWHERE,${stages[0].notes}}", ["stages[0].notes=LADDER_TEST_SECRET"]),
            ("${oc.decode:${stages[0].notes}${evaluation.examples}}", ["stages[0].notes=$", f"evaluation.examples='{READ}'"]),
            ("${oc.env:${stages[0].seed}}", ["stages[0].seed=LADDER_TEST_SECRET"]),
        ],
    )
    def test_by_what_a_resolver_of_the_file_reads(self, root: Path, field: str, override: list[str]) -> None:
        text = f"description: {field}\nevaluation: {{examples: 5}}\n{LADDER}".replace("{name: one,", "{name: one, notes: HOME, ")
        assert SECRET not in outcome(root, override, text)

    def test_a_literal_of_the_file_stays_one(self, root: Path) -> None:
        text = f"description: '\\${READ}'\n{LADDER}"
        assert f"description='${READ}'" in outcome(root, [], text)
        for overrides in (
            ["stages[0].notes=${description}"],
            ["description.x=1"],
            ["stages[0].notes=${description}", "stages[0].notes.x=1"],
        ):
            assert SECRET not in outcome(root, overrides, text)

    def test_nor_by_overrides_of_a_whole_ladder(self, root: Path) -> None:
        whole = load(str(root / "ladder.yaml")).ladder.model_copy(update={"description": f"${READ}"})
        for overrides in ([], ["stages[0].notes=${description}"], ["description.x=1"], [f'stages[0].notes="\\x24{READ}"']):
            try:
                shown = str(load_whole(whole, overrides).ladder)
            except UserError as error:
                shown = str(error)
            assert SECRET not in shown


class TestFilesMayReadTheEnvironment:
    def test_their_own_resolvers_work(self, root: Path) -> None:
        text = f"description: from ${{oc.env:LADDER_TEST_SECRET}}\nseed: ${{oc.decode:'7'}}\n{LADDER}"
        assert f"description='from {SECRET}'" in outcome(root, [], text)
        assert "seed=7" in outcome(root, [], text)
        assert "seed=8" in outcome(root, ["seed=8"], text)

    def test_a_value_that_looks_like_an_interpolation(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LADDER_TEST_ODD", f"\\${{name}} ${READ}")
        shown = outcome(root, [], f"description: ${{oc.env:LADDER_TEST_ODD}}\n{LADDER}")
        assert repr(os.environ["LADDER_TEST_ODD"]) in shown

    def test_what_is_not_set_is_a_mistake_unless_it_is_replaced(self, root: Path) -> None:
        text = f"description: ${{oc.env:LADDER_TEST_NOT_SET}}\n{LADDER}"
        assert outcome(root, [], text).startswith("description: got '${oc.env:LADDER_TEST_NOT_SET}'; allowed: ")
        assert "LADDER_TEST_NOT_SET" in outcome(root, [], text)
        assert "description='mine'" in outcome(root, ["description=mine"], text)
