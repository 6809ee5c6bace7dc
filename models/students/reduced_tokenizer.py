"""Cut a BPE tokenizer to the ids in use, without a change of the text's cuts.

Kept are the ids that occur in the corpus, every byte, every special token, and each part of which the tokenizer's merges make a kept
token. A byte-level BPE merges the pair of lowest rank first; all pairs on the way to a kept token are among those kept, so the smaller
tokenizer cuts the corpus's text exactly as the larger one does. Other text falls back to shorter tokens, in the end to bytes.
"""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from conf.errors import UserError
from models.base.files import read_json
from models.data.corpus import SPLITS, Corpus
from models.data.tokenizers import byte_letters

NO_VOCABULARY = ("vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")  # older forms of tokenizer.json


@functools.lru_cache(maxsize=2)
def used_ids(corpus: Corpus) -> tuple[int, ...]:
    """The ids to keep, ascending: those that occur in any split, bytes, specials, and the parts of which kept tokens are merged.

    Raises:
        UserError: The corpus's tokenizer is no BPE.
    """
    present = np.zeros(corpus.info.vocabulary or 0, dtype=bool)
    rationales = corpus.rationales
    for split in (*map(corpus.split, SPLITS), *([] if rationales is None else [rationales])):
        values = split.values
        for start in range(0, len(values), 2**24):  # bounds the memory that a large corpus takes
            present[np.unique(values[start : start + 2**24]).astype(np.int64)] = True
    special = [i for i in (corpus.info.end_id, corpus.info.pad_id, *corpus.info.prefix) if i is not None]
    return _closed(_bpe(corpus.tokenizer_folder), {*np.flatnonzero(present).tolist(), *special})


def _bpe(folder: Path | None) -> dict[str, Any]:
    """The serialised tokenizer.

    Raises:
        UserError: It is no BPE.
    """
    file = folder / "tokenizer.json" if folder else None
    raw = read_json(file) if file and file.is_file() else {}
    kind = raw.get("model", {}).get("type")
    if kind != "BPE":
        raise UserError.about(
            "student.vocabulary",
            "used",
            f"teacher, for a tokenizer of type {kind or 'unknown'}",
            "Only a BPE can be cut to the ids in use.",
        )
    return raw


def _pairs(model: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Left part, right part and result of every merge, by rank."""
    prefix = len(model.get("continuing_subword_prefix") or "")
    halves = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right, left + right[prefix:]) for left, right in halves]


def _closed(raw: dict[str, Any], ids: set[int]) -> tuple[int, ...]:
    vocabulary: dict[str, int] = raw["model"]["vocab"]
    letters = [*byte_letters(), *(f"<0x{byte:02X}>" for byte in range(256))]
    kept = ids | {vocabulary[letter] for letter in letters if letter in vocabulary} | {token["id"] for token in raw["added_tokens"]}
    unknown = raw["model"].get("unk_token")
    if unknown in vocabulary:
        kept.add(vocabulary[unknown])
    parts: dict[int, list[int]] = {}
    for left, right, result in _pairs(raw["model"]):
        parts.setdefault(vocabulary[result], []).extend((vocabulary[left], vocabulary[right]))
    waiting = list(kept)
    while waiting:
        for part in parts.get(waiting.pop(), ()):
            if part not in kept:
                kept.add(part)
                waiting.append(part)
    return tuple(sorted(kept))


def reduced_tokenizer(folder: Path, kept: tuple[int, ...], out: Path) -> None:
    """Write the tokenizer of a smaller vocabulary: the same text, the same cuts, the smaller ids.

    Args:
        folder: The larger tokenizer's, a byte-level BPE's.
        kept: The ids to keep, ascending, as `used_ids` gives them.
        out: An existing folder.

    Raises:
        UserError: It is no BPE.
    """
    raw, place = _bpe(folder), {old: new for new, old in enumerate(kept)}
    model = raw["model"]
    vocabulary = {token: place[old] for token, old in model["vocab"].items() if old in place}
    pairs = zip(model["merges"], _pairs(model), strict=True)
    model["merges"] = [merge for merge, parts in pairs if all(part in vocabulary for part in parts)]
    model["vocab"] = vocabulary
    for token in raw["added_tokens"]:
        token["id"] = place[token["id"]]
    raw["post_processor"] = _moved(raw.get("post_processor"), place)
    if raw.get("padding"):
        raw["padding"]["pad_id"] = place[raw["padding"]["pad_id"]]
    for path in folder.iterdir():
        if path.is_file() and path.name not in NO_VOCABULARY:
            shutil.copy(path, out / path.name)
    (out / "tokenizer.json").write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
    config = out / "tokenizer_config.json"
    if config.is_file():
        settings = read_json(config)
        if "added_tokens_decoder" in settings:
            settings["added_tokens_decoder"] = {str(place[int(old)]): token for old, token in settings["added_tokens_decoder"].items()}
            config.write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _moved(processor: Any, place: dict[int, int]) -> Any:
    """A post-processor with new ids for the special tokens that it adds."""
    if not isinstance(processor, dict):
        return processor
    moved = dict(processor)
    if "processors" in moved:
        moved["processors"] = [_moved(each, place) for each in moved["processors"]]
    for name in ("sep", "cls"):
        if isinstance(moved.get(name), list):
            token, old = moved[name]
            moved[name] = [token, place[old]]
    if isinstance(moved.get("special_tokens"), dict):
        moved["special_tokens"] = {
            token: {**known, "ids": [place[old] for old in known["ids"]]} for token, known in moved["special_tokens"].items()
        }
    return moved
