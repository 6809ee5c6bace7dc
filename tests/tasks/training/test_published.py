"""Published folders in plain transformers: the same logits as in evaluation, on the same text and the same image file."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from conf.schema.ladder import Ladder
from models.architectures.shapes import config_for
from models.data.corpus import Corpus
from models.data.held_out import evaluation_batches
from models.students.initialise import random_model
from models.students.vocabulary import student_vocabulary
from tasks.data.build import build_corpus
from tasks.records.run import SampleRecord
from tasks.report.model_card import card
from tasks.runtime.runs.run_registry import Context
from tasks.training.published import write_missing, write_published
from tests.factories import data_record, model_record, run_record

FAMILIES = {"causal-lm": "llama", "sequence-classification": "bert", "image-classification": "vit"}
LENGTH = 24
PROMPT = """it's "room" 7
```
"""  # of a language model's own data


def ladder(workload: str, data: dict[str, Any], family: str = "", **student: Any) -> Ladder:
    shape = {"family": family or FAMILIES[workload], "hidden_size": 16, "layers": 2, "heads": 2, "feed_forward": 16, "patch_size": 4}
    training = {"steps": 1, "batch_size": 4}
    return Ladder.model_validate(
        {
            "name": "published",
            "workload": workload,
            "tokenizer": {"kind": "bpe", "vocabulary": 300} if student else {"kind": "bytes"},
            "data": {"valid_fraction": 0.3, "test_fraction": 0.2, "sequence_length": LENGTH, **data},
            "teacher": {"source": "train", "shape": shape, "training": training},
            "stages": [{"name": "small", "student": {"shape": shape, **student}, "training": training}],
        }
    )


def texts(base: Path) -> dict[str, Any]:
    words = ["warm", "quiet", "late", "broken", "superb", "room", "window"]
    rows = [{"text": f"{i} " + " ".join(random.Random(i).choices(words, k=3 + i % 9)), "label": ("no", "yes")[i % 2]} for i in range(40)]
    (base / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": "files", "paths": ["rows.jsonl"]}


def images(base: Path, mode: str = "RGB") -> dict[str, Any]:
    for number in range(20):
        folder = base / "pictures" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (17, 13, 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(folder / f"{number}.png")
    return {"source": "files", "paths": ["pictures"], "resize": {"size": [8, 8]}}


def published(made: Ladder, base: Path) -> tuple[Corpus, nn.Module, Path]:
    """A corpus, a model that was never trained, and its folder."""
    corpus, folder = Corpus(base / "corpus", "hash"), base / "model"
    corpus.folder.mkdir()
    build_corpus(made, base, None, corpus.folder, lambda _: None)
    model = random_model(config_for(made.stages[0].student.shape, corpus.interface), made.workload, seed=0).eval()
    for parameter in model.parameters():  # away from the zeros of first weights, so that every input counts
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
    folder.mkdir()
    write_published(model, folder, corpus, student_vocabulary(made.stages[0].student.vocabulary, corpus))
    return corpus, model, folder


def evaluated(corpus: Corpus, model: nn.Module) -> list[list[float]]:
    with torch.no_grad():
        return [row for batch in evaluation_batches(corpus, "valid", 100, 7) for row in model(**batch.inputs).logits.tolist()]


def scores(pipe: Any, given: Any) -> list[float]:
    found = {each["label"]: each["score"] for each in pipe(given, top_k=None, function_to_apply="none")}
    return [found[pipe.model.config.id2label[index]] for index in range(len(found))]


@pytest.mark.parametrize("workload", ["sequence-classification", "image-classification"])
def test_a_folder_without_tokenizer_or_processor_gets_that_of_its_data(tmp_path: Path, workload: str) -> None:
    made = ladder(workload, (images if workload == "image-classification" else texts)(tmp_path))
    corpus, _, folder = published(made, tmp_path)
    write_missing(folder, corpus, whole := tmp_path / "whole")
    assert not whole.exists(), "nothing is missing"
    bare = tmp_path / "bare"
    bare.mkdir()
    write_missing(bare, corpus, bare)
    if workload == "image-classification":
        picture = np.array(Image.open(next(tmp_path.glob("pictures/*/*.png"))))
        both = [transformers.AutoImageProcessor.from_pretrained(each)([picture])["pixel_values"][0] for each in (folder, bare)]
        assert np.array_equal(*both)
    else:
        both = [transformers.AutoTokenizer.from_pretrained(each)("a warm room")["input_ids"] for each in (folder, bare)]
        assert both[0] == both[1]


@pytest.mark.parametrize("vocabulary", ["teacher", "used"])
def test_a_student_generates_as_its_teacher(tmp_path: Path, vocabulary: str) -> None:
    made = ladder("causal-lm", texts(tmp_path), **({"vocabulary": "used"} if vocabulary == "used" else {}))
    corpus, model, folder = published(made, tmp_path)
    end, other = corpus.info.end_id, 40
    assert end is not None
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    settings = {"do_sample": True, "temperature": 0.2, "top_p": 0.9, "eos_token_id": [end, other], "max_new_tokens": 7}
    (teacher / "generation_config.json").write_text(json.dumps(settings))
    kept = student_vocabulary(made.stages[0].student.vocabulary, corpus)
    (tmp_path / "student").mkdir()
    write_published(model, tmp_path / "student", corpus, kept, teacher)
    given = transformers.GenerationConfig.from_pretrained(tmp_path / "student")
    assert (given.do_sample, given.temperature, given.top_p) == (True, 0.2, 0.9)
    tokenizer, own = transformers.AutoTokenizer.from_pretrained(tmp_path / "student"), transformers.AutoTokenizer
    wide = own.from_pretrained(corpus.tokenizer_folder).convert_ids_to_tokens([end, other])
    assert tokenizer.convert_ids_to_tokens(given.eos_token_id) == wide
    assert given.max_length == transformers.GenerationConfig.from_pretrained(folder).max_length, "lengths are not habits"


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_image_file_in_a_pipeline(tmp_path: Path, mode: str) -> None:
    corpus, model, folder = published(ladder("image-classification", images(tmp_path, mode)), tmp_path)
    pipe = transformers.pipeline("image-classification", model=str(folder))
    assert set(pipe.model.config.label2id) == {"cat", "dog"}
    everything = [scores(pipe, str(path)) for path in sorted(tmp_path.glob("pictures/*/*.png"))]
    for row in evaluated(corpus, model):
        assert min(np.abs(np.array(row) - other).max() for other in everything) < 1e-5
    assert np.ptp(everything, axis=0).min() > 0.01, "images differ by more than the tolerance"


def test_grey_images_by_choice_are_handed_over_as_arrays(tmp_path: Path) -> None:
    corpus, model, folder = published(ladder("image-classification", {**images(tmp_path), "channels": 1}), tmp_path)
    pipe = transformers.pipeline("image-classification", model=str(folder))
    everything = [scores(pipe, np.array(Image.open(path).convert("L"))[None]) for path in sorted(tmp_path.glob("pictures/*/*.png"))]
    for row in evaluated(corpus, model):
        assert min(np.abs(np.array(row) - other).max() for other in everything) < 1e-5


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_long_text_in_a_pipeline(tmp_path: Path, family: str) -> None:
    corpus, model, folder = published(ladder("sequence-classification", texts(tmp_path), family), tmp_path)
    pipe = transformers.pipeline("text-classification", model=str(folder), truncation=True)
    assert pipe.tokenizer.model_max_length == LENGTH
    everything = [scores(pipe, json.loads(row)["text"]) for row in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert max(map(len, (tmp_path / "rows.jsonl").read_text().splitlines())) > 2 * LENGTH
    for row in evaluated(corpus, model):
        assert min(np.abs(np.array(row) - other).max() for other in everything) < 1e-5
    assert pipe.model.config.id2label == {0: "no", 1: "yes"}


@pytest.mark.parametrize("vocabulary", ["teacher", "used"])
def test_a_language_model_in_a_pipeline(tmp_path: Path, vocabulary: str) -> None:
    made = ladder("causal-lm", texts(tmp_path), **({"vocabulary": "used"} if vocabulary == "used" else {}))
    _, _, folder = published(made, tmp_path)
    pipe = transformers.pipeline("text-generation", model=str(folder))
    assert pipe.tokenizer.model_max_length == LENGTH
    assert pipe("warm", max_new_tokens=3, do_sample=False)[0]["generated_text"].startswith("warm")


@pytest.mark.parametrize(("workload", "more"), [*((workload, {}) for workload in FAMILIES), ("image-classification", {"channels": 1})])
def test_the_example_of_a_card_runs(tmp_path: Path, workload: str, more: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    made = ladder(workload, {**(images if workload == "image-classification" else texts)(tmp_path), **more})
    corpus, _, folder = published(made, tmp_path)
    root, student = (
        model_record("teacher", folder=str(folder)),
        model_record(folder=str(folder), samples=(SampleRecord(prompt=" ", text=""), SampleRecord(prompt=PROMPT, text=""))),
    )
    context = Context(run="tiny-1", ladder="published", home=str(tmp_path), base=str(tmp_path))
    text = card(student, [root], made, data_record(folder=str(corpus.folder)), context, run_record("tiny-1", root, student))
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(example.replace("FOLDER", str(folder)), "card", "exec"), {})
    shown = capsys.readouterr().out
    assert shown.strip()
    assert workload != "causal-lm" or shown.startswith(PROMPT), "of its own data"
