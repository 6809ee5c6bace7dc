"""Stored top-k answers of a language model that is not here, by place in a corpus.

Shape legend: B windows, L ids of one, T ids of the corpus, K listed ids of a row, V vocabulary.
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
from models.architectures.answers import ANSWERS, text_key

KEYS = "keys"


class TokenTable(NamedTuple):
    """Answers to every id of a corpus, its splits one after another.

    Attributes:
        keys: (n, 16) uint8, `text_key` of the inputs of each window.
        starts: (n,) int64, the row that predicts what follows each window's first input; before 0 where nothing does.
        ids: (T, K) int32, listed ids of the distribution of each id of the corpus; unused places repeat the first one.
        log_p: (T, K) float32 log-probabilities; -inf in unused places.
        log_residual: (T,) float32, of all other ids together.
    """

    keys: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ids: NDArray[np.int32]
    log_p: NDArray[np.float32]
    log_residual: NDArray[np.float32]


class TokenAnswers(nn.Module):
    """A causal LM whose distributions are stored: the listed ids, and the mass of all others together.

    Args:
        tensors: The fields of `TokenTable`; they stay where they are, on the processor and perhaps mapped from a file.
        described: Of `stored_answers.json`: `parameters` of the model that gave them, `vocabulary`.
    """

    def __init__(self, tensors: dict[str, Tensor], described: dict[str, Any]) -> None:
        super().__init__()
        self.table = tensors
        self.windows: dict[bytes, int] = {}
        for key, start in zip(tensors[KEYS].numpy(), tensors["starts"].tolist(), strict=True):
            self.windows.setdefault(key.tobytes(), start)
        self.config = SimpleNamespace(model_type="answers", vocab_size=described["vocabulary"], **described)

    def answers(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stored distributions of what follows each id of windows (B, L), row after row, on their device.

        Returns:
            (B * L, K) int64 ids, (B * L, K) log-probabilities, (B * L,) log-residuals; positions that nothing follows have any values.

        Raises:
            LadderError: A window is none of the corpus.
        """
        starts = [self.windows.get(text_key(row)) for row in input_ids.cpu().numpy()]
        if None in starts:
            raise LadderError(f"{starts.count(None)} of {len(starts)} windows have no stored answers")
        places = torch.tensor(starts)[:, None] + torch.arange(input_ids.shape[1])
        rows = places.flatten().clamp(0, len(self.table["ids"]) - 1)
        ids, log_p, log_residual = (self.table[name][rows].to(input_ids.device) for name in ("ids", "log_p", "log_residual"))
        return ids.long(), log_p, log_residual

    def forward(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        """Logits (B, L, V), the residual spread evenly; see `spread_evenly`."""
        logits = spread_evenly(*self.answers(input_ids), self.config.vocab_size)
        return SimpleNamespace(logits=logits.unflatten(0, tuple(input_ids.shape)))


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
    (folder / ANSWERS).write_text(json.dumps({"parameters": parameters, "vocabulary": vocabulary}, indent=1))


def load_token_answers(folder: Path) -> TokenAnswers:
    """Map the answers in a folder of `save_token_answers`."""
    from safetensors.torch import load_file

    return TokenAnswers(load_file(folder / "model.safetensors"), json.loads((folder / ANSWERS).read_text()))
