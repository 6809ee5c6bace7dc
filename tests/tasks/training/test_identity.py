"""The hash of a run's settings, by which an interrupted run is found."""

from __future__ import annotations

import json

from conf.schema.ladder import Ladder
from tasks.training.identity import settings_hash, stage_identity, untaught

SHAPE = {"family": "vit", "hidden_size": 8, "layers": 2, "heads": 2, "feed_forward": 16}
STAGE = {"name": "small", "student": {"shape": {**SHAPE, "layers": 1}}, "training": {"steps": 3}}
PLAIN = {
    "name": "tiny",
    "workload": "image-classification",
    "data": {"source": "digits"},
    "teacher": {"source": "train", "shape": SHAPE, "training": {"steps": 3}},
    "stages": [STAGE],
}
# As version 0.3.0 computed them, which had no setting `tracking`.
EARLIER = "aecab08a8864ed1ae3228521fe004fa7e3c51b236a63aff2732f459dd6bfa3e0"
EARLIER_PROOF = "84cf776a2391a7b64d1bd63edb3cf07d80b2ea1ac86a58ee8e2fa6ab073180e7"


def test_a_run_of_the_version_before_is_found() -> None:
    ladder = Ladder.model_validate(PLAIN)
    assert (settings_hash(ladder), settings_hash(ladder, "proof")) == (EARLIER, EARLIER_PROOF)


def test_a_run_without_mlflow_is_another_one() -> None:
    hashes = {settings_hash(Ladder.model_validate({**PLAIN, "tracking": choice})) for choice in ("mlflow", "off", False)}
    assert len(hashes) == 2, "YAML reads a bare off as false"


def test_a_run_that_was_refused_for_its_teacher_goes_on_where_the_teacher_is_allowed() -> None:
    teacher = {"source": "checkpoint", "path": "t"}
    settings = ({"allow_poor": False}, {"allow_poor": True}, {"path": "u"})
    refused, allowed, other = (settings_hash(Ladder.model_validate({**PLAIN, "teacher": teacher | more})) for more in settings)
    assert refused == allowed != other


def test_weights_of_classes_are_in_the_identity_where_they_are_set() -> None:
    def identity(**objective: object) -> str:
        ladder = Ladder.model_validate({**PLAIN, "stages": [{**STAGE, "objective": objective}]})
        return json.dumps(stage_identity(ladder, ladder.stages[0], "fp32", "data", ("teacher",)))

    assert identity() == identity(class_weights="none")
    assert "class_weights" not in identity()
    assert len({identity(), identity(class_weights="balanced"), identity(class_weights={3: 2})}) == 3
    weighted = Ladder.model_validate({**PLAIN, "stages": [{**STAGE, "objective": {"class_weights": "balanced"}}]}).stages[0]
    assert untaught(weighted).objective.class_weights == "balanced"
