"""Read the prompts of `data.generate`; those of held-out documents are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from conf.errors import UserError
from conf.schema.data import FilesData
from conf.schema.generate import Generate, Prompts
from conf.schema.tables import Columns
from models.data import tokenizers
from models.data.corpus import Corpus
from models.data.lines import line_hashes
from models.engines.prompts import PromptEncoder
from tasks.data.reading.files import list_files
from tasks.data.reading.sources import renamed
from tasks.data.reading.tables import TABLES, read_rows
from tasks.data.reading.text_files import read_text
from tasks.records.format import percent
from tasks.store.fingerprint import fingerprint

KEY = "data.generate.prompts"
LINE = "prompt"  # column of a text file's lines


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        text: As the teacher gets it.
        values: Of the columns in it.
        reference: The right answer; None: not known.
        learned: The prompt in the row that is learned; None: the same.
    """

    text: str
    values: tuple[str, ...]
    reference: str | None = None
    learned: str | None = None

    @property
    def row(self) -> str:
        """The prompt in the row, as a student gets it."""
        return self.text if self.learned is None else self.learned


@dataclass(frozen=True)
class AskedPrompts:
    """The prompts that are asked, in an order that depends on their content and the seed alone, and why others are not."""

    prompts: tuple[Prompt, ...]
    left_out: dict[str, int]


def read_prompts(settings: Generate, base: Path, corpus: Corpus) -> AskedPrompts:
    """Read all prompts; equal and empty ones, and those that hold held-out documents, are left out and counted.

    Args:
        settings: Files, template, limit and seed.
        base: Folder that relative paths count from.
        corpus: Whose held-out documents no prompt may hold.

    Raises:
        UserError: A file or a column is missing, nothing is left, or too many prompts hold held-out documents.
    """
    left_out: Counter[str] = Counter()
    found: dict[str, Prompt] = {}
    for prompt in all_prompts(settings.prompts, base):
        if not prompt.text.strip():
            left_out["empty"] += 1
        elif prompt.text in found:
            left_out["equal"] += 1
        else:
            found[prompt.text] = prompt
    kept = _without_held_out(list(found.values()), corpus)
    if count := len(found) - len(kept):
        left_out["held-out"] = count
        if count > settings.max_held_out * len(found):
            allowed = f"at most {percent(settings.max_held_out)} of the prompts with text of held-out documents"
            remedy = "Leave these prompts out: who learns the answers to held-out questions cannot be judged by them."
            raise UserError.about(f"{KEY}.paths", f"{count:,} of {len(found):,} ({percent(count / len(found))})", allowed, remedy)
    if not kept:
        raise UserError.about(f"{KEY}.paths", ", ".join(settings.prompts.paths), "files with prompts", "None is left to ask.")
    kept.sort(key=lambda prompt: seed_of(settings.seed, prompt.text))
    return AskedPrompts(tuple(kept[: settings.prompts.most]), dict(left_out))


def seed_of(seed: int, prompt: str, sample: int = 0) -> int:
    """A number below 2^31 that depends on these three alone: the seed of an answer, or the place of a prompt among others."""
    return int.from_bytes(blake2b(f"{seed}\0{sample}\0{prompt}".encode(errors="surrogatepass"), digest_size=4).digest()) >> 1


def filled(template: str, row: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The text of a prompt, and the values in it; a missing value is empty."""
    text, values = "", []
    for before, name, _, _ in Formatter().parse(template):
        text += before
        if name is not None:
            value = row[name]
            values.append("" if value is None else str(value))
            text += values[-1]
    return text, tuple(values)


def prompts_hash(settings: Prompts, base: Path) -> str:
    """Hash of the content of all prompts.

    Raises:
        UserError: As `all_prompts`.
    """
    return fingerprint({"prompts": [[each.text, each.learned, each.reference] for each in all_prompts(settings, base)]})


def all_prompts(settings: Prompts, base: Path) -> Iterator[Prompt]:
    """The prompts of all files, in their order, equal and empty ones among them.

    Raises:
        UserError: A file or a column is missing.
    """
    data = FilesData.model_construct(None, source="files", paths=settings.paths, columns=Columns(), splits=None, sources=())
    wanted = {f"{{{name}}}": name for name in settings.fields} | ({"reference": settings.reference} if settings.reference else {})
    with renamed({"data.paths": f"{KEY}.paths", "data.columns.reference": f"{KEY}.reference", "data.columns": f"{KEY}.template"}):
        for _, name, path, _ in list_files(data, base, "causal-lm"):
            rows: Iterable[Mapping[str, Any]]
            if path.suffix.lower() in TABLES:
                rows = (row for _, row in read_rows(name, path, wanted))
            elif settings.reference or set(settings.fields) != {LINE}:
                allowed = f"tables with the columns {', '.join(wanted.values())}; a line of a text file is {{{LINE}}}"
                raise UserError.about(f"{KEY}.paths", name, allowed, "Correct the template, or name a table.")
            else:
                rows = ({LINE: line} for line in read_text(name, path).splitlines())
            for row in rows:
                text, values = filled(settings.template, row)
                reference = row[settings.reference] if settings.reference else None
                learned = None if settings.learned is None else filled(settings.learned, row)[0]
                yield Prompt(text, values, None if reference is None else str(reference), learned)


def _without_held_out(prompts: list[Prompt], corpus: Corpus) -> list[Prompt]:
    """The prompts whose lines, from 24 characters on, stand in no document of valid or test, and that begin no conversation of these."""
    if corpus.tokenizer_folder is None:
        return prompts
    tokenizer = tokenizers.load(corpus.tokenizer_folder)
    encoder = PromptEncoder(tokenizer)
    texts, begun = list[str](), set[str]()

    def text_of(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    for split in (corpus.split("valid"), corpus.split("test")):
        for number in range(len(split)):
            first, last = split.offsets[number], split.offsets[number + 1]
            ids = split.values[first:last].tolist()
            texts.append(text_of(ids))
            if split.counted is not None:
                answer = np.flatnonzero(split.counted[first:last])
                texts.append(text_of(ids[: int(answer[0])] if len(answer) else ids))
                begun.add(plain(texts[-1]))
    lines, whole = {*line_hashes(texts, 1.0).tolist()}, {plain(text) for text in texts}

    def is_held_out(prompt: Prompt) -> bool:
        own = [prompt.text, prompt.row, *prompt.values]
        if any(text in whole for text in map(plain, own) if text) or lines.intersection(line_hashes(own, 1.0).tolist()):
            return True
        asked = [{"role": "user", "content": prompt.row}] if encoder.chat else prompt.row
        return bool(begun) and plain(text_of(encoder.ids(asked))) in begun

    return [prompt for prompt in prompts if not is_held_out(prompt)]


def plain(text: str) -> str:
    """A text without regard to case and space."""
    return " ".join(text.casefold().split())
