"""Writes wordsim.csv: the 353 pairs of words that gensim's wheel carries among its tests, with the mean of human ratings of likeness.

    python docs/examples/wordsim.py gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl

The package is neither installed nor run. L. Finkelstein et al. 2002: Placing search in context, ACM TOIS 20(1), WordSimilarity-353.
"""

from __future__ import annotations

import csv
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

INNER = "gensim/test/test_data/wordsim353.tsv"


def pairs(wheel: Path) -> Iterator[tuple[str, str, float]]:
    """Two words and their rating, from 0 to 10."""
    with zipfile.ZipFile(wheel) as archive:
        for line in archive.read(INNER).decode("utf-8").splitlines():
            if line and not line.startswith("#"):
                first, second, rating = line.split("\t")
                yield first, second, float(rating)


def main() -> None:
    """Write the file in the working directory."""
    with Path("wordsim.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "score"])
        writer.writerows(pairs(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
