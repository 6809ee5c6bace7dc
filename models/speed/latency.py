"""Measure the latency of models: whole requests, prefill and decode.

Models take turns, round after round, so that a machine that grows slower or faster does so for all of them alike. Language models keep
their cache of keys and values, and prefill and decode are measured apart; classifiers answer whole.

Shape legend: B requests answered at once, P tokens of a prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from conf.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class RequestTimes(NamedTuple):
    """Seconds of one model at one batch size, one entry for each round.

    Attributes:
        whole: A batch from its input to its last output.
        prefill: To the first token; empty for classifiers.
        decode: Each further token, all rounds one after another; empty for classifiers.
    """

    whole: list[float]
    prefill: list[float]
    decode: list[float]


class RequestShape(NamedTuple):
    """The size of a request: P tokens of a text (an image has its own size), and how many tokens are written."""

    tokens: int
    new_tokens: int


def request_inputs(model: nn.Module, workload: str, batch_size: int, tokens: int) -> dict[str, Tensor]:
    """Random inputs of a model: `pixel_values` (B, C, H, W), or `input_ids` (B, P) of its own vocabulary, without padding."""
    config, device = cast(Any, model).config, next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    if workload == "image-classification":
        side = config.image_size
        pixels = torch.rand(batch_size, config.num_channels, side, side, generator=generator)
        return {"pixel_values": pixels.to(device, next(model.parameters()).dtype)}
    ids = torch.randint(config.vocab_size, (batch_size, tokens), generator=generator).to(device)
    return {"input_ids": ids} if workload == "causal-lm" else {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def sequence_tokens(model: nn.Module, workload: str, tokens: int) -> int:
    """Positions that a model computes for a request: those of its text, or the patches of an image and one more."""
    config = cast(Any, model).config
    return (config.image_size // config.patch_size) ** 2 + 1 if workload == "image-classification" else tokens


def check_length(model: nn.Module, name: str, workload: str, request: RequestShape) -> None:
    """Refuse a text that is longer than a model has positions for.

    Raises:
        UserError: `bench.prompt_tokens` and `bench.new_tokens` do not fit.
    """
    most = getattr(cast(Any, model).config, "max_position_embeddings", None)
    new = request.new_tokens if workload == "causal-lm" else 0
    if workload != "image-classification" and most is not None and request.tokens + new > most:
        allowed = f"together at most {most}, the positions of {name}"
        given = f"{request.tokens} and bench.new_tokens {new}" if new else request.tokens
        raise UserError.about("bench.prompt_tokens", given, allowed, "Shorten them.")


@contextmanager
def threads_of(count: int | None) -> Iterator[int]:
    """Compute with so many processor threads for a while (None: as it is); gives their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def measure_rounds(
    models: Mapping[str, nn.Module],
    workload: str,
    batch_sizes: Sequence[int],
    request: RequestShape,
    rounds: int,
    warmup: int,
    *,
    most_seconds: float | None = None,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[str, dict[int, RequestTimes]]:
    """Run every model at every batch size once in each round; the model that begins changes from round to round.

    Args:
        models: Name to model, each on its device and in its dtype.
        workload: The ladder's.
        batch_sizes: B, each measured.
        request: The request.
        rounds: Measured rounds.
        warmup: Rounds before them that are not measured.
        most_seconds: End after the round in which they are over, and the warm-up after a quarter of them; one round counts in any case.
        on_round: Called after each round with the number of rounds done, the warm-up's included; may raise to end it.

    Returns:
        Model -> batch size -> times, equally many for all.
    """
    names, number, first = list(models), 0, warmup
    inputs = {(name, size): request_inputs(models[name], workload, size, request.tokens) for name in names for size in batch_sizes}
    times = {name: {size: RequestTimes([], [], []) for size in batch_sizes} for name in names}
    ask = _generate if workload == "causal-lm" else _classify
    began = time.perf_counter()
    with torch.inference_mode():
        while number < first + rounds:
            at = number % len(names)
            for name in names[at:] + names[:at]:
                for size in batch_sizes:
                    measured = ask(models[name], inputs[name, size], request)
                    if number >= first:
                        for all_rounds, this in zip(times[name][size], measured, strict=True):
                            all_rounds += this
            number += 1
            on_round(number)
            if most_seconds is not None:
                took = time.perf_counter() - began
                if number > first and took >= most_seconds:
                    break
                if number < first and took >= most_seconds / 4:
                    first = number  # enough of the time has gone by to be warm
    return times


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _classify(model: nn.Module, inputs: dict[str, Tensor], request: RequestShape) -> RequestTimes:
    device = next(iter(inputs.values())).device
    began = _now(device)
    model(**inputs)
    return RequestTimes([_now(device) - began], [], [])


def _generate(model: nn.Module, inputs: dict[str, Tensor], request: RequestShape) -> RequestTimes:
    """Greedy decoding with the cache that transformers keeps: one pass over the prompt, then a token at a time."""
    device = inputs["input_ids"].device
    began = _now(device)
    output = model(**inputs, use_cache=True, logits_to_keep=1)
    token = output.logits[:, -1:].argmax(-1)
    first = last = _now(device)
    decode = []
    for _ in range(request.new_tokens - 1):
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
        token = output.logits[:, -1:].argmax(-1)
        moment = _now(device)
        decode.append(moment - last)
        last = moment
    return RequestTimes([last - began], [first - began], decode)
