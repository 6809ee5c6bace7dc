"""Continuous batching: answers join and leave a running batch at every token.

Shape legend: B answers of the batch, T cached positions, V ids. Rows are padded on the left, so that all answers grow at one column.
"""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from models.architectures.configs import OFFSET_POSITIONS
from models.data import tokenizers
from models.engines.base import Generation, GenerationSettings, Token
from models.engines.sampling import Sampler
from models.engines.text import UNFINISHED, GrowingText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Emit = Callable[[Token | BaseException], None]
CANCELLED = Token("", "", finish="cancelled")
PLAIN_LAYERS = {"full_attention", "sliding_attention"}  # whose caches can be padded and joined


@dataclass
class _Writing:
    """An answer that is written."""

    prompt: list[int]
    settings: GenerationSettings
    emit: Emit
    generation: Generation
    text: GrowingText
    sampler: Sampler
    written: int = 0
    last: int = 0
    done: bool = False


@dataclass
class _State:
    """The running batch: its rows, their cache of keys and values, and the mask (B, T) of cached positions that are real."""

    rows: list[_Writing] = field(default_factory=list)
    cache: Any = None
    mask: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))


class ContinuousBatch:
    """Writes answers in one thread of its own.

    Models whose cache cannot be joined (recurrent layers, positions with an offset) write one answer after another.

    Args:
        model: A causal LM in evaluation mode.
        tokenizer: Its own.
        most: Most answers at once.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, most: int) -> None:
        self._model, self._tokenizer = cast(Any, model), tokenizer
        self._device = next(model.parameters()).device
        self._vocabulary = tokenizers.id_count(tokenizer)
        self._ends = end_ids(self._model, tokenizer)
        names = inspect.signature(model.forward).parameters
        self._keep = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self._joint = "position_ids" in names and can_join(self._model.config)
        self._most = most if self._joint else 1
        self._new: queue.SimpleQueue[_Writing | None] = queue.SimpleQueue()
        self._admission = threading.Lock()  # held while answers of one group are queued: the same group always makes the same batches
        self._closed = threading.Event()
        self._state = _State()
        self._thread = threading.Thread(target=self._run, name="batch", daemon=True)
        self._thread.start()

    def submit(self, prompt: Sequence[int], settings: GenerationSettings, emit: Emit, generation: Generation) -> None:
        """Queue an answer; `emit` is called by the batch's thread with every token, or with an error."""
        self.submit_group([(prompt, settings, emit, generation)])

    def submit_group(self, group: Sequence[tuple[Sequence[int], GenerationSettings, Emit, Generation]]) -> None:
        """Queue answers as `submit`, all before the next one is begun."""
        with self._admission:
            for prompt, settings, emit, generation in group:
                text = GrowingText(self._tokenizer, settings.stop)
                self._new.put(_Writing(list(prompt), settings, emit, generation, text, Sampler(settings)))
        if self._closed.is_set():
            self._cancel_waiting()

    def close(self) -> None:
        """End the thread after its current step."""
        self._closed.set()
        self._new.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._cancel_waiting()

    def _cancel_waiting(self) -> None:
        while not self._new.empty():
            row = self._new.get()
            if row is not None:
                row.emit(CANCELLED)

    def _run(self) -> None:
        with torch.inference_mode():
            while not self._closed.is_set():
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001  handed to every reader; the next batch begins anew
                    rows, self._state = self._state.rows, _State()
                    for row in rows:
                        row.emit(error)
        for row in self._state.rows:
            row.emit(CANCELLED)

    def _turn(self) -> None:
        """Admit what waits, and write one token of every answer."""
        state = self._state
        new = self._admit(self._most - len(state.rows), wait=not state.rows)
        if state.rows:
            self._step(state)
        if new:
            self._begin(new)
        self._leave()

    def _admit(self, room: int, wait: bool) -> list[_Writing]:
        rows: list[_Writing] = []
        while len(rows) < room:
            try:
                row = self._new.get() if wait and not rows else self._queued()
            except queue.Empty:
                break
            if row is None:
                break
            if row.generation.cancelled.is_set():
                row.emit(CANCELLED)
            else:
                rows.append(row)
        return rows

    def _queued(self) -> _Writing | None:
        """The next one that waits, after the whole of a group that is being queued.

        Raises:
            queue.Empty: None waits.
        """
        with self._admission:
            return self._new.get(block=False)

    def _begin(self, rows: list[_Writing]) -> None:
        """Read prompts, and join them to the batch."""
        from transformers import DynamicCache

        state, longest = self._state, max(len(row.prompt) for row in rows)
        old_rows = state.rows
        state.rows = [*old_rows, *rows]  # from here on an error is told to the new ones, too
        ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, longest - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[index, longest - len(row.prompt) :] = 1
        cache = DynamicCache() if self._joint else DynamicCache(config=self._model.config)
        logits = self._forward(ids, mask, cache)
        if old_rows:
            state.cache, state.mask = _join(state.cache, state.mask, cache, mask)
        else:
            state.cache, state.mask = cache, mask
        self._write(rows, logits)

    def _step(self, state: _State) -> None:
        ids = torch.tensor([[row.last] for row in state.rows])
        state.mask = torch.cat([state.mask, torch.ones(len(ids), 1, dtype=torch.long)], 1)
        self._write(state.rows, self._forward(ids, state.mask, state.cache))

    def _forward(self, ids: Tensor, mask: Tensor, cache: Any) -> Tensor:
        """(B, V) log-probabilities of the next ids, of a cache that grows by the columns of `ids`."""
        inputs: dict[str, Any] = {"input_ids": ids.to(self._device)}
        if self._joint:
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            inputs |= {"attention_mask": mask.to(self._device), "position_ids": positions.to(self._device)}
        output = self._model(**inputs, past_key_values=cache, use_cache=True, **self._keep)
        return output.logits[:, -1, : self._vocabulary].float().log_softmax(-1).cpu()

    def _write(self, rows: Sequence[_Writing], scores: Tensor) -> None:
        for row, score in zip(rows, scores, strict=True):
            self._emit(row, score)

    def _emit(self, row: _Writing, score: Tensor) -> None:
        """Choose an answer's next token and tell it."""
        if row.generation.cancelled.is_set():
            row.done = True
            row.emit(CANCELLED)
            return
        row.last = row.sampler.choose(score)
        row.written += 1
        ended = row.last in self._ends
        new = "" if ended else row.text.add(row.last)
        finish = "stop" if ended or row.text.stopped else "length" if row.written >= row.settings.max_tokens else None
        if finish:
            new += row.text.end()
        row.done = finish is not None
        top = score.topk(min(row.settings.top, len(score))) if row.settings.top else None
        told = tuple(zip(map(self._word, top.indices.tolist()), top.values.tolist(), strict=True)) if top else ()
        row.emit(Token(new, self._word(row.last), float(score[row.last]), told, finish))

    def _word(self, token: int) -> str:
        """A token as text; the vocabulary's own word for one that is no whole letter, so that words differ."""
        text = cast(str, self._tokenizer.decode([token]))
        return text if UNFINISHED not in text else str(self._tokenizer.convert_ids_to_tokens(token))

    def _leave(self) -> None:
        """Drop finished answers, and the columns that no answer left needs."""
        state = self._state
        kept = [index for index, row in enumerate(state.rows) if not row.done]
        if len(kept) == len(state.rows):
            return
        if not kept:
            self._state = _State()
            return
        state.rows, chosen = [state.rows[index] for index in kept], torch.tensor(kept)
        mask = state.mask[chosen]
        first = int(mask.argmax(1).min())
        state.mask = mask[:, first:]
        for layer in state.cache.layers:
            layer.keys, layer.values = layer.keys[chosen, :, first:], layer.values[chosen, :, first:]


