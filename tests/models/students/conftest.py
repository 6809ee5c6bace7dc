"""A corpus whose tokenizer has more ids than the corpus uses, and the tokenizer that is cut to them."""

import sysconfig
from pathlib import Path

import numpy as np
import pytest

from models.data import tokenizers
from models.data.corpus import SPLITS, Corpus, CorpusInfo, Split, write_corpus
from models.students.reduced_tokenizer import reduced_tokenizer, used_ids
from models.students.vocabulary import VocabularyMap

STDLIB = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
TAUGHT, SEEN = STDLIB[:24], STDLIB[24:32]  # what the tokenizer was trained on, and the corpus: part of the ids does not occur in it


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Files of the standard library in the ids of a BPE that was trained on others."""
    folder = tmp_path_factory.mktemp("corpus")
    tokenizer = tokenizers.train_bpe((path.read_text() for path in TAUGHT), 2000)
    tokenizers.save(tokenizer, folder / "tokenizer")
    end, pad = tokenizers.special_ids(tokenizer)
    parts = {"train": SEEN[:-2], "valid": SEEN[-2:-1], "test": SEEN[-1:]}
    splits = {}
    for name in SPLITS:
        documents = [[*ids.tolist(), end] for ids in tokenizers.encode(tokenizer, [path.read_text()[:9000] for path in parts[name]])]
        lengths, zeros = [len(document) for document in documents], np.zeros(len(documents), dtype=np.int64)
        values = np.array([i for document in documents for i in document], dtype=np.uint16)
        splits[name] = Split(values, np.array([0, *np.cumsum(lengths)]), zeros - 1, zeros.astype(np.int32), zeros + 100)
    tokens = {name: len(split.values) for name, split in splits.items()}
    counts = {name: len(split) for name, split in splits.items()}
    write_corpus(folder, CorpusInfo("causal-lm", 32, len(tokenizer), end, pad, (), ("one",), None, counts, tokens), splits)
    return Corpus(folder, "hash")


@pytest.fixture(scope="session")
def kept(corpus: Corpus) -> VocabularyMap:
    return VocabularyMap(used_ids(corpus))


@pytest.fixture(scope="session")
def smaller(corpus: Corpus, kept: VocabularyMap, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smaller")
    assert corpus.tokenizer_folder is not None
    reduced_tokenizer(corpus.tokenizer_folder, kept.kept, folder)
    return folder


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """The texts of the corpus."""
    return [path.read_text()[:9000] for path in SEEN]
