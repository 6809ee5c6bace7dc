"""Short forms of teacher, data and stages become the settings that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.errors import UserError
from conf.loading.load import load
from conf.loading.yaml_output import to_yaml
from conf.schema.data import DatasetData, DigitsData, FilesData
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from tests.conf.tiny import TINY, refused, write

SIX = """
name: six
teacher: models/big
data: data/*.jsonl
stages: [40m, 12m, 1.5k]
"""


def six(folder: Path, *overrides: str, text: str = SIX) -> Ladder:
    return load(write(folder, text), overrides).ladder


def test_four_lines_are_a_whole_ladder(tmp_path: Path) -> None:
    ladder = six(tmp_path)
    assert isinstance(ladder.teacher, CheckpointTeacher)
    assert ladder.teacher.path == "models/big"
    assert ladder.tokenizer.kind == "teacher"
    assert isinstance(ladder.data, FilesData)
    assert ladder.data.paths == ("data/*.jsonl",)
    assert [stage.name for stage in ladder.stages] == ["40m", "12m", "1-5k"]
    assert [stage.student.parameters for stage in ladder.stages] == [40_000_000, 12_000_000, 1500]
    training = ladder.stages[0].training
    assert (training.steps, training.batch_size, training.learning_rate) == (1000, 32, 1e-3)
    assert load(write(tmp_path, to_yaml(ladder))).ladder == ladder


def test_overrides_reach_into_short_forms_and_may_be_short_themselves(tmp_path: Path) -> None:
    changed = six(tmp_path, "stages.40m.training.steps=50", "data.sequence_length=64", "teacher.revision=v1", "tokenizer.kind=bytes")
    assert (changed.stages[0].training.steps, changed.stages[0].training.learning_rate) == (50, 1e-3)
    assert changed.data.sequence_length == 64
    assert isinstance(changed.teacher, CheckpointTeacher)
    assert (changed.teacher.revision, changed.tokenizer.kind) == ("v1", "bytes")
    other = six(tmp_path, "stages=[7m]", "stages.7m.seed=3", "data=[a.txt,b.txt]", "teacher=org/other")
    assert [(stage.name, stage.seed) for stage in other.stages] == [("7m", 3)]
    assert isinstance(other.data, FilesData)
    assert other.data.paths == ("a.txt", "b.txt")
    assert isinstance(other.teacher, CheckpointTeacher)
    assert other.teacher.path == "org/other"


def test_a_training_of_the_defaults_is_kept(tmp_path: Path) -> None:
    ladder = six(tmp_path, text=SIX + "defaults: {training: {steps: 7}}\n")
    assert [stage.training.steps for stage in ladder.stages] == [7, 7, 7]
    assert ladder.stages[0].training.learning_rate == 4e-3


def test_data_by_name_and_by_folder(tmp_path: Path) -> None:
    assert isinstance(six(tmp_path, "data=digits", "workload=image-classification", "tokenizer.kind=bytes").data, DigitsData)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    data = six(tmp_path, "data=saved").data
    assert isinstance(data, DatasetData)
    assert data.name == "saved"


def test_short_forms_by_interpolation(tmp_path: Path) -> None:
    text = SIX.replace("models/big", "${where.teacher}").replace("[40m", "['${where.size}'") + "where: {teacher: a/b, size: 9m}\n"
    with pytest.raises(UserError, match="where: unknown key"):
        six(tmp_path, text=text)
    text = text.partition("where:")[0].replace("${where.teacher}", "a/b").replace("${where.size}", "${description}")
    ladder = six(tmp_path, text=text + "description: 9m\n")
    assert ladder.stages[0].student.parameters == 9_000_000


def test_a_stage_may_be_a_checkpoint_or_a_number(tmp_path: Path) -> None:
    ladder = six(tmp_path, "stages=[models/small v2/,2000]")
    assert [stage.name for stage in ladder.stages] == ["small-v2", "2000"]
    student = ladder.stages[0].student
    assert (student.source, student.path, ladder.stages[1].student.parameters) == ("checkpoint", "models/small v2/", 2000)


def test_the_tokenizer_is_the_teachers_only_where_none_is_named(tmp_path: Path) -> None:
    assert six(tmp_path, "data=digits", text=SIX + "workload: image-classification\n").tokenizer.kind == "bytes"
    assert six(tmp_path, text=SIX + "tokenizer: {kind: bpe, vocabulary: 300}\n").tokenizer.kind == "bpe"


class TestRefused:
    def test_a_word_that_is_no_stage(self, tmp_path: Path) -> None:
        message = refused(write(tmp_path, SIX.replace("40m", "40mm")))
        assert message.startswith("stages[0]: got '40mm'; allowed: a number of parameters such as 40m, the path of a checkpoint")

    @pytest.mark.parametrize(
        ("student", "says"),
        [
            ("{}", "got none of them; allowed: one of shape, parameters and config, or source: checkpoint with path"),
            (
                "{parameters: 40x}",
                "stages[0].student.parameters: got '40x'; allowed: a whole number, at least 1000",
            ),
            ("{parameters: 10}", "stages[0].student.parameters: got 10; allowed: a whole number, at least 1000"),
            ("{parameters: 4m, config: {model_type: llama}}", "got parameters and config; allowed: one of shape"),
            ("{source: checkpoint}", "got source 'checkpoint' without a path"),
            ("{path: a/b}", "got path without source; allowed: source: checkpoint with path"),
            ("{source: checkpoint, path: a, parameters: 4m}", "got a checkpoint and parameters; allowed: one of them"),
            ("{source: checkpoint, path: a, initialisation: layers}", "got a checkpoint and initialisation 'layers'"),
            ("{source: checkpoint, path: a, vocabulary: used}", "got a checkpoint and vocabulary 'used'"),
            ("{config: {hidden_size: 8}}", "allowed: a mapping with model_type"),
            ("{config: {model_type: qwen3}, initialisation: prune}", "got config and initialisation 'prune'"),
            ("{parameters: 4m, vocabulary: used}", "got parameters and vocabulary 'used'; allowed: a shape with it"),
        ],
    )
    def test_students_of_no_or_two_origins(self, tmp_path: Path, student: str, says: str) -> None:
        text = TINY.replace("student: {shape: {hidden_size: 8, layers: 2, heads: 2, feed_forward: 16}}", f"student: {student}")
        message = refused(write(tmp_path, text))
        assert message.startswith("stages[0].student")
        assert says in message


@pytest.mark.parametrize("item", ["40", "-1", "2500.5", "true", "0"])
def test_numbers_that_are_no_size_are_refused(tmp_path: Path, item: str) -> None:
    says = "a whole number of parameters, at least 1000" if item != "true" else "a mapping with name"
    with pytest.raises(UserError, match=rf"stages\[1\]: got .*; allowed: {says}"):
        six(tmp_path, text=SIX.replace("12m", item))


def test_numbers_in_all_ways_of_yaml_are_sizes(tmp_path: Path) -> None:
    ladder = six(tmp_path, text=SIX.replace("40m, 12m, 1.5k", "4.0e+7, 12_000_000, 0.5B, 40M"))
    assert [stage.student.parameters for stage in ladder.stages] == [40_000_000, 12_000_000, 500_000_000, 40_000_000]
    assert [stage.name for stage in ladder.stages] == ["40000000", "12000000", "0-5b", "40m"]
