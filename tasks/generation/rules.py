"""Measures of single answers that the rules of selection compare."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from conf.errors import UserError, reason_of
from models.base.files import file_sha256
from tasks.generation.prompts import plain

FEW_WORDS = 20  # of an answer that is judged by its letters
WORDS, LETTERS = 4, 12  # of a run that may be repeated
SHINGLE = 3  # words of a run by which answers are compared
PERMUTATIONS = 128  # of MinHash
LISTED = "LADDER_FILTERS"  # names of the functions that a module offers as filters

Keep = Callable[[str, str], object]


def repeated(text: str) -> float:
    """Share of a text's runs of four words (of twelve letters where it has few words) that stand in it before."""
    words: Sequence[str] = text.casefold().split()
    if len(words) < FEW_WORDS:
        runs = [text[first : first + LETTERS] for first in range(len(text) - LETTERS + 1)]
    else:
        runs = [" ".join(words[first : first + WORDS]) for first in range(len(words) - WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def parted(text: str, mark: str | None) -> tuple[str, str]:
    """The rationale and the answer of a text: what stands before and after the last `mark`; the whole text is an answer without one."""
    if mark is None or mark not in text:
        return "", text
    before, _, after = text.rpartition(mark)
    return before.strip(), after.rstrip()


def answer_in(text: str, pattern: str | None) -> str:
    """The answer in a text, without regard to case and space: the last match of the pattern, its last group; the whole text where none."""
    if pattern is not None:
        found = list(re.finditer(pattern, text))
        if not found:
            return ""
        text = next((group for group in reversed(found[-1].groups()) if group is not None), found[-1][0])
    words = plain(text).rstrip(".")
    try:
        return f"{float(words.replace(',', '')):.12g}"  # 1,000 is 1000.0
    except ValueError:
        return words


def majority(answers: Sequence[str]) -> tuple[str, float]:
    """The most frequent answer that is not empty, the first of several, and its share of all; an empty one where there is none."""
    counts = Counter(answer for answer in answers if answer)
    if not counts:
        return "", 0.0
    answer, times = counts.most_common(1)[0]
    return answer, times / len(answers)


class NearDuplicates:
    """Finds texts that are like an earlier one, by MinHash (Broder 1997; the package datasketch).

    Args:
        threshold: Jaccard similarity of the sets of runs of three words.
    """

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self._index, self._count = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS), 0

    def is_like_another(self, text: str) -> bool:
        """Whether an earlier text is like this one, which joins them if not."""
        from datasketch import MinHash

        words = plain(text).split()
        runs = {" ".join(words[first : first + SHINGLE]) for first in range(max(len(words) - SHINGLE + 1, 1))}
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([run.encode(errors="surrogatepass") for run in runs])
        if self._index.query(sketch):
            return True
        self._index.insert(str(self._count), sketch)
        self._count += 1
        return False


def function_of(name: str | None) -> tuple[Keep | None, str | None]:
    """The function that `package:function` names, and the hash of its module's file.

    Only a function that its module lists in `LADDER_FILTERS` is called: settings may come from a form, and must not call just anything.

    Raises:
        UserError: It cannot be imported, or is not listed.
    """
    if name is None:
        return None, None
    key, (place, _, word) = "data.generate.selection.function", name.partition(":")
    try:
        module = importlib.import_module(place)
        listed = tuple(getattr(module, LISTED, ()))
        found = getattr(module, word)
    except Exception as error:  # a module is a program, and raises what it likes
        raise UserError.about(key, name, "package:function that Python can import", f"Python says: {reason_of(error)}.") from error
    if word not in listed or not callable(found):
        remedy = f'Write {LISTED} = ("{word}",) into {place}.'
        raise UserError.about(key, name, f"a function that its module lists in {LISTED}", remedy)
    file = getattr(module, "__file__", None)
    return found, file_sha256(Path(file)) if file else None
