"""Writes sentiment.csv: the 23,703 sentences that VADER's source package carries, with the mean of 20 raters as one of three classes.

    python docs/examples/sentiment.py vaderSentiment-3.3.2.tar.gz

MIT licence. C.J. Hutto, E.E. Gilbert 2014: VADER, a parsimonious rule-based model for sentiment analysis of social media text, ICWSM-14.
"""

from __future__ import annotations

import csv
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
KINDS = {"amazonReviewSnippets": "products", "movieReviewSnippets": "films", "nytEditorialSnippets": "editorials", "tweets": "tweets"}
NEUTRAL = 0.5  # a mean between minus and plus this, on a scale from -4 to 4, is neutral


def sentences(archive: Path) -> Iterator[tuple[str, str, str]]:
    """Text, class and kind of every sentence; nothing of the archive is unpacked or run."""
    with tarfile.open(archive) as outer:
        (name,) = (name for name in outer.getnames() if name.endswith(INNER))
        with tarfile.open(fileobj=_file(outer, name)) as inner:
            for kind, said in KINDS.items():
                (name,) = (name for name in inner.getnames() if name.endswith(f"{kind}_GroundTruth.txt"))
                for line in io.TextIOWrapper(_file(inner, name), encoding="utf-8"):
                    _, mean, text = line.split("\t", 2)
                    yield " ".join(text.split()), _class_of(float(mean)), said


def _file(archive: tarfile.TarFile, name: str) -> io.BytesIO:
    opened = archive.extractfile(name)
    assert opened is not None
    return io.BytesIO(opened.read())


def _class_of(mean: float) -> str:
    return "neutral" if abs(mean) <= NEUTRAL else "positive" if mean > 0 else "negative"


def main() -> None:
    """Write the file in the working directory."""
    with Path("sentiment.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "kind"])
        writer.writerows(sentences(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
