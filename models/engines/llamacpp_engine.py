"""Engine of llama.cpp: language models in GGUF files; no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from conf.errors import LadderError
from models.base.files import read_json
from models.data import tokenizers
from models.engines.base import Generation, GenerationSettings, LanguageModel, Message, Token, TokenQueue
from models.engines.llama_server import LlamaServer
from models.engines.prompts import PromptEncoder

WARM_TEXT = "a b c"
CONTEXT = 2048  # ids of an answer with its prompt, where the model has more positions and nothing is asked for


class LlamaCppModel(LanguageModel):
    """A language model whose answers llama.cpp writes side by side.

    Args:
        folder: Of an export: `model.gguf`, and the tokenizer beside it.
        max_length: Ids of prompt and answer; None: the model's positions, at most 2,048.
        batch: Most answers at once.
        key: Dotted key or option to blame.

    Raises:
        UserError: It is no such folder, or xllamacpp is not installed.
    """

    kind = "llamacpp"

    def __init__(self, folder: Path, *, max_length: int | None = None, batch: int = 16, key: str = "model") -> None:
        config = read_json(folder / "config.json")
        positions = config.get("max_position_embeddings") or config.get("n_positions") or CONTEXT
        context: int = min(positions, max_length or CONTEXT)
        self.max_length = context
        self._tokenizer = tokenizers.load_teacher(folder)
        self._prompts = PromptEncoder(self._tokenizer)
        self.chat, self.vocabulary = self._prompts.chat, tokenizers.id_count(self._tokenizer)
        self._server = LlamaServer(folder, context=context, parallel=batch, key=key)

    def warm(self) -> None:
        """Write two tokens."""
        list(self.generate(self.ids(WARM_TEXT)[:8], GenerationSettings(max_tokens=2, temperature=0.0)))

    def close(self) -> None:
        """Stop llama.cpp."""
        self._server.close()

    def ids(self, prompt: str | Sequence[Message]) -> list[int]:
        """Ids of a text, or of a conversation."""
        return self._prompts.ids(prompt)

    def generate(self, prompt: Sequence[int], settings: GenerationSettings, generation: Generation | None = None) -> Iterator[Token]:
        """Continue a prompt."""
        tokens, generation = TokenQueue(), generation or Generation()
        answer = _LlamaAnswer(self._tokenizer, settings.top, tokens, generation)
        request: dict[str, Any] = {
            "prompt": list(prompt),
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "n_probs": max(settings.top, 1),
            "stop": list(settings.stop),
            "stream": True,
            **({} if settings.seed is None else {"seed": settings.seed}),
        }

        def run() -> None:
            try:
                self._server.complete(request, answer.take)
                answer.end()
            except Exception as error:  # noqa: BLE001  handed to the reader, who raises it
                tokens.put(error)

        Thread(target=run, name="llama.cpp", daemon=True).start()
        try:
            yield from tokens
        finally:
            generation.cancel()


class _LlamaAnswer:
    """Turns the chunks of llama.cpp into tokens; a chunk may hold several where one alone is no whole letter."""

    def __init__(self, tokenizer: Any, top: int, tokens: TokenQueue, generation: Generation) -> None:
        self._tokenizer, self._top, self._tokens, self._generation = tokenizer, top, tokens, generation
        self._done = False

    def take(self, chunk: dict[str, Any]) -> bool:
        """Take a chunk; True ends the answer."""
        if "error" in chunk:
            self._done = True
            self._tokens.put(LadderError(f"llama.cpp: {chunk['error'].get('message', chunk['error'])}"))
        elif self._generation.cancelled.is_set() and not self._done:
            self._tell(Token("", "", finish="cancelled"))
        for choice in () if self._done else chunk.get("choices", ()):
            content = (choice.get("logprobs") or {}).get("content") or []
            reason = choice.get("finish_reason")
            if content:
                last = content[-1]
                top = tuple((self._word(one["id"]), float(one["logprob"])) for one in last["top_logprobs"][: self._top])
                self._tell(Token(choice["text"], self._word(last["id"]), float(last["logprob"]), top, reason))
            elif choice["text"] or reason:
                self._tell(Token(choice["text"], "", finish=reason))
        return self._done

    def _tell(self, token: Token) -> None:
        self._done = token.finish is not None
        self._tokens.put(token)

    def end(self) -> None:
        """llama.cpp has ended the answer."""
        if not self._done:
            self._tell(Token("", "", finish="cancelled" if self._generation.cancelled.is_set() else "stop"))

    def _word(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))
