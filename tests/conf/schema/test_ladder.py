"""Every setting is described, frozen and bounded."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from conf.loading.introspect import classes
from conf.loading.load import shipped
from conf.schema.base import Settings
from conf.schema.data import Tokenizer
from conf.schema.ladder import Ladder
from conf.schema.stage.gate import Gate
from conf.schema.stage.objective import Alpha, Objective, Schedule, Temperature
from conf.schema.stage.stage import Stage
from conf.schema.stage.student import Shape, Student
from conf.schema.stage.training import Training

SHAPE = {"hidden_size": 8, "layers": 2, "heads": 2, "feed_forward": 16}


def reachable() -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    waiting: list[type[BaseModel]] = [Ladder]
    while waiting:
        model = waiting.pop()
        if model not in found:
            found.append(model)
            waiting += [inner for field in model.model_fields.values() for inner in classes(field.annotation)]
    return found


def ladder(**changed: Any) -> dict[str, Any]:
    stage = {"name": "small", "student": {"shape": {**SHAPE, "layers": 1}}, "training": {"steps": 3}}
    plain = {
        "name": "tiny",
        "data": {"source": "python-stdlib"},
        "teacher": {"source": "train", "shape": dict(SHAPE), "training": {"steps": 3}},
        "stages": [stage],
    }
    return {**plain, **changed}


@pytest.mark.parametrize("config", [[1], 5, {1: 2}])
def test_a_config_is_a_mapping_or_a_path(config: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Student.model_validate({"config": config})
    assert f"got {config!r}; allowed: a mapping with model_type, or the path of a config.json. Give one of them." in str(caught.value)


def test_all_settings_classes_are_reached() -> None:
    names = {model.__name__ for model in reachable()}
    assert names == {
        *("Ladder", "StdlibData", "DigitsData", "FilesData", "DatasetData", "Columns", "Tokenizer", "TrainedTeacher", "CheckpointTeacher"),
        *("Shape", "Training", "Stage", "Student", "Objective", "Alpha", "AnswersTeacher", "Temperature", "Gate", "Evaluation", "Compute"),
        *("Splits", "WeightedSource", "Resize", "Feature", "Signals", "Bench", "Economics", "Range", "Audit", "AuditLimit", "Comparison"),
        *("Monitoring", "WindowColumns", "PromotionRules", "Redistill", "TransferRows", "SearchSettings", "Routing", "ScoredPairs"),
        *("Generate", "Endpoint", "Prompts", "Selection", "Perplexity"),
        "Export",
    }


@pytest.mark.parametrize("model", reachable(), ids=lambda model: model.__name__)
def test_every_field_says_what_it_is(model: type[BaseModel]) -> None:
    assert issubclass(model, Settings)
    assert model.__doc__
    assert model.model_config.get("frozen") is True
    assert model.model_config.get("extra") == "forbid"
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), f"{model.__name__}.{name} is not made by setting()"
        assert field.description, f"{model.__name__}.{name} has no description"
        assert isinstance(extra["unit"], str), f"{model.__name__}.{name} has no unit entry"
        assert isinstance(extra["identity"], bool)
        if extra["unit"]:
            assert field.description.endswith(f"[{extra['unit']}]")


def test_every_number_has_a_unit() -> None:
    for model in reachable():
        for name, field in model.model_fields.items():
            extra = field.json_schema_extra
            assert isinstance(extra, dict)
            if field.annotation in (int, float):
                assert extra["unit"], f"{model.__name__}.{name} is a number without a unit"


def test_the_json_schema_carries_the_words() -> None:
    schema = Ladder.model_json_schema()
    assert schema["properties"]["seed"]["description"] == "Seed of data order and initial weights [seed]"
    assert schema["properties"]["seed"]["unit"] == "seed"
    assert schema["additionalProperties"] is False


def test_settings_cannot_be_changed() -> None:
    made = Ladder.model_validate(ladder())
    with pytest.raises(ValidationError, match="frozen"):
        made.seed = 1  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValidationError, match="frozen"):
        made.stages[0].training.steps = 9  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("place", [(), ("data",), ("teacher",), ("teacher", "shape"), ("stages", 0), ("stages", 0, "training")])
def test_unknown_keys_are_refused_everywhere(place: tuple[str | int, ...]) -> None:
    plain: Any = ladder()
    inner = plain
    for part in place:
        inner = inner[part]
    inner["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        Ladder.model_validate(plain)


@pytest.mark.parametrize(
    ("model", "name", "inside", "outside"),
    [
        (Alpha, "start", [0, 1, 0.5], [-0.01, 1.01]),
        (Temperature, "start", [0.01, 100], [0, -1, 1e-300, 101]),
        (Training, "steps", [1], [0, -1, 1.5]),
        (Training, "batch_size", [1], [0]),
        (Training, "learning_rate", [1e-9, 10], [0, -1, 11]),
        (Training, "warmup", [0, 0.99], [1, -0.1]),
        (Training, "decay", [0.01, 1], [0, 1.01]),
        (Training, "final_ratio", [0, 1], [-0.1, 1.1]),
        (Training, "weight_decay", [0, 10], [-1, 11]),
        (Training, "beta1", [0, 0.999], [1, -0.1]),
        (Training, "beta2", [0, 0.999], [1, -0.1]),
        (Training, "clip", [1e-6], [0, -1]),
        (Training, "patience", [None, 1], [0]),
        (Training, "validate_every", [1], [0]),
        (Training, "checkpoint_every", [1], [0]),
        (Training, "explosion", [1.01], [1, 0]),
        (Gate, "min_parent_retention", [None, 0, 2], [-0.1, 2.1]),
        (Gate, "min_root_retention", [None, 0, 2], [-0.1, 2.1]),
        (Gate, "max_parameters", [None, 1], [0]),
        (Stage, "seed", [None, 0, 2**31 - 1], [-1, 2**31]),
        (Stage, "name", ["100k", "a_b-c"], ["", "a b", "-a", "a/b", "../x", "a" * 65]),
        (Ladder, "name", ["a", "digits-2"], ["", "Upper", "a b", "a/b", "a" * 65]),
        (Tokenizer, "vocabulary", [None, 259], [258]),
        (Shape, "layers", [1], [0]),
    ],
)
def test_bounds(model: type[Settings], name: str, inside: list[Any], outside: list[Any]) -> None:
    whole: dict[type[Settings], dict[str, Any]] = {
        Alpha: {},
        Temperature: {},
        Training: {"steps": 3},
        Gate: {},
        Stage: ladder()["stages"][0],
        Ladder: ladder(),
        Tokenizer: {},
        Shape: SHAPE,
    }
    for value in inside:
        assert getattr(model.model_validate({**whole[model], name: value}), name) == value
    for value in outside:
        with pytest.raises(ValidationError):
            model.model_validate({**whole[model], name: value})


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["learning_rate", "clip", "explosion", "weight_decay"])
def test_a_number_is_finite(name: str, value: float) -> None:
    with pytest.raises(ValidationError):
        Training.model_validate({"steps": 3, name: value})


@pytest.mark.parametrize("name", ["steps", "learning_rate", "patience", "schedule"])
def test_a_switch_is_no_number(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Training.model_validate({"steps": 3, name: True})
    assert [detail["loc"] for detail in caught.value.errors()] == [(name,)]


def test_a_switch_stays_a_switch() -> None:
    assert Shape.model_validate({**SHAPE, "tied_embeddings": False}).tied_embeddings is False


class TestSchedules:
    def test_a_bare_number_is_constant(self) -> None:
        objective = Objective.model_validate({"alpha": 0.5, "temperature": 2})
        assert objective.alpha == Alpha(start=0.5)
        assert objective.alpha.kind == "constant"
        assert objective.temperature.start == 2

    def test_cosine(self) -> None:
        alpha = Alpha.model_validate({"kind": "cosine", "start": 1.0, "end": 0.2})
        assert (alpha.start, alpha.end) == (1.0, 0.2)

    @pytest.mark.parametrize(
        "plain", [{"kind": "cosine", "start": 1}, {"start": 1, "end": 0.5}, {"kind": "constant", "start": 1, "end": 0}]
    )
    def test_an_end_belongs_to_cosine_alone(self, plain: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match="allowed: cosine with an end, constant without"):
            Alpha.model_validate(plain)

    def test_the_end_has_the_bounds_of_the_start(self) -> None:
        with pytest.raises(ValidationError):
            Alpha.model_validate({"kind": "cosine", "start": 1.0, "end": 1.5})
        with pytest.raises(ValidationError):
            Temperature.model_validate({"kind": "cosine", "start": 1.0, "end": 0})

    def test_a_schedule_survives_its_own_dump(self) -> None:
        for schedule in (Schedule(start=3.0), Schedule(kind="cosine", start=2.0, end=0.0)):
            assert Schedule.model_validate(schedule.model_dump()) == schedule


class TestShapes:
    def test_heads_divide_the_width(self) -> None:
        with pytest.raises(ValidationError, match="got hidden_size 8 and heads 3; allowed: heads that divide hidden_size"):
            Shape.model_validate({**SHAPE, "heads": 3})

    def test_a_llama_head_is_even(self) -> None:
        with pytest.raises(ValidationError, match="3 features in a head; allowed: an even number"):
            Shape.model_validate({**SHAPE, "hidden_size": 9, "heads": 3})
        assert Shape.model_validate({**SHAPE, "family": "bert", "hidden_size": 9, "heads": 3}).heads == 3

    def test_key_value_heads_divide_heads(self) -> None:
        with pytest.raises(ValidationError, match="got heads 4 and key_value_heads 3"):
            Shape.model_validate({**SHAPE, "heads": 4, "key_value_heads": 3})


class TestLadders:
    def test_stage_names_differ(self) -> None:
        stage = ladder()["stages"][0]
        with pytest.raises(ValidationError, match=r"stages\[1\]\.name: got 'small'; allowed: a name that no other stage has"):
            Ladder.model_validate(ladder(stages=[stage, stage]))

    def test_teacher_is_no_name_of_a_stage(self) -> None:
        stage = {**ladder()["stages"][0], "name": "teacher"}
        with pytest.raises(ValidationError, match=r"stages\[0\]\.name: got 'teacher'"):
            Ladder.model_validate(ladder(stages=[stage]))

    def test_there_is_a_stage(self) -> None:
        with pytest.raises(ValidationError, match="at least 1"):
            Ladder.model_validate(ladder(stages=[]))

    @pytest.mark.parametrize(
        ("workload", "family", "fits"),
        [
            ("causal-lm", "llama", True),
            ("causal-lm", "bert", False),
            ("causal-lm", "vit", False),
            ("sequence-classification", "bert", True),
            ("sequence-classification", "llama", True),
            ("sequence-classification", "vit", False),
            ("image-classification", "vit", True),
            ("image-classification", "llama", False),
        ],
    )
    def test_families_serve_workloads(self, workload: str, family: str, fits: bool) -> None:
        shape = {**SHAPE, "family": family}
        plain = ladder(workload=workload, data={"source": "dataset", "name": "x/y"})
        plain["teacher"]["shape"] = shape
        plain["stages"] = [{**plain["stages"][0], "student": {"shape": shape}}]
        if fits:
            assert Ladder.model_validate(plain).workload == workload
            return
        with pytest.raises(
            ValidationError, match=rf"stages\[0\]\.student\.shape\.family: got '{family}'; allowed: .* for workload {workload}"
        ):
            Ladder.model_validate(plain)

    def test_sources_serve_workloads(self) -> None:
        with pytest.raises(ValidationError, match=r"data\.source: got 'digits'; allowed: python-stdlib or files or dataset"):
            Ladder.model_validate(ladder(data={"source": "digits"}))

    def test_the_teachers_tokenizer_needs_a_checkpoint(self) -> None:
        with pytest.raises(ValidationError, match=r"tokenizer\.kind: got 'teacher'; allowed: bytes or bpe"):
            Ladder.model_validate(ladder(tokenizer={"kind": "teacher"}))

    def test_bpe_needs_a_size(self) -> None:
        with pytest.raises(ValidationError, match="without a vocabulary"):
            Tokenizer(kind="bpe")

    def test_micro_batches_divide_the_batch(self) -> None:
        with pytest.raises(ValidationError, match="got batch_size 10 and accumulation 4; allowed: an accumulation that divides batch_size"):
            Training(steps=1, batch_size=10, accumulation=4)

    def test_a_stage_may_have_a_seed_of_its_own(self) -> None:
        stage = ladder()["stages"][0]
        made = Ladder.model_validate(ladder(seed=5, stages=[stage, {**stage, "name": "b", "seed": 7}]))
        assert [made.stage_seed(s) for s in made.stages] == [5, 7]


def test_the_defaults_of_a_student_are_random_weights() -> None:
    assert Student.model_validate({"shape": SHAPE}).initialisation == "random"


def test_shipped_ladders_are_counted() -> None:
    assert set(shipped()) == {"digits", "llama-1b", "minilm", "python-stdlib", "sentiment", "smollm2"}


def test_warmup_and_decay_share_the_steps() -> None:
    Training.model_validate({"steps": 10, "schedule": "warmup-stable-decay", "warmup": 0.2, "decay": 0.8})
    with pytest.raises(ValidationError, match=r"warmup 0\.3 and decay 0\.8; allowed: a sum of at most 1"):
        Training.model_validate({"steps": 10, "schedule": "warmup-stable-decay", "warmup": 0.3, "decay": 0.8})
