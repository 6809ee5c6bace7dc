"""Messages about mistyped settings."""

from __future__ import annotations

from typing import get_args

import pytest

from conf.schema.data import Data
from tests.conf.tiny import refused

SOURCES = [model.model_fields["source"].default for model in get_args(get_args(Data)[0])]


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
                "stages[0].objective.temperature: got -1; allowed: a number in [0.01, 100], or {kind: cosine, start: ..., end: ...}. "
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
            ("stages[0].training.clip=.inf", "stages[0].training.clip: got inf; allowed: a number in (0, 1e+06]."),
            ("stages[0].training.steps=0", "stages[0].training.steps: got 0; allowed: a whole number in [1, 100000000]."),
            ("stages[0].training.patience=0", "stages[0].training.patience: got 0; allowed: a whole number in [1, 1000000], or none."),
            ("stages[0].gate.policy=halt", "stages[0].gate.policy: got 'halt'; allowed: stop, warn, ask, extend or insert."),
            (
                "stages[0].objective.alpha={kind: cosin, start: 1}",
                "stages[0].objective.alpha.kind: got 'cosin'; allowed: constant or cosine. Did you mean 'cosine'?",
            ),
            (
                "data.source=python-stdlb",
                f"data.source: got 'python-stdlb'; allowed: one of {', '.join(SOURCES)}. Did you mean 'python-stdlib'? "
                "`ladder explain data.source` describes it.",
            ),
            (
                "teacher.source=chekpoint",
                "teacher.source: got 'chekpoint'; allowed: one of train, checkpoint, answers. Did you mean 'checkpoint'?",
            ),
            ("data={sequence_length: 5}", f"data.source: got None; allowed: one of {', '.join(SOURCES)}."),
            ("data=3", f"data: got 3; allowed: a mapping with source: {', '.join(SOURCES[:-1])} or {SOURCES[-1]}."),
            (
                "evaluation=3",
                "evaluation: got 3; allowed: a mapping with examples, batch_size, samples,",
            ),
            ("stages[0]=3", "stages[0]: got 3; allowed: a whole number of parameters, at least 1000"),
            ("stages=5", "stages: got 5; allowed: a list of stages"),
            ("stages=[]", "stages: got []; allowed: a list of settings, 1 to 100 of them."),
            ("name=Hello World", "name: got 'Hello World'; allowed: 1 to 64 lower-case letters, digits and -"),
            ("stages[0].name=100", "stages[0].name: got 100; allowed: 1 to 64 letters, digits, - and _"),
            ("tokenizer.kind=bpe", "tokenizer: got kind 'bpe' without a vocabulary; allowed: kind bpe with a number of ids."),
            ("teacher.shape.heads=5", "teacher.shape: got hidden_size 16 and heads 5; allowed: heads that divide hidden_size."),
            (
                "stages[1].training.accumulation=3",
                "stages[1].training: got batch_size 8 and accumulation 3; allowed: an accumulation that divides batch_size.",
            ),
            ("data={source: files}", "data: got none of paths, splits.train and sources; allowed: one of them."),
            ("data={source: files, paths: []}", "data: got none of paths, splits.train and sources; allowed: one of them."),
            ("data={source: files, paths: [a], splits: {train: b}}", "data: got paths and splits.train; allowed: one of them."),
            (
                "data={source: files, paths: [a], splits: {valid: b}}",
                "data.splits: got valid; allowed: train, with or without valid and test, or",
            ),
            ("data={source: files, splits: {train: a, column: b}}", "data.splits: got train and column; allowed: train, with or without"),
            ("data={source: files, paths: [a], splits: {}}", "data.splits: got none of them; allowed: train, with or without"),
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
            (
                "teacher.checkpoint=x",
                "teacher.checkpoint: unknown key, with the value 'x'; allowed: source, shape, training, allow_poor, class_weights, "
                "rationale, keep.",
                "",
            ),
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

    @pytest.mark.parametrize(
        ("override", "meant"),
        [
            ("training.steps=5", "'defaults.training' or 'teacher.training'"),
            ("alpha=0.5", "'defaults.objective.alpha'"),
            ("trainig.steps=5", "'defaults.training' or 'teacher.training'"),  # and not 'tracking', which is less like it
            ("learning_rat=0.5", "'defaults.training.learning_rate' or 'teacher.training.learning_rate'"),
            ("stage.small.seed=5", "'stages'"),
        ],
    )
    def test_a_key_at_the_wrong_place_is_answered_with_the_right_one(self, tiny: str, override: str, meant: str) -> None:
        assert f"Did you mean {meant}? `ladder explain` describes them." in refused(tiny, [override])
