"""Gradients in closed form are those of autograd."""

from typing import Any

import pytest
import torch

from conf.schema.stage.objective import Objective
from models.losses import chunked
from models.losses.closed_form import block_
from models.losses.loss import Signal, StepObjective, TeacherSignal
from tests.models.losses.test_chunked import N, V, assert_equal, both


@pytest.mark.parametrize("unlabelled", [None, slice(None)], ids=["labels", "none"])
@pytest.mark.parametrize(("alpha", "temperature"), [(0.7, 1.0), (0.7, 2.0), (1.0, 1.0)])
@pytest.mark.parametrize("raw", [{"kind": "reverse-kl"}, *({"kind": "jsd", "beta": beta} for beta in (0.0, 0.1, 0.5, 1.0))], ids=str)
def test_reverse_kl_and_jsd_have_a_closed_form(
    raw: dict[str, Any], alpha: float, temperature: float, unlabelled: slice | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "BLOCK_ELEMENTS", 3 * V)
    monkeypatch.setattr(chunked, "_by_autograd", None)
    at = StepObjective(Objective.model_validate(raw), alpha, temperature)
    signals: list[Signal] = [TeacherSignal(2 * torch.randn(N, V, generator=torch.Generator().manual_seed(1), dtype=torch.float64))]
    assert_equal(both(signals, at, torch.float64, unlabelled, chunk=7), 1e-13)


def test_an_id_that_both_rule_out_changes_nothing_in_closed_form() -> None:
    student, teacher = (torch.randn(5, V, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    at = StepObjective(Objective(kind="reverse-kl"), 1.0, 2.0)
    expected = student.clone()
    sums = block_(expected, teacher.clone(), None, at, banned=False)
    wider = [torch.cat([each, torch.full((5, 2), -torch.inf)], 1) for each in (student, teacher)]
    assert torch.allclose(block_(*wider, None, at, banned=True), sums)
    assert torch.allclose(wider[0], torch.cat([expected, torch.zeros(5, 2)], 1))
