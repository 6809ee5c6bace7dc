"""A teacher and a student of pictures with texts, from the files to the published folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from conf.errors import UserError
from models.architectures.composite import vision_tower
from models.architectures.shapes import build
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches, evaluation_documents
from models.evaluation.evaluation import collect
from models.multimodal.exact_match import exact_match
from models.signals.sources import live, rows, split_head
from tasks.evaluation.evaluate import evaluate_model
from tasks.records.run import StageRecord
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.fit import check_checkpoint
from tasks.teachers.teacher import prepare_teacher
from tasks.training.student import train_student
from tests.factories import inputs_of
from tests.vision_models import IDS, SMALL, TEXT, config, ladder, picture, save_model, save_questions

pytestmark = pytest.mark.thorough

LANGUAGE = {name: value for name, value in SMALL.items() if name != "vision_config"}


def prepared(folder: Path, stage: dict[str, Any] | None = None, **settings: Any) -> StageInputs:
    save_model(folder / "vlm")
    save_questions(folder / "rows.parquet")
    (folder / "home").mkdir()
    return inputs_of(ladder(stage=stage, **settings), folder)


def made(inputs: StageInputs) -> tuple[StageRecord, StageRecord]:
    teacher = evaluate_model(prepare_teacher(inputs), [], inputs, "fp32")
    student = train_student(inputs.ladder.stages[0], [teacher], inputs)
    return teacher, evaluate_model(student, [teacher], inputs, "fp32")


@pytest.mark.parametrize("source", ["live", "cached"])
def test_a_student_is_taught_judged_published_and_loads_in_plain_transformers(tmp_path: Path, source: str) -> None:
    cached = {"signals": {"source": "cached", "kind": "top-k", "k": 4}} if source == "cached" else {"signals": {"source": "live"}}
    inputs = prepared(tmp_path, stage={"student": {"config": LANGUAGE, "vision": "frozen"}, **cached})
    teacher, student = made(inputs)
    assert student.signals == ("live" if source == "live" else student.signals)
    assert {"exact_match", "bits_per_byte", "kl_parent", "baseline_nll"} <= set(student.metrics)
    assert student.retention.parent == pytest.approx(np.exp(student.metrics["parent_nll"] - student.metrics["nll"]))
    loaded = AutoModelForImageTextToText.from_pretrained(student.folder)
    towers = [vision_tower(AutoModelForImageTextToText.from_pretrained(each.folder)) for each in (teacher, student)]
    one, other = (cast(torch.nn.Module, tower).state_dict() for tower in towers)
    assert all(torch.equal(value, one[name]) for name, value in other.items())
    own = AutoProcessor.from_pretrained(student.folder, backend="pil")
    asked = own(text=["<image>row 3?"], images=[picture(3)], return_tensors="pt")
    assert loaded.generate(**asked, max_new_tokens=2).shape[1] == asked["input_ids"].shape[1] + 2


def test_a_student_that_makes_other_features_is_refused_before_its_training(tmp_path: Path) -> None:
    inputs = prepared(tmp_path, stage={"student": {"config": {**SMALL, "scale_factor": 4}}})
    with pytest.raises(UserError, match=r"stages\[0\]\.student\.config: .*a model that makes 4 features of pixels \[1, 1, 3, 16, 16\]"):
        prepare_teacher(inputs)


def test_further_held_out_questions_are_judged_too(tmp_path: Path) -> None:
    save_questions(tmp_path / "others.parquet", 16)
    columns = {"image": "image", "prompt": "prompt", "completion": "completion"}
    also = {"others": {"source": "files", "paths": ["others.parquet"], "columns": columns}}
    inputs = prepared(tmp_path, evaluation={"examples": 8, "batch_size": 4, "also": also})
    judged = evaluate_model(prepare_teacher(inputs), [], inputs, "fp32").also["others"]
    assert judged.metrics["exact_match"] >= 0
    assert judged.metrics["bits_per_byte"] > 0


def test_a_teacher_without_its_processor_is_refused_before_any_data_are_read(tmp_path: Path) -> None:
    save_model(tmp_path / "vlm")
    (tmp_path / "vlm" / "processor_config.json").unlink()
    with pytest.raises(UserError, match=r"teacher\.path: .*a folder with the processor of a model"):
        check_checkpoint(tmp_path / "vlm", ladder())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return prepared(tmp_path_factory.mktemp("corpus")).data.corpus()


def test_exact_match_is_that_of_greedy_decoding(corpus: Corpus) -> None:
    torch.manual_seed(0)
    model: Any = build(config(layers=1), "image-text")
    optimizer, batches = torch.optim.AdamW(model.parameters(), lr=1e-2), TrainingBatches(corpus, 8, 0)
    for step in range(12):
        batch = batches.at(step)
        keep = batch.targets.flatten() >= 0
        torch.nn.functional.cross_entropy(rows(model, batch, IDS)[keep], batch.targets.flatten()[keep]).backward()
        optimizer.step()
        optimizer.zero_grad()
    columns = collect(model, {}, evaluation_batches(corpus, "train", 99, 4), IDS, torch.device("cpu"), "fp32")
    share = exact_match(columns.correct, corpus.split("train"), evaluation_documents(corpus, "train", 99))
    right = 0
    for batch in evaluation_batches(corpus, "train", 99, 1):
        answer = batch.targets[batch.targets >= 0]
        first = int((batch.targets[0] >= 0).nonzero()[0]) + 1
        given = {**batch.arguments, "input_ids": batch.inputs["input_ids"][:, :first]}
        written = model.generate(**given, max_new_tokens=len(answer), do_sample=False, pad_token_id=257)
        right += written[0, first:].tolist() == answer.tolist()
    assert 0 < right < len(corpus.split("train"))
    assert share == right / len(corpus.split("train"))


def test_a_teacher_hands_over_hidden_states_and_its_own_student_has_no_divergence(corpus: Corpus) -> None:
    torch.manual_seed(0)
    model: Any = build(config(), "image-text")
    assert split_head(model) is not None
    batch = TrainingBatches(corpus, 4, 0).at(0)
    signal: Any = live(model, IDS)(batch)
    assert torch.allclose(signal.logits, rows(model, batch, IDS), atol=1e-5)


def test_another_picture_gives_another_answer(corpus: Corpus) -> None:
    torch.manual_seed(0)
    model: Any = build(config(), "image-text").eval()
    one = next(evaluation_batches(corpus, "train", 1, 1))
    pixels = one.inputs["pixel_values"]
    other = {**one.arguments, "pixel_values": pixels.flip(-1)}
    assert not torch.allclose(model(**one.arguments).logits, model(**other).logits)


def test_patches_of_pictures_are_taken_together() -> None:
    import transformers

    from models.data.batches import Batch

    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    sees = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "mlp_ratio": 2}
    whole = transformers.Qwen2VLConfig(
        vision_config={**sees, "temporal_patch_size": 1},
        text_config={**TEXT, "num_key_value_heads": 2, "vocab_size": IDS, "rope_parameters": rope},
        image_token_id=258,
    )
    model: Any = build(whole, "image-text").eval()
    ids = torch.tensor([[1, *[258] * 4, 5], [2, *[258] * 4, 6]])
    inputs = {"input_ids": ids, "mm_token_type_ids": (ids == 258).long(), "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]])}
    inputs["pixel_values"] = torch.randn(2, 16, 48)
    batch = Batch(inputs, ids, torch.zeros(2, dtype=torch.int32), None, ("pixel_values",))
    assert batch.arguments["pixel_values"].shape == (32, 48)
    together = rows(model, batch, None)
    alone = torch.cat([rows(model, batch.part(index, 2), None) for index in range(2)])
    assert torch.allclose(together, alone, atol=1e-5)
