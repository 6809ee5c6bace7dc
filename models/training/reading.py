"""A causal LM reads ids in turn: its cache in reserved memory, its step recorded.

A small model spends much of a step of one id in Python. `torch.jit.trace` writes its operations down once, with the weights by
reference, and replays them with the same bits. That holds for architectures whose operations depend on nothing but shapes: `RECORDED`.

Shape legend: R rows, V vocabulary.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from models.architectures import attention

ATTENTION = frozenset({"sdpa", attention.NAME})  # which need no mask for one id
RECORDED = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"})  # types of models that are recorded, each with its test


class _Reserved(DynamicLayer):
    """Keys and values of a layer in memory that is reserved at once, where transformers copies all of them for every position."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve; in fp32 on a processor, whose attention of one position is slow in bf16."""
        self.device = key_states.device
        self.dtype = torch.float32 if self.device.type == "cpu" else key_states.dtype
        keys, values = (each.new_empty(*each.shape[:2], self._most, each.shape[3], dtype=self.dtype) for each in (key_states, value_states))
        self.memory = keys, values
        self.keys, self.values = keys[:, :, :0], values[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add positions; all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        first = self.get_seq_length()
        last = first + key_states.shape[2]
        for memory, states in zip(self.memory, (key_states, value_states), strict=True):
            memory[:, :, first:last] = states
        return self.grow(last)

    def grow(self, length: int) -> tuple[Tensor, Tensor]:
        """Count positions that are in memory already; all so far."""
        keys, values = (memory[:, :, :length] for memory in self.memory)
        self.keys, self.values = keys, values
        return keys, values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        length, (keys, values) = self.get_seq_length(), self.memory
        self.memory = keys[indices], values[indices]
        self.grow(length)


class _At(DynamicLayer):
    """Memory of a layer while a step is recorded: its position is a tensor, which can be another one when the step is replayed.

    Whoever asks for the length gets that of the recording, as a number: it decides on a mask alone, which one id does not need with these
    kinds of attention (`ATTENTION`).
    """

    def __init__(self, keys: Tensor, values: Tensor, position: Tensor) -> None:
        super().__init__()
        self.device, self.dtype, self.is_initialized = keys.device, keys.dtype, True
        self._memory, self._position, self._length = (keys, values), position, int(position)

    def get_seq_length(self) -> int:
        """Positions before the recorded one."""
        return self._length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Positions that are attended to, and the first of them."""
        return self._length + query_length, 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add a position; all so far."""
        first, last = self._position, self._position + 1
        for memory, states in zip(self._memory, (key_states, value_states), strict=True):
            memory[:, :, first:last] = states
        keys, values = (memory[:, :, :last] for memory in self._memory)
        return keys, values


class _Step(nn.Module):
    """A model's reading of one id a row, as a function of the memory of its cache."""

    def __init__(self, model: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self._forward = model, forward

    def forward(self, ids: Tensor, position: Tensor, *memory: Tensor) -> Tensor:
        """(R, V) logits after (R, 1) ids, of which keys and values, in turn of each layer, are added to `memory` at `position`."""
        cache = DynamicCache(config=cast(Any, self.model).config)
        cast(Any, cache).layers = [_At(keys, values, position) for keys, values in zip(memory[::2], memory[1::2], strict=True)]
        return self._forward(input_ids=ids, past_key_values=cache, use_cache=True, position_ids=position[None, None]).logits[:, -1]


class Recording:
    """A model's step of one id, recorded when it is first needed; weights that change in place change in it, too.

    Args:
        model: A causal LM, in evaluation mode whenever it is asked.
    """

    def __init__(self, model: nn.Module) -> None:
        config = cast(Any, model).config
        rope = getattr(config, "rope_parameters", None) or {}  # other kinds may change with the position
        self._possible = config.model_type in RECORDED and rope.get("rope_type", "default") == "default" and hasattr(torch.jit, "trace")
        self._model, self._weights = model, list[nn.Parameter]()
        self._replay: torch.jit.ScriptModule | None = None

    @property
    def recorded(self) -> bool:
        """Whether a recording is made, and in use."""
        return self._replay is not None

    def renew(self) -> None:
        """Forget a recording of weights that were not changed but replaced."""
        if any(one is not other for one, other in zip(self._weights, self._model.parameters(), strict=False)):
            self._replay = None

    def step(self, forward: Callable[..., Any], ids: Tensor, cache: DynamicCache) -> Tensor | None:
        """(R, V) logits after (R, 1) further ids, or None where this model is not recorded."""
        reserved = cast(list[_Reserved], cache.layers)
        if not self._possible or ids.shape[1] > 1 or not all(type(each) is _Reserved and each.is_initialized for each in reserved):
            return None
        if ids.device.type != "cpu" or cast(Any, self._model).config._attn_implementation not in ATTENTION:
            return None
        length = reserved[0].get_seq_length()
        given = (ids, torch.tensor(length), *(memory for each in reserved for memory in each.memory))
        self._replay = self._replay or self._record(forward, *given)
        if self._replay is None:
            return None
        logits = self._replay(*given)
        for each in reserved:
            each.grow(length + 1)
        return logits

    def _record(self, forward: Callable[..., Any], ids: Tensor, position: Tensor, *memory: Tensor) -> torch.jit.ScriptModule | None:
        few = (each[:2].clone() for each in memory)  # a recording keeps what it was made with
        self._weights = list(self._model.parameters())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated (docs/adr/0062), and conditions on shapes stay as they are
            try:
                made = torch.jit.trace(_Step(self._model, forward).eval(), (ids[:2], position, *few), check_trace=False)
            except (RuntimeError, ValueError):  # it refuses some, as layers that torch.compile has
                self._possible = False
                return None
        return cast(torch.jit.ScriptModule, made)


class Reader:
    """Reads ids in turn and gives the logits after the last one; without a cache it reads everything again.

    Args:
        model: A causal LM.
        most: Most ids that it reads.
        recording: Of its step of one id; None: every step runs as the model is written.
    """

    def __init__(self, model: nn.Module, most: int, recording: Recording | None = None) -> None:
        forward = cast(Any, type(model)).forward  # without a wrapper that would set another precision
        names = inspect.signature(forward).parameters
        last = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self._forward, self._recording = partial(forward, model, **last), recording
        self._cache = DynamicCache(config=cast(Any, model).config) if "past_key_values" in names else None
        if self._cache is not None:
            self._cache.layers = [_Reserved(most) if type(layer) is DynamicLayer else layer for layer in self._cache.layers]
        self._read: Tensor | None = None
        if recording is not None:
            recording.renew()

    def __call__(self, ids: Tensor) -> Tensor:
        """(R, V) logits after (R, n) further ids."""
        if self._cache is not None:
            if self._recording is not None and (logits := self._recording.step(self._forward, ids, self._cache)) is not None:
                return logits
            return self._forward(input_ids=ids, past_key_values=self._cache, use_cache=True).logits[:, -1]
        self._read = ids if self._read is None else torch.cat([self._read, ids], 1)
        return self._forward(input_ids=self._read).logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows."""
        if self._cache is not None:
            self._cache.batch_select_indices(rows)
        elif self._read is not None:
            self._read = self._read[rows]
