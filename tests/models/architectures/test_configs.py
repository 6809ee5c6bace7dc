"""Configurations that users write: names that transformers does not have, and patches."""

from __future__ import annotations

from typing import Any

import pytest

from conf.errors import UserError
from models.architectures.configs import fitted_config, ignored_settings, patch_of
from models.base.interface import Interface

TEXT = Interface("causal-lm", 16, vocabulary=40, end_id=0, pad_id=1)
SMALL = {"model_type": "qwen3", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"hiden_size": 32}, r"student\.config\.hiden_size: got 32; allowed: settings that qwen3 has\. Did you mean 'hidden_size'\?"),
        (
            {"num_attention_heads": None, "num_atention_heads": 2, "num_key_value_heads": 32},
            r"student\.config\.num_atention_heads: got 2; .* Did you mean 'num_attention_heads'\?",
        ),
        ({"xyz": 1}, r"student\.config\.xyz: got 1; allowed: settings that qwen3 has\. It would have no effect: leave it out\."),
    ],
)
def test_a_setting_without_effect_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        fitted_config({name: value for name, value in (SMALL | given).items() if value is not None}, TEXT, "student.config")


def test_older_and_other_names_of_settings_have_an_effect() -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    older = {**SMALL, "rope_theta": 5000.0, "rope_scaling": dict(scaling)}
    assert ignored_settings(older) == {}
    assert fitted_config(older, TEXT, "student.config").rope_parameters["rope_theta"] == 5000
    assert older["rope_scaling"] == scaling, "the settings themselves stay as they are"
    assert ignored_settings({"model_type": "gpt2", "n_embd": 8, "hidden_size": 8, "num_heads": 2}) == {"num_heads": "n_head"}
    assert ignored_settings({"model_type": "no-such-model", "any": 1}) == {}, "refused where it is built"


def test_patches_that_have_to_divide_an_image() -> None:
    assert patch_of({"model_type": "vit"}) == 16
    assert patch_of({"model_type": "deit", "patch_size": 7}) == 7
    assert [patch_of({"model_type": kind}) for kind in ("swin", "convnext", "resnet", "qwen3", "no-such-model")] == [None] * 5
