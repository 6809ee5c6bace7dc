"""Served runs read inside the roots only."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError, shown
from conf.loading import path_policy
from conf.loading.load import load, load_whole, shipped
from conf.loading.path_policy import check_read, check_source, confine, restrict

STAGES = """
teacher: {source: train, shape: &shape {hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}, training: {steps: 1}}
stages: [{name: one, student: {shape: *shape}, training: {steps: 1}}]
"""
LADDER = "name: confined\ndata: {source: python-stdlib}\n" + STAGES


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

    def test_prompts_and_endpoints_of_generation(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        prompts, url = "data.generate.prompts.paths=[text.txt]", "data.generate.endpoint={url: 'http://127.0.0.1:1/v1', model: m}"
        loaded = load(str(root / "ladder.yaml"), [prompts])
        confine("ladder.yaml", loaded.ladder, loaded.base, [root])
        assert "inside the allowed folders" in refused(root, "data.generate.prompts.paths=[../forbidden/text.txt]")
        judge = "data.generate.selection.perplexity.model=../forbidden/model"
        assert "inside the allowed folders" in refused(root, prompts, judge)
        assert "LADDER_ENDPOINTS" in refused(root, prompts, url)
        monkeypatch.setenv("LADDER_ENDPOINTS", "http://127.0.0.1:2/v1,http://127.0.0.1:1/v1")
        loaded = load(str(root / "ladder.yaml"), [prompts, url])
        confine("ladder.yaml", loaded.ladder, loaded.base, [root])

    def test_a_form_opens_no_port(self, root: Path) -> None:
        shared = ["compute.launcher=torchrun", "compute.nodes=2"]
        said = refused(root, *shared, "compute.rendezvous=10.0.0.1:29400")
        assert said.startswith("compute.rendezvous: got '10.0.0.1:29400'; allowed: none in a run that was started through a server")

    def test_a_whole_ladder_is_confined_like_a_file(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(root)
        loaded = load_whole(load(str(root / "ladder.yaml"), [teacher("/etc")]).ladder)
        with pytest.raises(UserError, match=r"teacher\.path: got '/etc'"):
            confine("confined", loaded.ladder, loaded.base, [root])
