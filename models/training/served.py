"""A teacher behind OpenAI's API: top log-probabilities at each id of a text.

The server gives `prompt_logprobs`, as vLLM and `ladder serve-model` do: at each id of a prompt, which is sent as ids, the most probable
ids with their log-probabilities. The mass of all others is one bucket, see `models.losses.sparse`. It must have the student's tokenizer.

Shape legend: B examples, L positions, N = B * L rows, K ids listed at each, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from conf.errors import UserError
from models.data.batches import IGNORE, Batch
from models.generation.answer_file import AnswerFile, Rows
from models.generation.endpoint import EndpointClient, RequestRefused
from models.losses.sparse import SparseSignal

KEY = "signals.endpoint"
LEAST_REST = 1e-7  # mass of the bucket where some ids are not listed: what rounding hides must not make a divergence infinite


class ServedTeacher:
    """A source of signals; one request for each text, ever.

    Args:
        client: Of the endpoint.
        top: K, the most probable ids at each place.
        vocabulary: V, ids of the tokenizer.
        answers: Of this training, with those of interrupted attempts.
    """

    def __init__(self, client: EndpointClient, top: int, vocabulary: int, answers: AnswerFile) -> None:
        self.client, self._top, self._vocabulary, self._answers = client, min(top, vocabulary), vocabulary, answers

    def __call__(self, batch: Batch) -> SparseSignal:
        """The teacher's distributions at all rows of a batch; rows that do not count get one that means nothing.

        Raises:
            UserError: The server gives too few log-probabilities, or none, or ids of another tokenizer.
            TransientError: It gave no usable answer after all tries.
        """
        ids, counts = batch.inputs["input_ids"].cpu(), (batch.targets != IGNORE).cpu()
        lengths = (counts * torch.arange(1, counts.shape[1] + 1)).amax(1).tolist()  # up to the last that counts
        texts = [row[:length] for row, length in zip(ids, lengths, strict=True)]
        keys = [hashlib.sha256(text.numpy().tobytes()).digest() for text in texts]
        unknown = {key: text for key, text in zip(keys, texts, strict=True) if len(text) and self._answers.get(key) is None}
        with ThreadPoolExecutor(self.client.endpoint.concurrency) as pool:
            list(pool.map(self._ask, unknown, unknown.values()))
        answers = [self._answers.get(key) for key in keys]
        listed = torch.zeros(*counts.shape, self._top, dtype=torch.long)
        log_probs = torch.full(listed.shape, -torch.inf)
        log_probs[..., 0] = 0.0
        for row, answer in enumerate(answers):
            if answer is not None:  # a text in which nothing counts is not asked for
                own, values = answer
                listed[row, : len(own)], log_probs[row, : len(own)] = own, values
        rest = 1 - log_probs.double().exp().sum(-1)
        unlisted = self._top < self._vocabulary
        rest = rest.clamp(min=LEAST_REST).log().float() if unlisted else torch.full(rest.shape, -torch.inf)
        device = batch.targets.device
        return SparseSignal(listed.flatten(0, 1).to(device), log_probs.flatten(0, 1).to(device), rest.flatten().to(device))

    def close(self) -> None:
        """Let go of the endpoint and of the answers."""
        self.client.close()
        self._answers.close()

    def _ask(self, key: bytes, text: Tensor) -> None:
        ids = text.tolist()
        # One id more, whichever: the distribution after the last one is told at its place.
        body = {"prompt": [*ids, ids[0]], "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": self._top}
        try:
            answer = self.client.ask(body, once=f"{key.hex()}-{self._top}", chat=False)
        except RequestRefused as error:
            raise UserError(
                f"{error} A text of {len(ids)} ids needs {len(ids) + 2} positions: raise the server's limit, or lower data.sequence_length."
            ) from error
        self._answers.add(key, self._rows(answer, len(ids)))

    def _rows(self, answer: Mapping[str, Any], length: int) -> Rows:
        told = answer["choices"][0].get("prompt_logprobs")
        where = f"{self.client.endpoint.model} at {self.client.endpoint.url}"
        if not isinstance(told, list) or len(told) != length + 1:
            allowed = "a server that gives prompt_logprobs at every id of a prompt, as vLLM and `ladder serve-model` do"
            raise UserError.about(KEY, where, allowed, "Name another, or teach with a checkpoint.")
        ids, values = torch.zeros(length, self._top, dtype=torch.long), torch.zeros(length, self._top)
        for place, entries in enumerate(told[1:]):
            best = _best(entries)
            if best is None or any(not 0 <= number < self._vocabulary for number, _ in best):
                allowed = f"a model with the student's tokenizer, whose log-probabilities are those of ids below {self._vocabulary:,}"
                raise UserError.about(KEY, where, allowed, "Serve one with the same tokenizer.")
            if len(best) < self._top:
                allowed = f"{self._top} log-probabilities at each id, which signals.k asks for; {where} gives {len(best)}"
                raise UserError.about("signals.k", self._top, allowed, "Lower it, or raise the server's limit (vLLM: --max-logprobs).")
            ids[place] = torch.tensor([number for number, _ in best[: self._top]])
            values[place] = torch.tensor([value for _, value in best[: self._top]])
        return ids, values


def _best(entries: Any) -> list[tuple[int, float]] | None:
    """Ids and log-probabilities of one place, the most probable first; None: they are not shaped like any."""
    try:
        pairs = [(int(name), float(value["logprob"] if isinstance(value, dict) else value)) for name, value in entries.items()]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if any(math.isnan(value) or value > 1e-3 for _, value in pairs):
        return None
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
