"""The settings of a proof: their defaults, and what they refuse."""

import pytest

from conf.errors import UserError
from conf.loading.explain import explain_key
from conf.loading.load import load
from conf.schema.measures.proof import ARMS, MATCHED
from tasks.proof.arms import MEANING, REWRITINGS


def test_the_smallest_difference_of_interest_goes_with_the_workload() -> None:
    assert load("python-stdlib").ladder.proof.least("causal-lm") == 0.01
    assert load("digits").ladder.proof.least("image-classification") == 0.005
    assert load("digits", ["proof.delta=0.02"]).ladder.proof.least("image-classification") == 0.02


def test_every_arm_has_a_rewriting_and_words() -> None:
    assert tuple(MEANING) == tuple(REWRITINGS) == ARMS
    assert set(MATCHED.values()) <= set(ARMS)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("proof.seeds=1", r"proof\.seeds: got 1; allowed: 2 to 1000\. An interval over seeds needs at least two"),
        ("proof.seeds=2000", r"proof\.seeds: got 2000"),
        ("proof.arms=[staged]", r"proof\.arms: got 'staged' alone; allowed: two arms or more"),
        ("proof.arms=[staged,direct,staged]", r"proof\.arms: got staged more than once"),
        ("proof.arms=[staged,dirct]", r"proof\.arms\[1\]: got 'dirct'; allowed: staged, .*Did you mean 'direct'"),
        ("proof.interval=sign-flip", r"proof.*interval: got sign-flip with 5 seeds; allowed: 6 or more"),
        ("proof.delta=0", r"proof\.delta: got 0; allowed: a number"),
        ("proof.confidence=95", r"proof\.confidence: got 95"),
        ("proof.accounting=money", r"proof\.accounting: got 'money'; allowed: flops, flops-free or tokens"),
        ("proof.smoothing=1", r"proof\.smoothing: got 1"),
    ],
)
def test_what_makes_no_proof_is_refused_in_one_message(override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load("digits", [override])


def test_explain_tells_the_unit_and_the_default() -> None:
    said = explain_key("proof.seeds")
    assert "seeds" in said
    assert "5" in said
