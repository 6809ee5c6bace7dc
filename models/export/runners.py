"""Student and exports behind one interface: log-probabilities and requests.

Shape legend: B examples, L ids, N rows that count, V ids or classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Inputs = Mapping[str, NDArray[Any]]


class Runner(ABC):
    """A loaded model that is compared.

    Attributes:
        most: Most log-probabilities that are worth their time, rows times V; None: all of them.
    """

    most: int | None = None

    @abstractmethod
    def logits(self, inputs: Inputs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits, or log-probabilities, (N, V) of these rows of a batch: of examples, or of flattened positions (B * L)."""

    @abstractmethod
    def request(self, inputs: Inputs, new_tokens: int) -> object:
        """Answer one request: a batch of one example; for a language model also that many further tokens, the most probable ones."""

    def ids(self, text: str) -> list[int] | None:
        """Ids of a text, special strings in it as text, by the export's own tokenizer; None: it has none of its own."""
        return None

    def close(self) -> None:  # noqa: B027  most hold nothing but memory
        """Release what it holds."""


class TorchRunner(Runner):
    """The student, or an exported Hugging Face folder, in PyTorch on the CPU, in single precision."""

    def __init__(self, folder: Path, workload: str, threads: int) -> None:
        import torch

        from models.architectures.checkpoint import load_model

        torch.set_num_threads(threads)
        self._torch, self._language = torch, workload == "causal-lm"
        self._model = cast(Any, load_model(folder, workload, key="--to").eval().requires_grad_(False))

    def logits(self, inputs: Inputs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of rows."""
        with self._torch.inference_mode():
            logits = self._model(**self._tensors(inputs)).logits.flatten(0, -2)
            return logits[self._torch.from_numpy(rows)].float().numpy()

    def request(self, inputs: Inputs, new_tokens: int) -> object:
        """A classifier's answer, or greedy decoding with the cache of transformers."""
        with self._torch.inference_mode():
            if not self._language:
                return self._model(**self._tensors(inputs)).logits
            output = self._model(**self._tensors(inputs), use_cache=True)
            token = output.logits[:, -1:].argmax(-1)
            for _ in range(new_tokens - 1):
                output = self._model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
                token = output.logits[:, -1:].argmax(-1)
            return token

    def _tensors(self, inputs: Inputs) -> dict[str, Any]:
        return {name: self._torch.from_numpy(values) for name, values in inputs.items()}


class OnnxRunner(Runner):
    """An ONNX graph in ONNX Runtime."""

    def __init__(self, folder: Path, workload: str, threads: int) -> None:
        from models.engines.onnx_graph import OnnxGraph

        self._graph, self._language = OnnxGraph(folder, threads, "--to"), workload == "causal-lm"

    def logits(self, inputs: Inputs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits of rows."""
        logits = self._graph.logits(inputs)
        return logits.reshape(-1, logits.shape[-1])[rows]

    def request(self, inputs: Inputs, new_tokens: int) -> object:
        """A classifier's answer, or greedy decoding with the graph's cache."""
        if not self._language:
            return self._graph.logits(inputs)
        logits, past = self._graph.step(np.asarray(inputs["input_ids"]), self._graph.empty_past(1))
        token = logits[:, -1:].argmax(-1)
        for _ in range(new_tokens - 1):
            logits, past = self._graph.step(token, past)
            token = logits[:, -1:].argmax(-1)
        return token


class LlamaRunner(Runner):
    """A GGUF file in llama.cpp, which tells the log-probabilities of one next id at a time."""

    most = 2**20  # about a second for 1,000 rows of 1,000 ids

    def __init__(self, folder: Path, workload: str, threads: int, context: int) -> None:
        from models.base.files import read_json
        from models.engines.llama_server import LlamaServer

        assert workload == "causal-lm"
        self._vocabulary = int(read_json(folder / "config.json")["vocab_size"])
        self._server = LlamaServer(folder, context=context, threads=threads, key="--to")

    def logits(self, inputs: Inputs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Log-probabilities of rows, each after all ids before it."""
        ids = np.asarray(inputs["input_ids"])
        places = [divmod(int(row), ids.shape[1]) for row in rows]
        return np.stack([self._server.log_probabilities(ids[at, : until + 1].tolist(), self._vocabulary) for at, until in places])

    def request(self, inputs: Inputs, new_tokens: int) -> object:
        """Greedy decoding, the prompt computed anew."""
        prompt = np.asarray(inputs["input_ids"])[0].tolist()
        asked = {"prompt": prompt, "max_tokens": new_tokens, "temperature": 0.0, "cache_prompt": False, "ignore_eos": True}
        return self._server.complete(asked)

    def ids(self, text: str) -> list[int]:
        """Ids of a text by the file's own tokenizer."""
        return self._server.tokenize(text)

    def close(self) -> None:
        """Stop llama.cpp."""
        self._server.close()


def runner_of(name: str, folder: Path, workload: str, threads: int, context: int) -> Runner:
    """Load an export by the name of its format; `hf` is also the student itself. `context`: ids of prompt and answer together."""
    if name.startswith("onnx"):
        return OnnxRunner(folder, workload, threads)
    if name.startswith("gguf"):
        return LlamaRunner(folder, workload, threads, context)
    return TorchRunner(folder, workload, threads)
