"""Corpora of pictures, prompts and answers, and rows that cannot be one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from conf.errors import UserError
from models.data.batches import TrainingBatches
from models.data.corpus import SPLITS, Corpus
from models.data.held_out import evaluation_batches
from models.signals.cache import keys_of
from models.signals.fill import select_examples
from tasks.data.build import build_corpus
from tasks.data.identity import corpus_identity
from tests.vision_models import TEMPLATE, ladder, picture, png, processor, save_model, save_questions


def build(folder: Path, **settings: Any) -> tuple[Corpus, list[str]]:
    made, told = folder / "corpus", list[str]()
    made.mkdir()
    build_corpus(ladder(**settings), folder, folder / "vlm", made, told.append)
    return Corpus(made, "hash"), told


@pytest.mark.parametrize(("kind", "template"), [("idefics3", None), ("llava", TEMPLATE)])
def test_a_batch_is_what_the_processor_makes_of_its_rows(tmp_path: Path, kind: str, template: str | None) -> None:
    model = save_model(tmp_path / "vlm", kind, template)
    rows = {row["prompt"]: row for row in save_questions(tmp_path / "rows.parquet")}
    corpus, _ = build(tmp_path, data={"sequence_length": 64})
    folder = corpus.tokenizer_folder
    assert folder is not None
    own = AutoProcessor.from_pretrained(str(folder), backend="pil")
    seen = 0
    for name in SPLITS:
        assert corpus.split(name).pictures["pixel_values"].dtype == np.uint8
        for batch in evaluation_batches(corpus, name, 99, 3):
            for place in range(len(batch.targets)):
                one = select_examples(batch, [place])
                ids = one.inputs["input_ids"][0]
                text = own.tokenizer.decode(ids.tolist())
                row = rows[f"row {text.partition('row ')[2].partition('?')[0]}?"]
                shown = picture(int(row["prompt"][4:-1]))
                whole = own(text=[f"<image>{row['prompt']}"], images=[shown], return_tensors="pt")
                assert torch.allclose(one.arguments["pixel_values"], whole["pixel_values"], atol=1e-6)
                others = set(whole) - {"input_ids", "attention_mask", "pixel_values"}
                assert all(torch.equal(one.arguments[other], whole[other]) for other in others)
                learned = own.tokenizer.decode(one.targets[one.targets >= 0].tolist())
                assert learned == f"{row['completion']}<|end|>"
                assert model(**one.arguments).logits.shape[:2] == one.targets.shape
                seen += 1
    assert seen == len(rows)


def test_parts_of_a_batch_are_the_batch_and_keys_tell_pictures_apart(tmp_path: Path) -> None:
    save_model(tmp_path / "vlm")
    rows = save_questions(tmp_path / "rows.parquet")
    save_questions(tmp_path / "rows.parquet", prompt=rows[3]["prompt"], completion=rows[3]["completion"])
    corpus, _ = build(tmp_path)
    batch = TrainingBatches(corpus, 8, 0).at(0)
    halves = [batch.part(index, 2) for index in range(2)]
    assert all(torch.equal(torch.cat([half.arguments[name] for half in halves]), value) for name, value in batch.arguments.items())
    everything = TrainingBatches(corpus, corpus.info.documents["train"], 0).at(0)
    assert len(set(keys_of(everything).tolist())) == corpus.info.documents["train"]


def broken() -> bytes:
    file = io.BytesIO()
    picture(1).save(file, "PNG")
    return file.getvalue()[:90]


@pytest.mark.parametrize(
    ("change", "said", "role"),
    [
        ({"image": broken()}, r"rows.parquet, row 3'; allowed: readable images. Mend or leave out the image", "readable image"),
        ({"image": b"no picture"}, r"rows.parquet, row 3'; allowed: readable images.*Pillow knows no such format", "readable image"),
        ({"image": None}, r"an image in every row. .*rows.parquet, row 3 has none: data.missing=drop", "image"),
        ({"completion": "y" * 40}, r"rows.parquet, row 3: data.sequence_length: got 32; allowed: at least", "room for all their ids"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_or_dropped_and_counted(tmp_path: Path, change: dict[str, Any], said: str, role: str) -> None:
    save_model(tmp_path / "vlm")
    save_questions(tmp_path / "rows.parquet", **change)
    with pytest.raises(UserError, match=said):
        build(tmp_path)
    (tmp_path / "corpus").rmdir()
    corpus, told = build(tmp_path, data={"missing": "drop"})
    assert sum(corpus.info.documents.values()) == 23
    assert f"1 rows without {role} left out" in told


def test_pictures_of_other_sizes_are_read_where_a_size_is_set(tmp_path: Path) -> None:
    save_model(tmp_path / "vlm", "llava")
    own = processor("llava")
    own.image_processor.do_resize = False
    own.save_pretrained(tmp_path / "vlm")
    save_questions(tmp_path / "rows.parquet", image=png(picture(2, (32, 8))))
    with pytest.raises(UserError, match=r"data\.resize: got None; allowed: pictures of one size.*row 3 is 8 x 32, unlike"):
        build(tmp_path, data={"sequence_length": 64})
    (tmp_path / "corpus").rmdir()
    corpus, _ = build(tmp_path, data={"sequence_length": 64, "resize": {"size": [16, 16]}})
    assert sum(corpus.info.documents.values()) == 24


@pytest.mark.parametrize(("file", "said"), [("processor_config.json", "has neither processor_config.json nor")])
def test_a_model_without_its_processor_is_refused(tmp_path: Path, file: str, said: str) -> None:
    save_model(tmp_path / "vlm")
    save_questions(tmp_path / "rows.parquet")
    (tmp_path / "vlm" / file).unlink()
    with pytest.raises(UserError, match=said):
        build(tmp_path)


def test_images_alone_are_no_questions(tmp_path: Path) -> None:
    save_model(tmp_path / "vlm")
    Image.new("RGB", (16, 16)).save(tmp_path / "one.png")
    with pytest.raises(UserError, match="allowed: tables, whose rows hold an image, a prompt and a completion"):
        build(tmp_path, path="one.png")


def test_the_identity_follows_the_processor(tmp_path: Path) -> None:
    save_questions(tmp_path / "rows.parquet")
    one, same, other = (corpus_identity(ladder(), tmp_path, "tokenizer", name, None) for name in ("a", "a", "b"))
    assert one == same != other
    assert one["images"]["processor"] == "a"
