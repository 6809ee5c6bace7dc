"""Students of any architecture: micro-batches are one batch, a resumed training ends with the same bits, a folder loads again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conf.errors import UserError
from conf.schema.stage.training import Training
from models.architectures.checkpoint import load_model, save_model
from models.architectures.configs import build_from, fitted_config
from models.data.batches import TrainingBatches
from models.data.corpus import Corpus
from models.signals.sources import split_head
from models.training.checkpoints import Checkpoints
from models.training.loop import Plan, Step, train
from tests.factories import interface_for

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
GROUPED = {**SIZES, "num_key_value_heads": 1, "head_dim": 8}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0, "pooler_hidden_size": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("prose", GROUPED),
    "gemma2": ("prose", GROUPED),
    "modernbert": ("sentences", SIZES),
    "deberta-v2": ("sentences", {**SIZES, **DEBERTA}),
    "convnext": ("images", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 2}),
    "resnet": ("images", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}),
}
Make = Callable[..., Training]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, Corpus]:
    return request.param, request.getfixturevalue(CASES[request.param][0])


def model_of(name: str, corpus: Corpus) -> nn.Module:
    interface = interface_for(corpus)
    torch.manual_seed(0)
    return build_from(fitted_config({"model_type": name, **CASES[name][1]}, interface, "config"), interface.workload, "config")


def trained(
    name: str, corpus: Corpus, settings: Training, folder: Path | None = None, kill_at: int | None = None
) -> dict[str, torch.Tensor]:
    def on_step(step: Step) -> None:
        if step.step == kill_at:
            raise KeyboardInterrupt

    model = model_of(name, corpus)
    torch.manual_seed(torch.seed())
    plan = Plan(settings, None, 0, interface_for(corpus).output_ids)
    train(
        model, TrainingBatches(corpus, settings.batch_size, 0), plan, checkpoints=Checkpoints(folder) if folder else None, on_step=on_step
    )
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def test_a_resumed_training_ends_with_the_same_bits(case: tuple[str, Corpus], training: Make, tmp_path: Path) -> None:
    name, corpus = case
    settings = training(steps=3, batch_size=4, checkpoint_every=1)
    whole = trained(name, corpus, settings)
    with pytest.raises(KeyboardInterrupt):
        trained(name, corpus, settings, tmp_path, kill_at=2)
    resumed = trained(name, corpus, settings, tmp_path)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole), "buffers too, such as the statistics of batch normalisation"


def test_micro_batches_are_one_batch_or_are_refused(case: tuple[str, Corpus], training: Make) -> None:
    name, corpus = case
    whole = trained(name, corpus, training(steps=1, batch_size=4))
    split = training(steps=1, batch_size=4, accumulation=2)
    if name == "resnet":
        with pytest.raises(UserError, match=r"^training\.accumulation: got 2; allowed: 1, for a ResNet.* whose batch norm"):
            trained(name, corpus, split)
        return
    parts = trained(name, corpus, split)
    for key in whole:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-4, atol=2e-5)


def test_it_loads_again_as_it_was(case: tuple[str, Corpus], tmp_path: Path) -> None:
    name, corpus = case
    model = model_of(name, corpus)
    save_model(model, tmp_path / name, None)
    again = load_model(tmp_path / name, corpus.info.workload)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in model.state_dict().items())


def test_a_head_behind_a_soft_cap_is_not_split_off(prose: Corpus) -> None:
    assert split_head(model_of("qwen3", prose)) is not None
    assert split_head(model_of("gemma2", prose)) is None
