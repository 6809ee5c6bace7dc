"""What is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from conf.errors import UserError
from conf.loading.load import load
from conf.schema.compute import Compute
from conf.schema.ladder import Ladder
from conf.schema.stage.objective import Objective
from conf.schema.stage.student import Shape
from conf.schema.stage.training import Training
from models.architectures.checkpoint import save_model
from models.architectures.shapes import build, config_for
from models.base.interface import Interface
from tasks.planning.preflight import check_ladder, expected_interface, teacher_on_meta
from tasks.runtime.runs.run_registry import Context
from tasks.training.workers.check import check_workers

SHAPE = {"hidden_size": 16, "layers": 3, "heads": 2, "feed_forward": 32}
WIDTH = {"hidden_size": 8, "layers": 2, "heads": 2, "feed_forward": 16}


def ladder(teacher: dict[str, Any], *students: dict[str, Any], **more: Any) -> Ladder:
    stages = [{"name": f"stage-{i}", "student": student, "training": {"steps": 2}} for i, student in enumerate(students)]
    return Ladder.model_validate({"name": "tiny", "data": {"source": "python-stdlib"}, "teacher": teacher, "stages": stages, **more})


def trained(shape: dict[str, Any]) -> dict[str, Any]:
    return {"source": "train", "shape": shape, "training": {"steps": 2}}


def context(base: Path = Path(), **more: Any) -> Context:
    return Context(run="r", ladder="tiny", home=str(base / "home"), base=str(base), **more)


class TestSizes:
    def test_a_ladder_that_fits(self) -> None:
        root, sizes = check_ladder(ladder(trained(SHAPE), {"shape": WIDTH}, {"shape": {**WIDTH, "layers": 1}}), context())
        assert root is not None
        assert root.parameters > sizes[0].parameters > sizes[1].parameters
        # By hand, the last one: embedding (tied) 258 x 8; attention 4 x 8 x 8; feed-forward 3 x 8 x 16; norms 3 x 8.
        assert sizes[1].parameters == 258 * 8 + 4 * 64 + 3 * 128 + 3 * 8
        assert root.tokens == 192

    def test_a_stage_may_be_as_large_as_its_teacher(self) -> None:
        root, sizes = check_ladder(ladder(trained(SHAPE), {"shape": SHAPE}), context())
        assert root == sizes[0]

    def test_a_stage_larger_than_the_root(self) -> None:
        with pytest.raises(UserError) as caught:
            check_ladder(ladder(trained(WIDTH), {"shape": SHAPE}), context())
        message = str(caught.value)
        assert message.startswith("stages[0].student.shape: got 'stage-0 with ")
        assert "of its teacher, teacher" in message
        assert "Make the student smaller" in message

    def test_a_stage_larger_than_the_stage_before_it(self) -> None:
        with pytest.raises(UserError, match=r"^stages\[1\]\.student\.shape: got 'stage-1 with .* of its teacher, stage-0"):
            check_ladder(ladder(trained(SHAPE), {"shape": {**WIDTH, "layers": 1}}, {"shape": WIDTH}), context())

    def test_workers_that_could_not_share_a_step_are_named_before_anything_is_trained(self) -> None:
        student = {"shape": WIDTH}
        many = {"launcher": "torchrun", "workers": 33, "device": "cpu"}
        with pytest.raises(UserError, match=r"^compute\.workers: got 33; allowed: at most 32, the examples of a micro-batch of teacher"):
            check_ladder(ladder(trained(SHAPE), student, compute=many), context())
        small = {**trained(SHAPE), "training": {"steps": 2, "batch_size": 64}}
        with pytest.raises(UserError, match=r"^compute\.workers: got 33; .* of a micro-batch of stage-0"):
            check_ladder(ladder(small, student, compute=many), context())
        objective = Objective(kind="similarity-kl")
        with pytest.raises(UserError, match=r"^compute\.workers: got 2; allowed: 1, for objective\.kind similarity-kl"):
            check_workers(Compute(launcher="torchrun", workers=2), Training(steps=2), objective, "one")

    def test_every_shipped_ladder_fits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "tasks.teachers.teacher_source.find_spec", lambda name: None
        )  # its teacher, where it is installed, is 500 MB to convert
        for name in ("digits", "llama-1b", "minilm", "python-stdlib", "sentiment", "smollm2"):
            loaded = load(name)
            root, sizes = check_ladder(loaded.ladder, context(tmp_path))
            assert root is not None
            assert len(sizes) == len(loaded.ladder.stages)


class TestLayers:
    def test_fewer_layers_of_the_same_width(self) -> None:
        check_ladder(ladder(trained(SHAPE), {"shape": {**SHAPE, "layers": 2}, "initialisation": "layers"}), context())

    @pytest.mark.parametrize(
        "shape",
        [WIDTH, {**SHAPE, "layers": 2, "feed_forward": 16}, {**SHAPE, "layers": 2, "heads": 4}],
        ids=["width", "feed-forward", "heads"],
    )
    def test_another_shape(self, shape: dict[str, Any]) -> None:
        with pytest.raises(UserError, match=r"^stages\[0\]\.student\.initialisation: got 'layers'; allowed: .*initialisation=random"):
            check_ladder(ladder(trained(SHAPE), {"shape": shape, "initialisation": "layers"}), context())

    def test_the_second_stage_is_compared_with_the_first(self) -> None:
        with pytest.raises(UserError, match=r"^stages\[1\]\.student\.initialisation"):
            check_ladder(
                ladder(trained(SHAPE), {"shape": WIDTH}, {"shape": {**WIDTH, "feed_forward": 8}, "initialisation": "layers"}), context()
            )


class TestStartAt:
    def test_an_unknown_stage(self) -> None:
        with pytest.raises(
            UserError, match=r"^--start-at: got 'stage-2'; allowed: a stage of this ladder: stage-0\. Did you mean 'stage-0'\?"
        ):
            check_ladder(ladder(trained(SHAPE), {"shape": WIDTH}), context(start_at="stage-2"))

    def test_the_teacher_is_no_stage(self) -> None:
        with pytest.raises(UserError, match=r"^--start-at: got 'teacher'"):
            check_ladder(ladder(trained(SHAPE), {"shape": WIDTH}), context(start_at="teacher"))

    def test_a_stage(self) -> None:
        check_ladder(ladder(trained(SHAPE), {"shape": WIDTH}), context(start_at="stage-0"))


class TestCheckpoints:
    def save(self, folder: Path, shape: dict[str, Any], vocabulary: int = 258) -> Path:
        folder.mkdir()
        interface = Interface("causal-lm", 192, vocabulary, 256, 257)
        save_model(build(config_for(Shape.model_validate(shape), interface), "causal-lm"), folder, None)
        return folder

    def test_its_size_is_read_from_its_configuration(self, tmp_path: Path) -> None:
        self.save(tmp_path / "teacher", SHAPE)
        known, _ = check_ladder(ladder({"source": "checkpoint", "path": "teacher"}, {"shape": WIDTH}), context(tmp_path))
        assert known == check_ladder(ladder(trained(SHAPE), {"shape": WIDTH}), context())[0]

    def test_a_student_larger_than_it(self, tmp_path: Path) -> None:
        self.save(tmp_path / "teacher", WIDTH)
        with pytest.raises(UserError, match=r"^stages\[0\]\.student\.shape"):
            check_ladder(ladder({"source": "checkpoint", "path": "teacher"}, {"shape": SHAPE}), context(tmp_path))

    def test_one_that_is_not_there_has_no_size(self, tmp_path: Path) -> None:
        root, sizes = check_ladder(ladder({"source": "checkpoint", "path": "./gone"}, {"shape": WIDTH}), context(tmp_path))
        assert root is None
        assert sizes[0].parameters > 0

    def test_one_that_is_not_there_has_the_size_that_the_settings_say(self, tmp_path: Path) -> None:
        teacher = {"source": "checkpoint", "path": "./gone", "shape": WIDTH}
        with pytest.raises(UserError, match=r"^stages\[0\]\.student\.shape"):
            check_ladder(ladder(teacher, {"shape": SHAPE}), context(tmp_path))

    def test_stages_are_compared_with_each_other_even_then(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"^stages\[1\]\.student\.shape"):
            check_ladder(ladder({"source": "checkpoint", "path": "./gone"}, {"shape": WIDTH}, {"shape": SHAPE}), context(tmp_path))

    def test_a_folder_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "teacher").mkdir()
        with pytest.raises(UserError, match=r"^teacher\.path: .* allowed: a folder with config\.json"):
            check_ladder(ladder({"source": "checkpoint", "path": "teacher"}, {"shape": WIDTH}), context(tmp_path))


class TestInterface:
    def test_bytes(self) -> None:
        assert expected_interface(ladder(trained(SHAPE), {"shape": WIDTH}), None).vocabulary == 258

    def test_bpe(self) -> None:
        tiny = ladder(trained(SHAPE), {"shape": WIDTH}, tokenizer={"kind": "bpe", "vocabulary": 300})
        assert expected_interface(tiny, None).vocabulary == 300

    def test_the_teachers_vocabulary_as_the_settings_say(self) -> None:
        teacher = {"source": "checkpoint", "path": "./gone"}
        tiny = ladder(teacher, {"shape": WIDTH}, tokenizer={"kind": "teacher", "vocabulary": 32000})
        assert expected_interface(tiny, None).vocabulary == 32000

    def test_the_teachers_vocabulary_as_its_folder_says(self, tmp_path: Path) -> None:
        interface = Interface("causal-lm", 192, 500, 256, 257)
        save_model(build(config_for(Shape.model_validate(SHAPE), interface), "causal-lm"), tmp_path, None)
        tiny = ladder({"source": "checkpoint", "path": "."}, {"shape": {**WIDTH, "layers": 1}}, tokenizer={"kind": "teacher"})
        assert check_ladder(tiny, context(tmp_path))[1][0].parameters == 500 * 8 + 4 * 64 + 3 * 128 + 3 * 8

    def test_images_have_no_vocabulary(self) -> None:
        interface = expected_interface(load("digits").ladder, None)
        assert (interface.vocabulary, interface.classes, interface.image_shape) == (None, 10, (1, 8, 8))


def test_nothing_is_allocated() -> None:
    model = teacher_on_meta(load("llama-1b").ladder, expected_interface(load("llama-1b").ladder, None), context())
    assert model is not None
    assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}


@pytest.mark.parametrize("where", ["teacher.training", "stages[0].training"])
def test_compiling_without_a_compiler_is_refused(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    plain = ladder(trained(SHAPE), {"shape": WIDTH}, compute={"device": "cpu"})
    check_ladder(plain, context())
    asked = plain.model_dump()
    (asked["teacher"] if where.startswith("teacher") else asked["stages"][0])["training"]["compile"] = True
    with pytest.raises(UserError) as caught:
        check_ladder(Ladder.model_validate(asked), context())
    allowed = "got True; allowed: false on a machine without a C++ compiler; there is no no-such-compiler. Install "
    assert str(caught.value).startswith(f"{where}.compile: {allowed}")


def test_a_ladder_of_a_users_own_file(tmp_path: Path) -> None:
    plain = ladder(trained(SHAPE), {"shape": WIDTH}).model_dump(mode="json")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(plain))
    loaded = load(str(tmp_path / "mine.yaml"))
    assert check_ladder(loaded.ladder, context(loaded.base))[0] is not None


class TestImages:
    """28 x 28, as a folder of class folders."""

    def of(self, base: Path, patch: int, **data: Any) -> tuple[Any, Any]:
        for number in range(3):
            (base / "images" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            Image.new("L", (28, 28), number).save(base / "images" / "ab"[number % 2] / f"{number}.png")
        vit = {**WIDTH, "family": "vit", "patch_size": patch}
        settings = {"workload": "image-classification", "data": {"source": "files", "paths": ["images"], **data}}
        return check_ladder(ladder(trained({**vit, "layers": 3}), {"shape": vit}, **settings), context(base))

    @pytest.mark.parametrize("patch", [2, 4, 7, 14])
    def test_any_patch_that_divides_them(self, tmp_path: Path, patch: int) -> None:
        root, _ = self.of(tmp_path, patch)
        assert root.tokens == (28 // patch) ** 2 + 1

    @pytest.mark.parametrize("patch", [8, 16, 32])
    def test_others_are_refused_with_their_size(self, tmp_path: Path, patch: int) -> None:
        with pytest.raises(UserError, match=rf"^teacher\.shape\.patch_size: got {patch}; .*28 x 28: 1, 2, 4, 7, 14, 28"):
            self.of(tmp_path, patch)

    def test_the_size_that_they_are_given_counts(self, tmp_path: Path) -> None:
        root, _ = self.of(tmp_path, 16, resize={"size": [32, 32]})
        assert root.tokens == 5

    def test_a_teacher_for_other_images(self, tmp_path: Path) -> None:
        vit = Shape(**{**SHAPE, "family": "vit", "patch_size": 8})
        save_model(
            build(config_for(vit, Interface("image-classification", 2, classes=2, image_shape=(3, 32, 32))), "image-classification"),
            tmp_path / "teacher",
            None,
        )
        (tmp_path / "images" / "a").mkdir(parents=True)
        Image.new("RGB", (28, 28)).save(tmp_path / "images" / "a" / "0.png")
        student = {"shape": {**WIDTH, "family": "vit", "patch_size": 4}}

        def check(**data: Any) -> Any:
            settings = {"workload": "image-classification", "data": {"source": "files", "paths": ["images"], **data}}
            return check_ladder(ladder({"source": "checkpoint", "path": "teacher"}, student, **settings), context(tmp_path))

        with pytest.raises(UserError, match=r"^teacher\.path: got 'teacher'; .* images of 28 x 28 with 3 channels.*\(32\*32\)"):
            check()
        with pytest.raises(UserError, match=r"with 1 channels.*Expected 3 but got 1"):
            check(resize={"size": [32, 32]}, channels=1)
        assert check(resize={"size": [32, 32]})[1][0].tokens == 65

    def test_nothing_is_guessed_where_they_cannot_be_read(self, tmp_path: Path) -> None:
        root, _ = self.of(tmp_path, 7, paths=["gone/*.png"])
        assert root is not None
