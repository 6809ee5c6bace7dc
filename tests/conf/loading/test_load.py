"""Loading a ladder from a name or a path, and overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from conf.loading.load import SHIPPED, load, merge, shipped
from conf.loading.yaml_output import to_yaml
from conf.schema.ladder import Ladder
from conf.schema.teacher import TrainedTeacher
from tests.conf.tiny import TINY, refused, write


class TestSources:
    def test_every_shipped_ladder_loads_by_its_name(self) -> None:
        assert len(shipped()) == 6
        for name in shipped():
            loaded = load(name)
            assert loaded.ladder.name == name
            assert loaded.base == Path.cwd()

    def test_a_path_counts_from_its_own_folder(self, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert load(tiny).base == tmp_path
        monkeypatch.chdir(tmp_path)
        assert load("ladder.yaml").base == tmp_path
        assert load("./ladder.yaml").ladder == load(tiny).ladder

    def test_an_unknown_ladder(self) -> None:
        message = refused("digit")
        assert message == (
            "ladder: got 'digit'; allowed: a shipped ladder (digits, llama-1b, minilm, python-stdlib, sentiment, smollm2) "
            "or the path of a YAML file. "
            "Did you mean 'digits'? `ladder list` shows the shipped ones."
        )

    def test_a_folder_is_no_ladder(self, tmp_path: Path) -> None:
        assert "the path of a YAML file" in refused(str(tmp_path))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("name: [", "does not parse"),
            (
                "name: x\ndata: {source: digits, classes: 2, classes: 3}",
                "data.classes: got 'a key that is written twice, in lines 2 and 2 of",
            ),
            (
                "name: x\nstages:\n- name: a\n  notes: b\n  notes: c",
                "stages[0].notes: got 'a key that is written twice, in lines 4 and 5 of",
            ),
            ("name: a\nname: b\n", "name: got 'a key that is written twice, in lines 1 and 2 of"),
            ("- a\n- b\n", "a YAML mapping with name, data, teacher and stages"),
            ("name: !!python/object/apply:os.system ['touch touched']\n", "could not determine a constructor"),
        ],
    )
    def test_what_is_no_yaml_ladder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
        monkeypatch.chdir(tmp_path)
        message = refused(write(tmp_path, text))
        assert reason in message
        assert "ladder.yaml" in message
        assert not (tmp_path / "touched").exists()

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "x.yaml"
        path.write_bytes(b"\xff\xfe\x00\x01name")
        assert "a readable YAML file" in refused(str(path))

    def test_an_empty_file_names_what_is_missing(self, tmp_path: Path) -> None:
        message = refused(write(tmp_path, "{}"))
        for key in ("name", "data", "teacher", "stages"):
            assert f"{key}: missing" in message or f"{key}: got []" in message


class TestDefaults:
    def test_they_lie_under_every_stage(self, tiny: str) -> None:
        first, second = load(tiny).ladder.stages
        assert (first.training.steps, first.training.batch_size, first.objective.alpha.start) == (5, 8, 0.6)
        assert (second.training.steps, second.training.batch_size) == (7, 8)
        assert (second.objective.alpha.start, second.objective.temperature.start) == (0.6, 3)

    @pytest.mark.parametrize(
        ("under", "over", "merged"),
        [
            ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
            ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
            ({"a": 5}, {"a": {"b": 1}}, {"a": {"b": 1}}),
            ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
            ({"a": 1}, {"a": None}, {"a": None}),
            ({}, {"a": 1}, {"a": 1}),
        ],
    )
    def test_merge(self, under: Any, over: Any, merged: Any) -> None:
        assert merge(under, over) == merged

    def test_a_mistake_in_them_is_told_once_under_its_own_key(self, tiny: str) -> None:
        message = refused(tiny, ["defaults.training.batch_size=0", "teacher.training.batch_size=8"])
        assert message.startswith("defaults.training.batch_size: got 0; allowed: a whole number in [1, 1048576].")
        assert "\n" not in message

    def test_they_are_a_mapping(self, tiny: str) -> None:
        assert refused(tiny, ["defaults=3", "teacher.training={steps: 5}"]).startswith("defaults: got 3; allowed: settings of a stage")


class TestOverrides:
    @pytest.mark.parametrize("key", ["stages[1]", "stages.small", "stages[-1]", "stages[small]"])
    def test_a_stage_by_index_and_by_name(self, tiny: str, key: str) -> None:
        ladder = load(tiny, [f"{key}.objective.alpha=0.25", f"{key}.training.steps=9"]).ladder
        assert [stage.objective.alpha.start for stage in ladder.stages] == [0.6, 0.25]
        assert [stage.training.steps for stage in ladder.stages] == [5, 9]

    def test_a_name_that_begins_with_a_digit(self, tiny: str) -> None:
        assert load(tiny, ["stages.100k.training.steps=50"]).ladder.stages[0].training.steps == 50

    def test_the_last_one_wins(self, tiny: str) -> None:
        assert load(tiny, ["seed=1", "seed=2"]).ladder.seed == 2

    def test_values_are_yaml(self, tiny: str) -> None:
        overrides = [
            "stages[0].objective.alpha={kind: cosine, start: 1.0, end: 0.1}",
            "stages[0].training.learning_rate=1e-3",
            "stages[0].training.patience=null",
            "teacher.shape.tied_embeddings=false",
            "description=a = b",
            "data={source: files, paths: [a.txt, b/*.txt]}",
        ]
        ladder = load(tiny, overrides).ladder
        first = ladder.stages[0]
        assert (first.objective.alpha.kind, first.objective.alpha.end) == ("cosine", 0.1)
        assert first.training.learning_rate == 1e-3
        assert first.training.patience is None
        assert isinstance(ladder.teacher, TrainedTeacher)
        assert ladder.teacher.shape.tied_embeddings is False
        assert ladder.description == "a = b"
        assert ladder.data.model_dump()["paths"] == ("a.txt", "b/*.txt")

    def test_interpolation_of_another_key(self, tiny: str) -> None:
        assert load(tiny, ["seed=41", "stages[0].seed=${seed}"]).ladder.stages[0].seed == 41

    def test_a_default_reaches_what_interpolates_it(self, tiny: str) -> None:
        ladder = load(tiny, ["defaults.training.steps=11"]).ladder
        assert isinstance(ladder.teacher, TrainedTeacher)
        assert (ladder.teacher.training.steps, ladder.stages[0].training.steps) == (11, 11)

    @pytest.mark.parametrize("order", [1, -1])
    def test_an_override_inside_an_interpolated_part_changes_that_key_alone(self, tiny: str, order: int) -> None:
        overrides = ["teacher.training.steps=99", "defaults.training.batch_size=4"][::order]
        ladder = load(tiny, overrides).ladder
        assert isinstance(ladder.teacher, TrainedTeacher)
        assert (ladder.teacher.training.steps, ladder.teacher.training.batch_size) == (99, 4)
        assert (ladder.stages[0].training.steps, ladder.stages[0].training.batch_size) == (5, 4)

    @pytest.mark.parametrize(
        "text", ["${oc.env:HOME}", "a ${oc.env:HOME,x} b", "${oc.${name}:HOME}", "${oc.decode:'1'}", "[1, ${oc.env:HOME}]"]
    )
    def test_resolvers_are_refused(self, tiny: str, text: str) -> None:
        message = refused(tiny, [f"description={text}"])
        assert message.startswith(f"description: got {text!r}")
        assert "Resolvers" in message

    def test_a_colon_outside_an_interpolation_is_no_resolver(self, tiny: str) -> None:
        ladder = load(
            tiny, ["stages[0].gate={max_parameters: '${stages[0].training.batch_size}', policy: warn}", "stages[0].training.batch_size=6"]
        )
        assert ladder.ladder.stages[0].gate.max_parameters == 6

    def test_an_override_needs_an_equals_sign(self, tiny: str) -> None:
        assert refused(tiny, ["seed"]) == "override: got 'seed'; allowed: key=value. For instance stages[0].objective.alpha=0.5."
        assert "allowed: key=value" in refused(tiny, ["=3"])

    def test_an_empty_value_is_none(self, tiny: str) -> None:
        assert load(tiny, ["stages[0].seed="]).ladder.stages[0].seed is None

    def test_an_unknown_stage(self, tiny: str) -> None:
        message = refused(tiny, ["stages.smal.seed=1"])
        assert message == (
            "override: got 'stages.smal.seed'; allowed: a stage of this ladder: 100k, small. Did you mean 'small'? "
            "Stages are named, or numbered as stages[0]."
        )

    @pytest.mark.parametrize("index", [2, -3])
    def test_an_index_beyond_the_stages(self, tiny: str, index: int) -> None:
        assert refused(tiny, [f"stages[{index}].seed=1"]) == (
            f"override: got 'stages[{index}].seed'; allowed: stages[0] to stages[1]. The stages are 100k, small."
        )

    @pytest.mark.parametrize("override", ["stages[one].seed=1", "data=[", "seed={a", "stages.100k[=3", "a..b=1"])
    def test_what_does_not_parse_is_a_users_mistake(self, tiny: str, override: str) -> None:
        assert override.split("=", maxsplit=1)[0].split(".")[0].split("[")[0] in refused(tiny, [override])

    def test_an_interpolation_of_nothing(self, tiny: str) -> None:
        message = refused(tiny, ["seed=${nowhere}"])
        assert message.startswith("seed: got '${nowhere}'; allowed: a value, or an interpolation of a key that exists.")
        assert "give seed=..." in message

    def test_an_interpolation_of_itself(self, tiny: str) -> None:
        assert refused(tiny, ["seed=${seed}"])

    def test_a_value_that_must_be_given(self, tmp_path: Path) -> None:
        path = write(tmp_path, TINY.replace("name: tiny", "name: ???"))
        assert refused(path).startswith("name: got '???'; allowed: a value")
        assert load(path, ["name=given"]).ladder.name == "given"


@pytest.mark.parametrize("name", ["digits", "python-stdlib", "llama-1b", "sentiment", "smollm2"])
def test_the_printed_yaml_loads_to_the_same_ladder(name: str, tmp_path: Path) -> None:
    ladder = load(name, ["stages[0].objective.alpha={kind: cosine, start: 1.0, end: 0.3}"]).ladder
    assert load(write(tmp_path, to_yaml(ladder))).ladder == ladder


@example(text="A\x85", rate=1.0, alpha=0.0, seed=0)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20) | st.text(alphabet="${}\\:ab1e.-?'\" \n", max_size=12),
    rate=st.floats(min_value=1e-300, max_value=10),
    alpha=st.floats(min_value=0, max_value=1),
    seed=st.integers(min_value=0, max_value=2**31 - 1),
)
def test_any_settings_survive_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, text: str, rate: float, alpha: float, seed: int
) -> None:
    plain = yaml.safe_load(TINY.replace("${defaults.training}", "{steps: 5}"))
    defaults = plain.pop("defaults")
    plain["stages"] = [merge(defaults, stage) for stage in plain["stages"]]
    plain |= {"description": text, "seed": seed}
    plain["stages"][0]["training"]["learning_rate"] = rate
    plain["stages"][0]["objective"]["alpha"] = {"kind": "cosine", "start": alpha, "end": 0}
    ladder = Ladder.model_validate(plain)
    if text == "???":
        return  # OmegaConf's mark of a value that must be given
    assert load(write(tmp_path_factory.mktemp("trip"), to_yaml(ladder))).ladder == ladder


@pytest.mark.parametrize(
    "text", ["costs ${seed}", r"a \${b}", r"\\${b}", "${oc.env:HOME}", "$", "{a}", "100", "null", "1e5", "a: b", "é\n\t"]
)
def test_text_that_looks_like_something_else_survives(tiny: str, tmp_path: Path, text: str) -> None:
    ladder = load(tiny).ladder.model_copy(update={"description": text})
    assert load(write(tmp_path, to_yaml(ladder))).ladder.description == text


def test_shipped_ladders_lie_beside_the_loader() -> None:
    assert sorted(path.name for path in SHIPPED.iterdir()) == [f"{name}.yaml" for name in shipped()]
