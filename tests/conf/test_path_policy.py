"""Served runs read inside the roots only; overrides reach no environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conf import path_policy
from conf.errors import UserError, shown
from conf.loading.load import load, load_whole, shipped
from conf.path_policy import check_read, check_source, confine, restrict

STAGES = """
teacher: {source: train, shape: &shape {hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}, training: {steps: 1}}
stages: [{name: one, student: {shape: *shape}, training: {steps: 1}}]
"""
LADDER = "name: confined\ndata: {source: python-stdlib}\n" + STAGES
SECRET = "a-secret-of-the-environment"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADDER_TEST_SECRET", SECRET)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An allowed folder with a ladder, a text and a model in it, and beside it a forbidden one with the same."""
    for name in ("allowed", "forbidden"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
        (tmp_path / name / "text.txt").write_text("hello")
        (tmp_path / name / "ladder.yaml").write_text(LADDER)
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "forbidden")
    (tmp_path / "allowed" / "linked.yaml").symlink_to(tmp_path / "forbidden" / "ladder.yaml")
    (tmp_path / "allowed" / "linked.txt").symlink_to(tmp_path / "forbidden" / "text.txt")
    (tmp_path / "allowed" / "odd").mkdir()
    (tmp_path / "allowed" / "odd" / "weights.safetensors").symlink_to(tmp_path / "forbidden" / "text.txt")
    return tmp_path / "allowed"


def refused(root: Path, *overrides: str) -> str:
    loaded = load(str(root / "ladder.yaml"), overrides)
    with pytest.raises(UserError) as caught:
        confine("ladder.yaml", loaded.ladder, loaded.base, [root])
    assert caught.value.exit_code == 2
    return str(caught.value)


def allowed(root: Path, *overrides: str) -> None:
    loaded = load(str(root / "ladder.yaml"), overrides)
    confine("ladder.yaml", loaded.ladder, loaded.base, [root])


