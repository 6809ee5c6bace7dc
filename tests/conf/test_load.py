"""From a name or a path, and overrides, to a ladder; and what a user is told who mistypes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from conf.errors import UserError
from conf.load import SHIPPED, load, merge, shipped, to_yaml
from conf.schema import Ladder, TrainedTeacher

TINY = """
name: tiny
data: {source: python-stdlib}
defaults:
  objective: {alpha: 0.6}
  training: {steps: 5, batch_size: 8}
teacher:
  source: train
  shape: {hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}
  training: ${defaults.training}
stages:
  - name: 100k
    student: {shape: {hidden_size: 8, layers: 2, heads: 2, feed_forward: 16}}
  - name: small
    student: {shape: {hidden_size: 8, layers: 1, heads: 2, feed_forward: 16}}
    training: {steps: 7}
    objective: {temperature: 3}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return write(tmp_path, TINY)


def write(folder: Path, text: str) -> str:
    path = folder / "ladder.yaml"
    path.write_text(text)
    return str(path)


def refused(source: str, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(UserError) as caught:
        load(source, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


class TestSources:
    def test_every_shipped_ladder_loads_by_its_name(self) -> None:
        assert len(shipped()) == 4
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
            "ladder: got 'digit'; allowed: a shipped ladder (digits, llama-1b, python-stdlib, smollm2) or the path of a YAML file. "
            "Did you mean 'digits'? `ladder list` shows the shipped ones."
        )

    def test_a_folder_is_no_ladder(self, tmp_path: Path) -> None:
        assert "the path of a YAML file" in refused(str(tmp_path))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("name: [", "does not parse"),
            ("name: a\nname: b\n", "duplicate key"),
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
        assert message.startswith("defaults.training.batch_size: got 0; allowed: a whole number, at least 1.")
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


class TestMessages:
    """Each names the key, the value, what is allowed and the remedy."""

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            (
                "stages[0].objective.alpha=1.5",
                "stages[0].objective.alpha: got 1.5; allowed: a number in [0, 1], or {kind: cosine, start: ..., end: ...}. "
                "`ladder explain stages.objective.alpha` describes it.",
            ),
            (
                "stages[0].objective.temperature=-1",
                "stages[0].objective.temperature: got -1; allowed: a number in (0, 100], or {kind: cosine, start: ..., end: ...}. "
                "`ladder explain stages.objective.temperature` describes it.",
            ),
            (
                "stages[0].objective.alpha={kind: cosine, start: 2, end: 1}",
                "stages[0].objective.alpha.start: got 2; allowed: a number in [0, 1]. `ladder explain stages.objective.alpha.start`",
            ),
            ("data.sequence_length=abc", "data.sequence_length: got 'abc'; allowed: a whole number in [2, 1048576]. `ladder explain"),
            ("seed=true", "seed: got True; allowed: a whole number in [0, 2147483647]. `ladder explain seed` describes it."),
            ("seed=1.5", "seed: got 1.5; allowed: a whole number in [0, 2147483647]."),
            ("stages[0].training.learning_rate=0", "stages[0].training.learning_rate: got 0; allowed: a number in (0, 10]."),
            ("stages[0].training.clip=.inf", "stages[0].training.clip: got inf; allowed: a number above 0."),
            ("stages[0].training.steps=0", "stages[0].training.steps: got 0; allowed: a whole number, at least 1."),
            ("stages[0].training.patience=0", "stages[0].training.patience: got 0; allowed: a whole number, at least 1, or none."),
            ("stages[0].gate.policy=halt", "stages[0].gate.policy: got 'halt'; allowed: stop, warn, ask, extend or insert."),
            (
                "stages[0].objective.alpha={kind: cosin, start: 1}",
                "stages[0].objective.alpha.kind: got 'cosin'; allowed: constant or cosine. Did you mean 'cosine'?",
            ),
            (
                "data.source=python-stdlb",
                "data.source: got 'python-stdlb'; allowed: one of python-stdlib, digits, files, dataset. Did you mean 'python-stdlib'? "
                "`ladder explain data.source` describes it.",
            ),
            ("teacher.source=chekpoint", "teacher.source: got 'chekpoint'; allowed: one of train, checkpoint. Did you mean 'checkpoint'?"),
            ("data={sequence_length: 5}", "data.source: got None; allowed: one of python-stdlib, digits, files, dataset."),
            ("data=3", "data: got 3; allowed: a mapping with source: python-stdlib, digits, files or dataset."),
            ("evaluation=3", "evaluation: got 3; allowed: a mapping with examples, batch_size, samples, sample_tokens."),
            ("stages[0]=3", "stages[0]: got 3; allowed: a mapping with name, notes, student"),
            ("stages=5", "stages: got 5; allowed: a list of stages"),
            ("stages=[]", "stages: got []; allowed: a list of settings, not empty."),
            ("name=Hello World", "name: got 'Hello World'; allowed: 1 to 64 lower-case letters, digits and -"),
            ("stages[0].name=100", "stages[0].name: got 100; allowed: 1 to 64 letters, digits, - and _"),
            ("tokenizer.kind=bpe", "tokenizer: got kind 'bpe' without a vocabulary; allowed: kind bpe with a number of ids."),
            ("teacher.shape.heads=5", "teacher.shape: got hidden_size 16 and heads 5; allowed: heads that divide hidden_size."),
            (
                "stages[1].training.accumulation=3",
                "stages[1].training: got batch_size 8 and accumulation 3; allowed: an accumulation that divides batch_size.",
            ),
            ("data={source: files}", "data.paths: missing, and it has no default; allowed: a list of texts, not empty."),
            ("data={source: files, paths: []}", "data.paths: got []; allowed: a list of texts, not empty."),
            ("data={source: files, paths: [3]}", "data.paths[0]: got 3; allowed: text."),
        ],
    )
    def test_one_mistake(self, tiny: str, override: str, message: str) -> None:
        told = refused(tiny, [override])
        assert told.startswith(message)
        assert "\n" not in told

    @pytest.mark.parametrize(
        ("override", "start", "hint"),
        [
            (
                "stagez=5",
                "stagez: unknown key, with the value 5; allowed: name, description,",
                "Did you mean 'stages'? `ladder explain` describes",
            ),
            ("stages.small.training.stepz=5", "stages[1].training.stepz: unknown key, with the value 5; allowed: steps,", "'steps'"),
            (
                "data.sequence_lenght=5",
                "data.sequence_lenght: unknown key, with the value 5; allowed: sequence_length,",
                "'sequence_length'",
            ),
            ("teacher.shape.hiden_size=5", "teacher.shape.hiden_size: unknown key", "'hidden_size'"),
            ("data.files=x", "data.files: unknown key, with the value 'x'", "`ladder explain data` describes them."),
            ("data.python-stdlib=x", "data.python-stdlib: unknown key, with the value 'x'", "`ladder explain data` describes them."),
            ("teacher.checkpoint=x", "teacher.checkpoint: unknown key, with the value 'x'; allowed: source, shape, training.", ""),
            ("defaults.objective.alfa=1", "defaults.objective.alfa: unknown key, with the value 1; allowed: kind, alpha,", "'alpha'"),
        ],
    )
    def test_an_unknown_key(self, tiny: str, override: str, start: str, hint: str) -> None:
        told = refused(tiny, [override])
        assert told.startswith(start)
        assert hint in told
        assert "\n" not in told

    def test_several_mistakes_are_several_lines(self, tiny: str) -> None:
        lines = refused(tiny, ["seed=-1", "stages[0].objective.alpha=2", "stages[1].objective.alpha=3"]).splitlines()
        assert [line.split(":")[0] for line in lines] == ["seed", "stages[0].objective.alpha", "stages[1].objective.alpha"]

    def test_a_long_value_is_cut(self, tiny: str) -> None:
        told = refused(tiny, [f"evaluation={'x' * 1000}"])
        assert "..." in told
        assert len(told) < 400


@pytest.mark.parametrize("name", ["digits", "python-stdlib", "llama-1b", "smollm2"])
def test_the_printed_yaml_loads_to_the_same_ladder(name: str, tmp_path: Path) -> None:
    ladder = load(name, ["stages[0].objective.alpha={kind: cosine, start: 1.0, end: 0.3}"]).ladder
    assert load(write(tmp_path, to_yaml(ladder))).ladder == ladder


@example(text="A\x85", rate=1.0, alpha=0.0, seed=0)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.text(max_size=20) | st.text(alphabet="${}\\:ab1e.-?'\" \n", max_size=12),
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
