"""Write a byte-level BPE tokenizer into a GGUF file, as llama.cpp reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from conf.errors import UserError
from models.base.files import read_json
from models.data.tokenizers import load, surroundings

if TYPE_CHECKING:
    from gguf import GGUFWriter

# llama.cpp's name of a cut into words -> the regular expressions that tokenizers of that name split by, before GPT-2's own or after.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ROTARY = ("default", "llama3")  # kinds of rotary embeddings
NORMALIZERS = (None, "NFC")
ALLOWED = "a byte-level BPE whose cut into words llama.cpp has (GPT-2's, SmolLM's, Llama 3's, Qwen 2's), or bytes"
UNUSED = "[PAD{}]"  # llama.cpp's name for an id that the tokenizer lacks


class GgufTokenizer(NamedTuple):
    """A tokenizer as GGUF holds it.

    Attributes:
        pre: llama.cpp's name of the cut into words.
        tokens: (V,) text of each id, in byte-level letters.
        kinds: (V,) llama.cpp's type of each.
        merges: Pairs, by rank.
        special: `bos`, `eos` and `pad` with their ids, as far as there are any.
        begins: Whether a text begins with the beginning id.
        template: Chat template; None without one.
    """

    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    special: dict[str, int]
    begins: bool
    template: str | None

    def write(self, writer: GGUFWriter) -> None:
        """Add it to a file."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        writer.add_token_merges(self.merges)
        writer.add_add_bos_token(self.begins)
        writer.add_add_eos_token(False)
        for name, number in self.special.items():
            getattr(writer, f"add_{name}_token_id")(number)
        if self.template:
            writer.add_chat_template(self.template)


def check_gguf(folder: Path, name: str, key: str) -> None:
    """Refuse a student whose tokenizer or rotary embedding llama.cpp lacks, before any work.

    Args:
        folder: Of the student.
        name: Of the format.
        key: Dotted key or option to blame.

    Raises:
        UserError: Naming the tokenizer or the embedding.
    """
    check_tokenizer(folder, name, key)
    config = read_json(folder / "config.json")
    kind = (config.get("rope_parameters") or {}).get("rope_type", "default")
    if kind not in ROTARY:
        raise UserError.about(key, f"{name} of a model with {kind} rotary embeddings", " or ".join(ROTARY), "Choose hf or onnx.")
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        raise UserError.about(key, f"{name} of a model with sliding windows", "attention without them", "Choose hf or onnx.")


def check_tokenizer(folder: Path, name: str, key: str) -> str:
    """llama.cpp's name of the cut into words of the tokenizer in a folder.

    Raises:
        UserError: llama.cpp has no such tokenizer.
    """
    file = folder / "tokenizer.json"
    raw = read_json(file) if file.is_file() else {}
    pre = _cut(raw)
    if pre is None:
        kind = raw.get("model", {}).get("type", "none")
        raise UserError.about(key, f"{name} of a tokenizer of type {kind}", ALLOWED, "Choose hf or onnx.")
    return pre


def _cut(raw: dict[str, Any]) -> str | None:
    model = raw.get("model", {})
    normalizer = (raw.get("normalizer") or {}).get("type")
    if model.get("type") != "BPE" or (raw.get("decoder") or {}).get("type") != "ByteLevel" or normalizer not in NORMALIZERS:
        return None
    parts = _flat(raw.get("pre_tokenizer"))
    last = parts[-1] if parts else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    before, regex = parts[:-1], last.get("use_regex", True)
    if not before:
        return "gpt-2" if regex or not model["merges"] else None  # without merges no cut changes anything
    if len(before) == 1 and before[0]["type"] == "Digits" and before[0].get("individual_digits") and regex:
        return "smollm"
    if len(before) == 1 and before[0]["type"] == "Split" and not regex:
        return {LLAMA3: "llama-bpe", QWEN2: "qwen2"}.get(before[0]["pattern"].get("Regex", ""))
    return None


def _flat(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if part is None:
        return []
    return [inner for each in part["pretokenizers"] for inner in _flat(each)] if part["type"] == "Sequence" else [part]


def read_tokenizer(folder: Path, ids: int, name: str, key: str) -> GgufTokenizer:
    """The tokenizer in a student's folder, for a model of so many ids.

    Raises:
        UserError: llama.cpp has no such tokenizer.
    """
    from gguf import TokenType

    pre = check_tokenizer(folder, name, key)
    raw = read_json(folder / "tokenizer.json")
    tokens, kinds = [UNUSED.format(number) for number in range(ids)], [int(TokenType.UNUSED)] * ids
    for token, number in raw["model"]["vocab"].items():
        tokens[number], kinds[number] = token, int(TokenType.NORMAL)
    for added in raw["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in raw["model"]["merges"]]
    tokenizer = load(folder)
    found = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    special = {name: number for name, number in found.items() if isinstance(number, int)}
    before, _ = surroundings(tokenizer)
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
    # llama.cpp asks for a list of merges, and a list in a file may not be empty: a pair that no text has.
    words = merges or [f"{UNUSED.format('a')} {UNUSED.format('b')}"]
    return GgufTokenizer(pre, tokens, kinds, words, special, before == [special.get("bos")], template)
