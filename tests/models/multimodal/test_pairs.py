"""Models that embed pictures and texts in one space: their rows, their students, their recall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from conf.errors import UserError
from conf.schema.stage.objective import Objective
from models.architectures.checkpoint import load_model
from models.architectures.shapes import count
from models.data.batches import TrainingBatches
from models.losses.loss import StepObjective, distillation_loss
from models.multimodal.retrieval import recall
from models.signals.sources import live, rows
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.run import StageRecord
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student
from tests.factories import inputs_of
from tests.vision_models import CLIP, captions_ladder, picture, save_captions, save_clip

pytestmark = pytest.mark.thorough


def prepared(folder: Path, siglip: bool = False, **settings: Any) -> StageInputs:
    save_clip(folder / "clip", siglip)
    save_captions(folder / "rows.parquet")
    (folder / "home").mkdir()
    return inputs_of(captions_ladder(**settings), folder)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    return prepared(tmp_path_factory.mktemp("pairs"))


def folder_of(inputs: StageInputs) -> Path:
    return Path(inputs.context.base) / "clip"


def test_rows_are_the_embeddings_of_transformers(inputs: StageInputs) -> None:
    folder, batch = folder_of(inputs), TrainingBatches(inputs.data.corpus(), 4, 0).at(0)
    own, plain = AutoProcessor.from_pretrained(str(folder), backend="pil"), AutoModel.from_pretrained(folder).eval()
    texts = own.tokenizer.batch_decode(batch.inputs["input_ids"].tolist(), skip_special_tokens=True)
    pictures = own.image_processor(images=[picture(number) for number in range(24)], return_tensors="pt")["pixel_values"]
    numbers = [int((pictures - pixels).abs().sum((1, 2, 3)).argmin()) for pixels in batch.inputs["pixel_values"]]
    assert texts == [f"kind {number % 4}" for number in numbers]
    made = plain(**own(text=texts, images=[picture(number) for number in numbers], padding=True, return_tensors="pt"))
    wanted = torch.stack([made.image_embeds, made.text_embeds], 1).flatten(0, 1)
    found = rows(load_model(folder, "image-text-embedding").eval(), batch, None)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert batch.targets.shape == (4, 2)


@pytest.mark.parametrize("kind", ["cosine", "mse", "similarity-kl"])
def test_a_teacher_is_at_no_distance_from_itself(inputs: StageInputs, kind: Any) -> None:
    model, batch = load_model(folder_of(inputs), "image-text-embedding"), TrainingBatches(inputs.data.corpus(), 4, 0).at(0)
    at = StepObjective(Objective.model_validate({"kind": kind}), 1.0, 0.5)
    own = rows(model.eval(), batch, None)
    same = distillation_loss(own, [live(model, None)(batch)], batch.targets.flatten(), at)
    other = distillation_loss(own.flip(0), [live(model, None)(batch)], batch.targets.flatten(), at)
    assert float(same.kd.detach()) == pytest.approx(0.0, abs=1e-5)
    assert float(other.kd.detach()) > 1e-3


def made(inputs: StageInputs) -> tuple[StageRecord, StageRecord]:
    teacher = evaluate_model(prepare_teacher(inputs), [], inputs, "fp32")
    student = train_student(inputs.ladder.stages[0], [teacher], inputs)
    return teacher, evaluate_model(student, [teacher], inputs, "fp32")


@pytest.mark.parametrize("siglip", [False, True])
def test_a_student_shares_its_teachers_space_and_loads_in_plain_transformers(tmp_path: Path, siglip: bool) -> None:
    student = {"config": {**CLIP, "model_type": "siglip"}} if siglip else {"config": CLIP}
    if siglip:
        student["config"]["vision_config"] = {**CLIP["vision_config"], "hidden_size": 16}
    teacher, judged = made(prepared(tmp_path, siglip, stage={"student": student}))
    assert {"recall", "recall_pictures", "root_recall", "similarity", "cosine"} <= set(judged.metrics)
    assert judged.metrics["cosine"] < teacher.metrics["cosine"] == pytest.approx(1.0)
    assert judged.retention.root == pytest.approx(judged.metrics["recall"] / max(judged.metrics["root_recall"], 1e-12))
    loaded, own = AutoModel.from_pretrained(judged.folder), AutoProcessor.from_pretrained(judged.folder, backend="pil")
    answer = loaded(**own(text=["kind 1"], images=[picture(1)], return_tensors="pt"))
    assert answer.text_embeds.shape[1] == (16 if siglip else 12)
    assert judged.flops_per_token > 0


def test_a_student_in_a_space_of_another_size_is_refused(tmp_path: Path) -> None:
    wide = {**CLIP, "model_type": "siglip", "text_config": {**CLIP["text_config"], "hidden_size": 16}}
    inputs = prepared(tmp_path, stage={"student": {"config": wide}})
    with pytest.raises(UserError, match=r"stages\[0\]\.student\.config: .*embeddings of 12 numbers, as its teacher's"):
        prepare_teacher(inputs)


def test_operations_are_those_of_both_towers(inputs: StageInputs) -> None:
    layer, patches, attention = 4 * 16 * 16 + 2 * 16 * 32, 16 * 3 * 4 * 4, 4 * 16 * 16 * 16
    towers = 2 * 16 * layer + attention, 2 * 16 * (layer + patches) + attention  # 16 ids, and 16 patches
    assert count(load_model(folder_of(inputs), "image-text-embedding"), 16).forward_flops == sum(towers)


def test_recall_counts_equal_texts_alike() -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    texts = np.array([0, 1, 2, 0])
    first, second = centres[0], centres[1]
    astray = [0.8 * second + 0.6 * centres[3], 0.8 * second + 0.6 * centres[4]]  # both nearer to the second pair than to one another
    vectors = np.stack([first, first, second, second, *astray, first, first]).astype(np.float32)
    assert recall(vectors, texts) == (0.75, 0.75)
    assert recall(vectors, np.arange(4)) == (0.5, 0.5)