class TestSource:
    def test_shipped_ladders_need_no_root(self) -> None:
        assert len(shipped()) >= 3
        for name in shipped():
            check_source(name, [])
            loaded = load(name)
            confine(name, loaded.ladder, loaded.base, [])

    def test_a_file_inside(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        check_source(str(root / "ladder.yaml"), [root])
        monkeypatch.chdir(root)
        check_source("ladder.yaml", [root])
        check_source("ladder.yaml", [root / "model", root])

    @pytest.mark.parametrize(
        "source",
        [
            "/etc/passwd",
            "../forbidden/ladder.yaml",
            "model/../../forbidden/ladder.yaml",
            "linked.yaml",
            "link/ladder.yaml",
            "~/.netrc",
            "/proc/self/environ",
            "digits/../../forbidden/ladder.yaml",
            "",
            "a\0b",
            "..",
            "/dev/stdin",
            "x" * 5000,
        ],
    )
    def test_everything_else_is_refused_unread(self, root: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
        monkeypatch.chdir(root)
        monkeypatch.setenv("HOME", str(root.parent))
        with pytest.raises(UserError) as caught:
            check_source(source, [root / "model"])
        assert str(caught.value) == (
            f"ladder: got {shown(source)}; allowed: a path inside the allowed folders: {root / 'model'}. "
            "Move it there, or set LADDER_ROOTS to the folders that runs may read, where the deployments are served."
        )
        (root.parent / "forbidden" / "ladder.yaml").unlink()  # what is not there is refused in the same words
        with pytest.raises(UserError, match="allowed folders"):
            check_source(source, [root / "model"])

    def test_a_root_that_begins_like_another_folder(self, root: Path) -> None:
        (root.parent / "allowed-not").mkdir()
        with pytest.raises(UserError):
            check_source(str(root.parent / "allowed-not" / "x.yaml"), [root])

    def test_a_root_may_be_a_link(self, root: Path) -> None:
        (root.parent / "alias").symlink_to(root)
        check_source(str(root.parent / "alias" / "ladder.yaml"), [root])
        check_source(str(root / "ladder.yaml"), [root.parent / "alias"])


def teacher(path: str) -> str:
    return f"teacher={{source: checkpoint, path: '{path}'}}"


def files(*patterns: str) -> str:
    return f"data={{source: files, paths: [{', '.join(repr(pattern) for pattern in patterns)}]}}"


def dataset(name: str) -> str:
    return f"data={{source: dataset, name: '{name}'}}"


class TestSettings:
    @pytest.mark.parametrize("path", ["model", "./model", "org/name", "gpt2", "models:/a/1", "models:/a@champion", "runs:/b/x"])
    def test_a_teacher_inside_or_not_a_path(self, root: Path, path: str) -> None:
        allowed(root, teacher(path))

    @pytest.mark.parametrize("student", ["{source: checkpoint, path: PATH}", "{config: PATH}"])
    def test_a_student_inside_and_outside(self, root: Path, student: str) -> None:
        allowed(root, f"stages.one.student={student.replace('PATH', './model')}")
        for outside in ("../forbidden/model", str(root.parent / "forbidden" / "model"), "./link/model"):
            key = "path" if "path" in student else "config"
            message = refused(root, f"stages.one.student={student.replace('PATH', outside)}")
            assert message.startswith(f"stages[0].student.{key}: got {outside!r}; allowed: a path inside the allowed folders")

    @pytest.mark.parametrize(
        "path",
        [
            "/etc",
            "../forbidden/model",
            "./../forbidden/model",
            "link/model",
            "~root",
            "model/../../forbidden",
            "odd",
            "no such/../../../x",
            "runs:/abc/../../../forbidden",
            "models:/x/../y",
            "runs:/abc/%2e%2e/%2E%2E/x",
            "runs:/abc/%252e%252e/x",
        ],
    )
    def test_a_teacher_outside(self, root: Path, path: str) -> None:
        message = refused(root, teacher(path))
        assert message.startswith(f"teacher.path: got {path!r}; allowed: ")

    @pytest.mark.parametrize("pattern", ["text.txt", "*.yaml", "model/**/*.json", "nothing*"])
    def test_files_inside(self, root: Path, pattern: str) -> None:
        (root / "linked.yaml").unlink()
        allowed(root, files(pattern))

    @pytest.mark.parametrize(
        "pattern",
        [
            "/etc/passwd",
            "/etc/pass*",
            "/*/passwd",
            "../forbidden/*",
            "*.txt",
            "*/../../forbidden/text.txt",
            "link/*",
            "**/*.txt",
            "~/.ssh/id_*",
            "l*/text.txt",
            "linked.txt",
            "/proc/self/environ",
            "*/text.txt",
        ],
    )
    def test_files_outside(self, root: Path, pattern: str) -> None:
        message = refused(root, files("text.txt", pattern))
        assert message.startswith(f"data.paths[1]: got {pattern!r}; allowed: ")
        message = refused(root, f"data={{source: files, splits: {{train: text.txt, test: [text.txt, '{pattern}']}}}}")
        assert message.startswith(f"data.splits.test[1]: got {pattern!r}; allowed: ")

    def test_images_of_a_folder_that_are_links(self, root: Path) -> None:
        (root / "images" / "cat").mkdir(parents=True)
        (root / "images" / "cat" / "0.png").write_bytes(b"")
        allowed(root, files("images"))
        (root / "images" / "cat" / "1.png").symlink_to(root.parent / "forbidden" / "text.txt")
        for pattern in ("images", "images/*", "images/cat/*.png"):
            assert refused(root, files(pattern)).startswith(f"data.paths[0]: got {pattern!r}; allowed: a path inside")

    def test_tasks(self, root: Path) -> None:
        (root / "task.yaml").write_text("task: x")
        allowed(root, "evaluation.tasks=[arc_easy, task.yaml]")
        for task in ("../forbidden/task.yaml", "/etc/x.yaml", "linked.yaml", "odd/", "link/", "none.yaml/../../forbidden/"):
            message = refused(root, f"evaluation.tasks=[arc_easy, '{task}']")
            assert message.startswith(f"evaluation.tasks[1]: got {task!r}; allowed: a path inside the allowed folders")

    def test_files_that_data_name_are_checked_when_they_are_read(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        outside = root.parent / "forbidden" / "text.txt"
        check_read(outside, "data.columns.image")  # on the command line
        monkeypatch.setattr(path_policy, "_served", None)
        restrict([root])
        check_read(root / "text.txt", "data.columns.image")
        for path in (outside, root / ".." / "forbidden" / "none.png", root / "linked.txt", root / "link" / "text.txt"):
            with pytest.raises(UserError, match=r"data\.columns\.image: got .*; allowed: a path inside the allowed folders"):
                check_read(path, "data.columns.image")

    def test_a_dataset(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("model", "./model", "org/name", "imdb"):
            allowed(root, dataset(name))
        for name in ("/etc", "../forbidden", "link", "~root", "model/../../forbidden"):
            assert refused(root, dataset(name)).startswith(f"data.name: got {name!r}")
        monkeypatch.chdir(root.parent)  # where the library looks by itself
        assert refused(root, dataset("forbidden")).startswith("data.name: got 'forbidden'")

    def test_the_message_names_key_value_roots_and_remedy(self, root: Path) -> None:
        assert refused(root, teacher("/etc")) == (
            f"teacher.path: got '/etc'; allowed: a path inside the allowed folders: {root}. It is in the ladder ladder.yaml. "
            "Move it there, or set LADDER_ROOTS to the folders that runs may read, where the deployments are served."
        )

    def test_a_whole_ladder_is_confined_like_a_file(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(root)
        loaded = load_whole(load(str(root / "ladder.yaml"), [teacher("/etc")]).ladder)
        with pytest.raises(UserError, match=r"teacher\.path: got '/etc'"):
            confine("confined", loaded.ladder, loaded.base, [root])


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
