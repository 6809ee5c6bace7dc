"""Loss and gradient of on-policy steps equal those of TRL's GKD; `golden/gkd.safetensors` holds TRL's, and in its header the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from conf.schema.stage.objective import Objective
from conf.schema.stage.training import Training
from models.losses.loss import StepObjective
from models.signals.sources import live, split_head
from models.training.loop import Plan, accelerator_for
from models.training.on_policy import text_batch
from models.training.rollout import Written
from models.training.step import Losses, StudentInTraining, gradients

FILE = Path(__file__).parent / "golden" / "gkd.safetensors"
KINDS = {"0.0": {"kind": "forward-kl"}, "0.3": {"kind": "jsd", "beta": 0.3}, "1.0": {"kind": "reverse-kl"}}  # TRL's beta


@pytest.fixture(scope="module")
def golden() -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(FILE, framework="pt") as file:
        header = {name: json.loads(text) if text[0] == "{" else text for name, text in file.metadata().items()}
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - no mapping


def written(ids: Tensor, mask: Tensor, labels: Tensor) -> Written:
    """TRL's rows, which are padded on both sides, as rows from their first id on."""
    rows = [each[kept.bool()] for each, kept in zip(ids, mask, strict=True)]
    lengths = mask.sum(1)
    return Written(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths - (labels != -100).sum(1), lengths)


@pytest.mark.parametrize("head", [True, False], ids=["chunked", "whole logits"])
@pytest.mark.parametrize("beta", KINDS)
def test_loss_and_gradient_are_those_of_trl(
    golden: tuple[dict[str, Tensor], dict[str, Any]], training: Callable[..., Training], beta: str, head: bool
) -> None:
    tensors, header = golden
    models = {}
    for name in ("teacher", "student"):
        models[name] = LlamaForCausalLM(LlamaConfig(**header["config"])).float()
        models[name].load_state_dict({key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")})
    student, vocabulary = models["student"], header["config"]["vocab_size"]
    batch = text_batch(written(tensors["ids"], tensors["mask"], tensors["labels"]))
    assert batch.valid == int((tensors["labels"] != -100).sum())

    def step(**changes: Any) -> tuple[Losses, dict[str, Tensor]]:
        student.zero_grad()
        objective = Objective.model_validate({**KINDS[beta], **changes})
        plan = Plan(training(accumulation=2, clip=1e6), objective, 0, vocabulary)
        taught = StudentInTraining(student, student, split_head(student) if head else None, None)
        at = StepObjective(objective, objective.alpha.start, objective.temperature.start)
        losses, _, _ = gradients(accelerator_for("cpu", "fp32"), taught, batch, plan, [live(models["teacher"], vocabulary)], at)
        return losses, {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}

    losses, found = step(alpha=0.4)  # of which ids without label take nothing
    assert losses.loss == pytest.approx(header["losses"][beta], rel=1e-5)
    assert len(found) == 12
    for name, gradient in found.items():
        expected = tensors[f"gradient.{beta}.{name}"]
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max())), name
    if beta == "0.0":  # the one difference in the loss itself: TRL's has no T^2, and never sees the temperature
        warm, _ = step(alpha=0.4, temperature=2.0)
        assert warm.loss != pytest.approx(header["losses"][beta], rel=0.05)
