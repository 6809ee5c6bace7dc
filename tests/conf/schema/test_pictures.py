"""Settings of models that read pictures with texts: what they need, and what they do not have."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from conf.errors import UserError
from conf.schema.workloads import refuse_unserved
from models.engines.load import load_engine
from models.export.formats import check_format
from tests.factories import ladder_of_file
from tests.vision_models import SMALL, captions_ladder, ladder

SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32}
TRAINED: dict[str, Any] = {"source": "train", "shape": SHAPE, "training": {"steps": 1, "batch_size": 1, "learning_rate": 1e-3}}
COLUMNS = {"image": "image", "text": "prompt"}
NO_VISION = {name: value for name, value in SMALL.items() if name != "vision_config"}


def test_the_ladder_of_the_tests_is_whole() -> None:
    assert ladder().workload == "image-text"
    assert ladder(stage={"student": {"config": NO_VISION, "vision": "frozen"}}).stages[0].student.vision == "frozen"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"teacher": {**TRAINED, "shape": {**SHAPE, "family": "llama"}}},
            r"teacher\.shape\.family: got 'llama'; allowed: a student's config",
        ),
        ({"tokenizer": {"kind": "bytes"}}, r"tokenizer\.kind: got 'bytes'; allowed: teacher"),
        ({"data": {"columns": COLUMNS}}, r"data\.columns: got no prompt; allowed: prompt and completion"),
        ({"data": {"channels": 1}}, r"data\.channels: got 1; allowed: auto or 3"),
        ({"exports": [{"format": "onnx"}]}, r"exports: got 'onnx'; allowed: none"),
        ({"stage": {"student": {"parameters": "10k"}}}, r"stages\[0\]\.student\.parameters: got some; allowed: config"),
        ({"stage": {"student": {"config": SMALL, "initialisation": "layers"}}}, r"stages\[0\]\.student\.initialisation: got 'layers'"),
        ({"stage": {"student": {"config": SMALL, "vision": "kept"}}}, r"got vision 'kept' and config\.vision_config"),
        ({"stage": {"gate": {"policy": "insert"}}}, r"stages\[0\]\.gate\.policy: got 'insert'; allowed: any other"),
        ({"stage": {"objective": {"features": [{"kind": "hidden"}]}}}, r"stages\[0\]\.objective\.features: got some; allowed: none"),
        ({"stage": {"student": {"config": SMALL, "vocabulary": "used"}}}, r"student\.vocabulary: got 'used'"),
        ({"evaluation": {"tasks": ["arc_easy"]}}, r"evaluation\.tasks"),
    ],
)
def test_settings_that_do_not_suit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ladder(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"data": {"columns": {"image": "image", "prompt": "p", "completion": "c"}}},
            r"data\.columns: got conversations; allowed: text",
        ),
        ({"stage": {"objective": {"kind": "forward-kl"}}}, r"objective\.kind: got 'forward-kl'; allowed: cosine, mse, similarity-kl"),
        ({"stage": {"signals": {"source": "cached"}}}, r"signals\.source: got 'cached'"),
        ({"stage": {"student": {"parameters": "10k"}}}, r"stages\[0\]\.student\.parameters: got some; allowed: config"),
        ({"data": {"pairs": {"paths": ["p.csv"]}}}, r"data\.pairs: got some; allowed: none, for workload image-text-embedding"),
        ({"stage": {"gate": {"max_ece": 0.1}}}, r"stages\[0\]\.gate\.max_ece"),
    ],
)
def test_settings_that_do_not_suit_embeddings_of_pictures_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        captions_ladder(**settings)


def test_a_vision_part_is_for_pictures_with_texts() -> None:
    plain = {"workload": "causal-lm", "data": {"source": "python-stdlib"}, "teacher": TRAINED, "tokenizer": {"kind": "bytes"}}
    student = {"config": {"model_type": "llama", "hidden_size": 16}, "vision": "kept"}
    with pytest.raises(ValidationError, match=r"stages\[0\]\.student\.vision: got 'kept'; allowed: own, for workload causal-lm"):
        ladder_of_file(**plain, stages=[{"name": "a", "student": student, "training": TRAINED["training"]}])


def test_what_serves_exports_and_watches_says_that_it_does_not(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="an export of another workload than image-text"):
        check_format("hf", "idefics3", "image-text", "--format")
    with pytest.raises(UserError, match="a model of another workload than image-text"):
        load_engine(tmp_path, "image-text")
    refuse_unserved("causal-lm", "RUN", "x", "a run")
