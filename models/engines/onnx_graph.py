"""Run an exported ONNX graph with ONNX Runtime; no torch.

Shape legend: B examples, L ids, P cached positions, V ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from conf.errors import foreign_errors
from models.base.files import read_json

FILE = "model.onnx"
Past = dict[str, NDArray[np.float32]]  # of each layer: keys and values (B, H, P, D)


class OnnxGraph:
    """A graph in memory, with the configuration beside it.

    Args:
        folder: Of the export: `model.onnx` and `config.json`.
        threads: Processor threads; None: one for each core.
        key: Dotted key or option to blame.

    Raises:
        UserError: ONNX Runtime is not installed, or it does not read the file.
    """

    def __init__(self, folder: Path, threads: int | None = None, key: str = "model") -> None:
        remedy = "Export it again, with `ladder export`."
        with foreign_errors(key, str(folder), "a folder that `ladder export --format onnx` wrote", remedy, "ONNX Runtime"):
            import onnxruntime

            self.config: dict[str, Any] = read_json(folder / "config.json")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or 0
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(str(folder / FILE), options, providers=["CPUExecutionProvider"])
        self._inputs = {each.name: each.shape for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]

    def logits(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Logits (B, K) of a classifier's inputs, or (B, L, V) of a language model's ids without a cache."""
        if "position_ids" in self._inputs:
            return self.step(np.asarray(inputs["input_ids"]), self.empty_past(len(inputs["input_ids"])))[0]
        (logits,) = self._session.run(["logits"], {name: inputs[name] for name in self._inputs})
        return cast(NDArray[np.float32], logits)

    def empty_past(self, batch: int) -> Past:
        """The cache before the first id."""
        names = [name for name in self._inputs if name.startswith("past.")]
        return {name: np.zeros((batch, self._inputs[name][1], 0, self._inputs[name][3]), dtype=np.float32) for name in names}

    def step(
        self,
        ids: NDArray[np.int64],
        past: Past,
        mask: NDArray[np.int64] | None = None,
        positions: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float32], Past]:
        """Logits (B, L, V) of ids (B, L) after a cache, and the cache that they leave.

        Args:
            ids: The next ids.
            past: The cache.
            mask: (B, P + L) 1 where a position is real; None: all are.
            positions: (B, L) positions of the ids; None: they follow the cache.
        """
        before, length = next(iter(past.values())).shape[2], ids.shape[1]
        if mask is None:
            mask = np.ones((len(ids), before + length), dtype=np.int64)
        if positions is None:
            positions = np.broadcast_to(np.arange(before, before + length, dtype=np.int64), ids.shape)
        found = self._session.run(self._outputs, {"input_ids": ids, "attention_mask": mask, "position_ids": positions, **past})
        named = dict(zip(self._outputs, cast(list[NDArray[np.float32]], found), strict=True))
        return named.pop("logits"), {name.replace("present", "past", 1): value for name, value in named.items()}
