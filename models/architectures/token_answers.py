"""Stored top-k answers of a language model that is not here, by place in a corpus.

Shape legend: B windows, L targets of one, T ids of the corpus, K listed ids of a row, V vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conf.errors import LadderError
from models.architectures.answers import ANSWERS
from models.base.files import read_json


class TokenTable(NamedTuple):
    """Answers to every id of a corpus, its splits one after another.

    Attributes:
        values: (T,) int32 ids of the corpus.
        ids: (T, K) int32, listed ids of the distribution of each of them; unused places repeat the first one.
        log_p: (T, K) float32 log-probabilities; -inf in unused places.
        log_residual: (T,) float32, of all other ids together.
    """

    values: NDArray[np.int32]
    ids: NDArray[np.int32]
    log_p: NDArray[np.float32]
    log_residual: NDArray[np.float32]


class TokenAnswers(nn.Module):
    """A causal LM whose distributions are stored: the listed ids, and the mass of all others together.

    Args:
        table: Tensors of the fields of `TokenTable`; they stay where they are, on the processor and perhaps mapped from a file.
        described: Of `stored_answers.json`: `parameters` of the model that gave them, `vocabulary`.
    """

    def __init__(self, table: dict[str, Tensor], described: dict[str, Any]) -> None:
        super().__init__()
        self.table = table
        self.config = SimpleNamespace(model_type="answers", vocab_size=described["vocabulary"], **described)

    @property
    def listed(self) -> int:
        """K."""
        return self.table["ids"].shape[1]

    def answers(self, places: Tensor | None, targets: Tensor, most: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Stored distributions of the targets (B, L) of windows that begin at (B,) places of the corpus, row after row, on their device.

        Args:
            places: None where windows are not of packed documents.
            targets: `IGNORE` where they do not count.
            most: Ids of a row, the most probable; the mass of the others joins the residual. None: all that are listed.

        Returns:
            (B * L, K) int64 ids, (B * L, K) log-probabilities, (B * L,) log-residuals; of targets that do not count, any values.

        Raises:
            LadderError: The corpus has other ids there.
        """
        if places is None:
            raise LadderError("stored answers are to windows of packed documents alone")
        known = targets.flatten().cpu()
        rows = (places.cpu()[:, None] + torch.arange(targets.shape[1])).flatten().clamp(0, len(self.table["values"]) - 1)
        wrong = (known >= 0) & (self.table["values"][rows] != known)
        if bool(wrong.any()):
            raise LadderError(f"the stored answers are to other data: {int(wrong.sum())} of {len(known)} ids of a batch differ")
        ids, log_p, log_residual = (self.table[name][rows].to(targets.device) for name in ("ids", "log_p", "log_residual"))
        if most is not None and most < self.listed:
            kept, where = log_p.topk(most, -1)
            dropped = log_p.scatter(-1, where, -torch.inf).logsumexp(-1)
            ids, log_p, log_residual = ids.gather(-1, where), kept, torch.logaddexp(log_residual, dropped)
        return ids.long(), log_p, log_residual


def spread_evenly(ids: Tensor, log_p: Tensor, log_residual: Tensor, vocabulary: int) -> Tensor:
    """Log-probabilities (N, V) of listed ids and a residual, which all other ids share evenly.

    Args:
        ids: (N, K); unused places repeat the first one.
        log_p: (N, K), -inf in unused places.
        log_residual: (N,).
        vocabulary: V.
    """
    used = log_p > -torch.inf
    others = (vocabulary - used.sum(-1)).clamp(min=1).to(log_p.dtype).log()
    dense = (log_residual - others)[:, None].repeat(1, vocabulary)
    return dense.scatter_(-1, ids, torch.where(used, log_p, log_p[:, :1]))


def save_token_answers(folder: Path, table: TokenTable, parameters: int, vocabulary: int) -> None:
    """Write answers into an existing folder; equal answers give equal files."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(values) for name, values in table._asdict().items()}, folder / "model.safetensors")
    (folder / ANSWERS).write_text(json.dumps({"parameters": parameters, "vocabulary": vocabulary}, indent=1), encoding="utf-8")


def load_token_answers(folder: Path) -> TokenAnswers:
    """Map the answers in a folder of `save_token_answers`."""
    from safetensors.torch import load_file

    return TokenAnswers(load_file(folder / "model.safetensors"), read_json(folder / ANSWERS))
