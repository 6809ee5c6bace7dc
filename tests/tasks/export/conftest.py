"""A run with one untrained student of two classes of texts, and its data, in a home of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from conf.home import Home
from conf.loading.load import load_whole
from conf.loading.yaml_output import to_yaml
from conf.schema.ladder import Ladder
from conf.schema.stage.student import Shape
from models.architectures.checkpoint import save_model
from models.architectures.shapes import build, config_for
from models.base.files import weights_sha256
from models.base.interface import Interface
from models.data.corpus import Corpus
from models.data.tokenizers import append_end, bytes_tokenizer, save
from tasks.records.run import RunRecord, StageRecord
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.runs.run_registry import save as save_run
from tasks.store.fingerprint import fingerprint
from tasks.store.store import Store
from tests.factories import corpus_in, data_record, model_record, run_record, split_of

LEFT_BEHIND = ("record.json", "curve.json", "kept_ids.json", "optimizer.pt")  # of a student's folder, which nothing exports


class Made(NamedTuple):
    """A run with its ladder and its home."""

    home: Home
    record: RunRecord
    ladder: Ladder
    context: Context

    @property
    def student(self) -> StageRecord:
        """Its only student."""
        return self.record.stages[-1]


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Built once; tests that change it take a copy."""
    return make_texts(Home(tmp_path_factory.mktemp("export") / "home"))


def make_texts(home: Home) -> Made:
    words = [f"{'good' if number % 2 else 'bad'} {'day' * (number % 5)}" for number in range(40)]
    ids = [[*word.encode(), 256] for word in words]
    split = split_of(ids, [number % 2 for number in range(40)], [0] * 40, list(map(len, words)))
    corpus = corpus_in(home.root / "data", "sequence-classification", 24, dict.fromkeys(("train", "valid", "test"), split), classes=2)
    tokenizer = append_end(bytes_tokenizer())
    save(tokenizer, corpus.folder / "tokenizer")
    shape = Shape.model_validate({"family": "bert", "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32})
    torch.manual_seed(0)
    network = build(config_for(shape, Interface("sequence-classification", 24, 258, 256, 257, 2)), "sequence-classification")
    return made_run(home, "sequence-classification", network, corpus, "bert")


def made_run(home: Home, workload: str, network: torch.nn.Module, corpus: Corpus, family: str) -> Made:
    """A run whose student is a model in the store."""
    shape = {"family": family, "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32}
    source = {"causal-lm": {"source": "python-stdlib"}, "image-classification": {"source": "digits"}}.get(
        workload, {"source": "files", "paths": ["x.csv"]}
    )
    plain = {
        "name": "tiny",
        "workload": workload,
        "data": source,
        "teacher": {"source": "train", "shape": shape, "training": {"steps": 1}},
        "stages": [{"name": "one", "student": {"shape": shape}, "training": {"steps": 1}}],
        "compute": {"threads": 1, "at_once": None},
        "bench": {"repeats": 3, "prompt_tokens": 6, "new_tokens": 3},
    }
    ladder = load_whole(Ladder.model_validate(plain), ()).ladder
    identity = {"kind": "stage", "name": "one"}

    def write(folder: Path) -> None:
        save_model(network, folder, corpus.tokenizer_folder)
        for name in LEFT_BEHIND:
            (folder / name).write_text("[]" if name == "kept_ids.json" else json.dumps({"secret": "of the training"}))
        (folder / "kept_ids.json").unlink()
        (folder / "README.md").write_text("# one of tiny\n")

    found = Store(home).publish("stage", "one", identity, fingerprint(identity), {"run": "made", "ladder": "tiny"}, write)
    student = model_record("one", folder=str(found.folder), fingerprint=fingerprint(identity), weights_sha256=weights_sha256(found.folder))
    data = data_record(folder=str(corpus.folder), content_hash=corpus.content_hash)
    more = {"folder": str(home.runs / "made"), "workload": workload, "data": data}
    record = run_record("made", model_record("teacher"), student, **more)
    save_run(home, record)
    (home.runs / "made" / "ladder.yaml").write_text(to_yaml(ladder))
    return Made(home, record, ladder, Context(run="made", ladder="tiny", home=str(home.root), base=str(home.root)))


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
