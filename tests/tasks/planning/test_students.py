"""Students that are described by size, by a file or by a checkpoint get their settings in full when a plan or a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conf.errors import UserError
from conf.home import Home
from conf.schema.ladder import Ladder
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import save_model
from models.architectures.shapes import build, config_for, size_of
from models.base.interface import Interface
from models.data import tokenizers
from tasks.data.prepare import check_patches
from tasks.planning.plan import make_plan
from tasks.planning.routes import routed
from tasks.planning.students import settle_students, settled_notes
from tasks.runtime.runs.run_registry import Context
from tasks.training.identity import known_settings, numeric_settings, stage_identity

TEXT = Interface("causal-lm", 192, vocabulary=258, end_id=256, pad_id=257)
TEACHER = {"hidden_size": 64, "layers": 4, "heads": 4, "key_value_heads": 2, "feed_forward": 160}
SMALL = {"hidden_size": 16, "layers": 2, "heads": 2, "feed_forward": 32}


def ladder(*students: dict[str, Any], teacher: dict[str, Any] | None = None) -> Ladder:
    stages = [{"name": f"stage-{i}", "student": student, "training": {"steps": 2}} for i, student in enumerate(students)]
    root = teacher or {"source": "train", "shape": TEACHER, "training": {"steps": 2}}
    return Ladder.model_validate({"name": "tiny", "data": {"source": "python-stdlib"}, "teacher": root, "stages": stages})


def context(base: Path) -> Context:
    return Context(run="", ladder="tiny", home=str(base / "home"), base=str(base))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bytes with its tokenizer, in `model`."""
    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    tokenizers.save(tokenizers.bytes_tokenizer(), place / "tokenizer")
    save_model(build(config_for(Shape.model_validate(SMALL), TEXT), "causal-lm"), place / "model", place / "tokenizer")
    return place


def test_a_size_becomes_a_shape_once_and_for_all(tmp_path: Path) -> None:
    asked = ladder({"parameters": "100k"}, {"parameters": 30_000})
    settled = settle_students(asked, context(tmp_path))
    for stage, wanted in zip(settled.stages, (100_000, 30_000), strict=True):
        assert stage.student.parameters is None
        assert stage.student.shape is not None
        assert size_of(stage.student.shape, TEXT).parameters == pytest.approx(wanted, rel=0.03)
        assert stage.student.shape.heads == 2 * (stage.student.shape.key_value_heads or 0)
    assert settle_students(settled, context(tmp_path)) is settled
    assert [note.partition(" became ")[0] for note in settled_notes(asked, settled)] == [
        "stage-0: 100,000 parameters",
        "stage-1: 30,000 parameters",
    ]
    assert [note.partition(" became ")[0] for note in settled_notes(asked, routed("direct", settled))] == ["stage-1: 30,000 parameters"]


def test_a_plan_shows_what_a_size_became(tmp_path: Path) -> None:
    planned = make_plan(ladder({"parameters": "100k"}), tmp_path, Home(tmp_path / "home"))
    assert planned.stages[0].parameters == pytest.approx(100_000, rel=0.03)
    assert planned.notes[0].startswith("stage-0: 100,000 parameters became shape: {hidden_size: ")


def test_a_checkpoint_becomes_a_folder_with_a_hash(folder: Path) -> None:
    teacher = {"source": "checkpoint", "path": "model"}
    settled = settle_students(ladder({"source": "checkpoint", "path": "model"}, {"parameters": 7000}, teacher=teacher), context(folder))
    student = settled.stages[0].student
    assert student.path == str(folder / "model")
    assert len(student.sha256 or "") == 64
    assert settled.stages[1].student.shape is not None
    identity = stage_identity(settled, settled.stages[0], "fp32", "data", ("teacher",))
    moved = settled.stages[0].model_copy(update={"student": student.model_copy(update={"sha256": "0" * 64})})
    assert identity["student"] != stage_identity(settled, moved, "fp32", "data", ("teacher",))["student"]
    assert "path" not in identity["student"]


def test_a_config_file_is_read(folder: Path, tmp_path: Path) -> None:
    for path in ("model", "model/config.json"):
        student = settle_students(ladder({"config": path}), context(folder)).stages[0].student
        assert isinstance(student.config, dict)
        assert (student.config["model_type"], student.config["hidden_size"]) == ("llama", 16)
        assert "vocab_size" not in student.config
    (tmp_path / "other.json").write_text('{"model_type": "llama", "hidden_size": 64, "of_another_program": 1}')
    student = settle_students(ladder({"config": "other.json"}), context(tmp_path)).stages[0].student
    assert student.config == {"model_type": "llama", "hidden_size": 64}
    for name, content, says in (("a", None, "cannot be read"), ("b", "{", "does not parse"), ("c", "{}", "names none")):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=rf"^stages\[0\]\.student\.config: got '{name}'; .*{says}"):
            settle_students(ladder({"config": name}), context(tmp_path))


def test_a_config_whose_patches_do_not_divide_the_images_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    shape = {"family": "vit", "hidden_size": 8, "layers": 1, "heads": 2, "feed_forward": 8}
    plain: dict[str, Any] = {"name": "tiny", "workload": "image-classification", "data": {"source": "digits"}}
    plain["teacher"] = {"source": "train", "shape": shape, "training": {"steps": 1}}

    def with_patch(size: int) -> Ladder:
        stage = {"name": "s", "student": {"config": {**config, "patch_size": size}}, "training": {"steps": 1}}
        return Ladder.model_validate({**plain, "stages": [stage]})

    check_patches(with_patch(4), (1, 8, 8))
    says = r"^stages\[0\]\.student\.config\.patch_size: got 3; allowed: a divisor of the images' sides, which are 8 x 8: 1, 2, 4, 8"
    with pytest.raises(UserError, match=says):
        check_patches(with_patch(3), (1, 8, 8))


def test_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^stages\[0\]\.student\.path: got .*/nowhere'; allowed: an existing"):
        settle_students(ladder({"source": "checkpoint", "path": "./nowhere"}), context(tmp_path))
    with pytest.raises(UserError, match=r"^teacher\.path: got .*/nowhere'; allowed: an existing"):
        settle_students(ladder({"parameters": "100k"}, teacher={"source": "checkpoint", "path": "./nowhere"}), context(tmp_path))


def test_the_identity_of_a_stage_by_shape_is_what_it_was() -> None:
    tiny = ladder({"shape": SMALL})
    assert numeric_settings(tiny.stages[0])["student"] == {
        "shape": {"family": "llama", "key_value_heads": None, "head_dim": None, "tied_embeddings": True, "patch_size": 2, **SMALL},
        "initialisation": "random",
        "samples": 256,
        "vocabulary": "teacher",
    }
    hashed = known_settings(tiny)["stages"][0]["student"]
    assert set(hashed) == {"shape", "initialisation", "samples", "vocabulary"}, "a run of 0.3.0 that was interrupted is continued"
