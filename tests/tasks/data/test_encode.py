import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conf.errors import LadderError
from models.data import tokenizers
from models.data.corpus import SPLITS, Split
from models.data.encoder import Encoder
from tasks.data import encode, spool
from tasks.data.encode import FINISHED, Finished, Numbering, encode_spool, training_texts
from tasks.data.reading.readers import Document, content_key
from tasks.data.reading.sources import Source
from tasks.data.splits import DROPPED, Parts
from tasks.data.spool import NONE, Spool, open_spool, write_spool

TEXTS = [f"text {n}: ünï <|end|> " + "the brown fox ran home " * (n % 7) for n in range(240)]


def documents() -> Iterator[Document]:
    for n, text in enumerate(TEXTS):
        yield Document(content_key(text), f"g{n % 3}", f"t:{n}", text=text, label=n % 2 if n % 5 else str(n % 2))


@pytest.fixture
def spooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spool:
    """Texts in about twenty portions, which other processes encode."""
    monkeypatch.setattr(spool, "PORTION_BYTES", 1000)
    monkeypatch.setattr(encode, "ALONE_BYTES", 0)
    monkeypatch.setattr(encode, "NOTED_BYTES", 3000)
    return write_spool(Source(documents()), tmp_path / "spool", keep_empty=True)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return replace(tokenizers.encoder_of(tokenizers.train_bpe(TEXTS, 300)), before=(7,), after=(0,), room=30)


PARTS: Parts = np.array([(0, 0, 1, 2, DROPPED)[n % 5] for n in range(len(TEXTS))], dtype=np.uint8)
NUMBERS = Numbering(np.array([0, 1, 0, 1, -1]), np.array([2, 0, 1], dtype=np.int32))


def arrays(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/*.npy"))}


def test_a_spool_is_read_again_as_it_was_written(spooled: Spool) -> None:
    assert open_spool(spooled.folder) == spooled
    assert spooled.content.read_bytes().decode() == "".join(TEXTS)
    assert spooled.column("size").tolist() == [len(text.encode()) for text in TEXTS]
    assert set(spooled.column("split")) == {NONE}
    assert list(spooled.labels.counts) == ["0", 1, 0, "1"], "numbers and texts are different labels"
    assert len(list(spooled.portions())) > 10
    (spooled.folder / "spool.json").unlink()
    assert open_spool(spooled.folder) is None, "without its last file it is not finished"


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_any_number_of_processes_writes_what_numpy_would_save(tmp_path: Path, spooled: Spool, encoder: Encoder, processes: int) -> None:
    encode_spool(spooled, PARTS, encoder, NUMBERS, tmp_path / "made", processes)
    for index, name in enumerate(SPLITS):
        chosen = [n for n in range(len(TEXTS)) if PARTS[n] == index]
        ids = [[7, *next(encoder.ids([TEXTS[n]]))[:30].tolist(), 0] for n in chosen]
        Split(
            values=np.array([i for document in ids for i in document], dtype=np.uint16),
            offsets=np.array([0, *np.cumsum([len(document) for document in ids])], dtype=np.int64),
            labels=np.array([n % 2 for n in chosen], dtype=np.int64),
            slices=np.array([(2, 0, 1)[n % 3] for n in chosen], dtype=np.int32),
            sizes=np.array([len(TEXTS[n].encode()) for n in chosen], dtype=np.int64),
        ).save(tmp_path / "saved" / name)
    assert arrays(tmp_path / "made") == arrays(tmp_path / "saved")
    assert list(training_texts(spooled, PARTS)) == [text for n, text in enumerate(TEXTS) if PARTS[n] == 0]


def test_an_interrupted_corpus_goes_on_from_its_finished_portions(
    tmp_path: Path, spooled: Spool, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_spool(spooled, PARTS, encoder, NUMBERS, tmp_path / "whole", 1)
    jobs: list[int] = []

    def counting(left: float) -> Callable[..., object]:
        def job(made: Encoder, asked: encode.EncodeJob) -> object:
            if len(jobs) >= left:
                raise KeyboardInterrupt
            jobs.append(asked.start)
            return original(made, asked)

        return job

    original = encode.encode_job
    monkeypatch.setattr(encode, "encode_job", counting(10))
    with pytest.raises(KeyboardInterrupt):
        encode_spool(spooled, PARTS, encoder, NUMBERS, tmp_path / "broken", 1)
    noted = Finished.read(tmp_path / "broken").portions
    assert 0 < noted < 10, "some of what was encoded is not noted yet"
    jobs.clear()
    monkeypatch.setattr(encode, "encode_job", counting(np.inf))
    encode_spool(spooled, PARTS, encoder, NUMBERS, tmp_path / "broken", 1)
    assert len(jobs) == len(list(spooled.portions())) - noted
    assert arrays(tmp_path / "broken") == arrays(tmp_path / "whole")
    jobs.clear()
    encode_spool(spooled, PARTS, encoder, NUMBERS, tmp_path / "broken", 1)
    assert jobs == [], "finished but not published: nothing is encoded again"
    assert arrays(tmp_path / "broken") == arrays(tmp_path / "whole")
    assert json.loads((tmp_path / "broken" / FINISHED).read_text())["portions"] == len(list(spooled.portions()))


def test_documents_that_are_read_more_often_come_again_after_all_others(tmp_path: Path, spooled: Spool, encoder: Encoder) -> None:
    times = np.array([(1, 3, 1, 1, 0)[n % 5] for n in range(len(TEXTS))], dtype=np.uint8)
    encode_spool(spooled, PARTS, encoder, NUMBERS, tmp_path / "made", 2, times)
    sizes = [len(text.encode()) for text in TEXTS]
    train = [n for n in range(len(TEXTS)) if PARTS[n] == 0]
    again = [n for n in train if n % 5 == 1]
    assert Split.load(tmp_path / "made" / "train").sizes.tolist() == [sizes[n] for n in train + again * 2]
    assert len(Split.load(tmp_path / "made" / "valid")) == (PARTS == 1).sum()


def test_a_process_that_fails_is_an_error_and_leaves_none(tmp_path: Path, spooled: Spool, encoder: Encoder) -> None:
    with pytest.raises(LadderError, match=r"a process that tokenises failed: .*not callable"):
        encode_spool(spooled, PARTS, replace(encoder, backend=5), NUMBERS, tmp_path / "made", 2)
    assert _workers_of(os.getpid()) == []


@pytest.mark.processes
def test_no_process_outlives_the_one_that_started_it() -> None:
    code = (
        "import time; from tasks.data.encode import _Worker; from models.data.encoder import Encoder; "
        "made = _Worker(Encoder('uint16')); print(made._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    until = time.monotonic() + 20
    while Path(f"/proc/{worker}/cmdline").is_file() and b"encode_worker" in Path(f"/proc/{worker}/cmdline").read_bytes():
        assert time.monotonic() < until, "it goes on"
        time.sleep(0.05)


def _workers_of(parent: int) -> list[str]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [child for child in found if b"encode_worker" in Path(f"/proc/{child}/cmdline").read_bytes()]
