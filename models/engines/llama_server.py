"""llama.cpp in this process, on a GGUF file; no torch.

The package xllamacpp runs llama.cpp's own server in a thread. It also listens on a port of this machine alone, behind a token of its own.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import LadderError, UserError, foreign_errors

FILE = "model.gguf"
ALWAYS = 1e5  # added to a logit
ALLOWED = "a GGUF file that llama.cpp reads, such as `ladder export --format gguf` writes"


class LlamaServer:
    """A GGUF file in memory.

    Args:
        place: The file, or the folder of an export with `model.gguf`.
        context: Ids of prompt and answer together, for each answer.
        parallel: Answers at once.
        threads: Processor threads; None: llama.cpp's choice.
        key: Dotted key or option to blame.

    Raises:
        UserError: xllamacpp is not installed, or llama.cpp does not read the file.
    """

    def __init__(self, place: Path, *, context: int, parallel: int = 1, threads: int | None = None, key: str = "model") -> None:
        if find_spec("xllamacpp") is None:
            raise UserError.about(key, str(place), "a GGUF file, where xllamacpp is installed", "Run `pip install xllamacpp`.")
        xllamacpp: Any = import_module("xllamacpp")
        file = place / FILE if place.is_dir() else place
        with foreign_errors(key, str(file), ALLOWED, "Export it again.", "llama.cpp"):
            if not file.is_file():  # llama.cpp would look for it on a hub
                raise FileNotFoundError("no such file")
            given: Any = xllamacpp.CommonParams()
            given.model.path = str(file)
            given.n_ctx, given.n_parallel = context * parallel, parallel
            given.n_gpu_layers, given.warmup, given.verbosity, given.ui = 0, False, 0, False
            given.hostnames, given.port = ["127.0.0.1"], 0
            given.fit_params = False
            # Caches in single precision and no flash attention: the answers are then those of the weights, and of nothing else.
            given.cache_type_k = given.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            given.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
            if threads is not None:
                given.cpuparams.n_threads = given.cpuparams_batch.n_threads = threads
            self._token = secrets.token_hex(16)
            given.api_keys = [self._token]
            self._server: Any = xllamacpp.Server(given)
        self._letter: int | None = None

    def complete(self, request: dict[str, Any], on_chunk: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """Answer a request of llama.cpp's /v1/completions; with `on_chunk` it is streamed, until that returns True.

        Raises:
            LadderError: llama.cpp refused it.
        """
        found = self._server.handle_completions(request, *([on_chunk] if on_chunk else []))
        if isinstance(found, dict) and "error" in found:
            raise LadderError(f"llama.cpp: {found['error'].get('message', found['error'])}")
        return found

    def log_probabilities(self, ids: Sequence[int], vocabulary: int) -> NDArray[np.float32]:
        """(V,) of the id that follows a prompt. A prompt that begins as the last one did is computed from there on."""
        # Figures are those before any bias and choice. None are told of a chosen id that ends the text or is no whole letter: so it is `a`.
        self._letter = self._letter if self._letter is not None else self.tokenize("a")[0]
        bias = {str(self._letter): ALWAYS}
        request = {"prompt": list(ids), "max_tokens": 1, "n_probs": vocabulary, "temperature": 0.0, "logit_bias": bias}
        (content,) = self.complete(request)["choices"][0]["logprobs"]["content"]
        found = np.full(vocabulary, -np.inf, dtype=np.float32)
        for each in content["top_logprobs"]:
            found[each["id"]] = each["logprob"]
        return found

    def tokenize(self, text: str, begin: bool = False) -> list[int]:
        """Ids of a text by the file's own tokenizer, special strings as text; with those that begin one, if wanted."""
        from urllib.request import ProxyHandler, Request, build_opener

        body = json.dumps({"content": text, "add_special": begin, "parse_special": False}).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        opener = build_opener(ProxyHandler({}))  # whatever proxy is set, this is our own thread
        with opener.open(Request(f"{self._server.listening_address}/tokenize", body, headers), timeout=60) as answer:
            return json.loads(answer.read())["tokens"]

    def close(self) -> None:
        """Stop the server."""
        self._server = None