def _join(cache: Any, mask: Tensor, new: Any, new_mask: Tensor) -> tuple[Any, Tensor]:
    """One cache of two, the shorter padded on the left."""
    width = max(mask.shape[1], new_mask.shape[1])

    def padded(tensor: Tensor, dim: int) -> Tensor:
        missing = width - tensor.shape[dim]
        return nn.functional.pad(tensor, (0, 0) * (tensor.ndim - 1 - dim) + (missing, 0)) if missing else tensor

    for layer, other in zip(cache.layers, new.layers, strict=True):
        layer.keys = torch.cat([padded(layer.keys, 2), padded(other.keys, 2)])
        layer.values = torch.cat([padded(layer.values, 2), padded(other.values, 2)])
    return cache, torch.cat([padded(mask, 1), padded(new_mask, 1)])


def can_join(config: Any) -> bool:
    """Whether the caches of a model's answers can be padded and put into one batch."""
    kinds = set(getattr(config.get_text_config(decoder=True), "layer_types", None) or ())
    recurrent = any(hasattr(config, name) for name in ("ssm_cfg", "state_size", "mamba_d_state", "rwkv"))
    return kinds <= PLAIN_LAYERS and config.model_type not in OFFSET_POSITIONS and not recurrent


def end_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end an answer: of the model's generation settings and of its tokenizer."""
    given = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = given if isinstance(given, list) else [] if given is None else [given]
    return frozenset([*listed, tokenizers.special_ids(tokenizer)[0]])
