"""Models in a real MLflow: safe files, loading, reuse, registry, refusals."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from conf.errors import UserError
from conf.home import Home
from tasks.tracking.client import ui_command
from tasks.tracking.curves import CurveLogger
from tasks.tracking.registry import artifact_bytes, discard, folder_bytes
from tasks.tracking.tracker import Tracker, connect
from tasks.tracking.versions import create_version
from tests.factories import model_record
from tests.flows.old_home import restore

pytestmark = pytest.mark.processes

SAFE = {".safetensors", ".json", ".txt", ".jinja", ".yaml", ".py", ""}  # "": MLmodel, registered_model_meta


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def tracker(home: Home, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return connect(home)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0)
    ).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=3)
    BertForSequenceClassification(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


record_of = partial(model_record, metrics={"nll": 1.0})


def finish(tracker: Tracker, name: str, folder: Path, workload: str = "causal-lm") -> tuple[str, str]:
    parent = tracker.open_ladder(f"run-{name}", "models", "h", "", params={}, environment={})
    stage = tracker.open_stage(parent, name, f"fp-{name}", settings={})
    return stage.run_id, tracker.finish_stage(stage.run_id, record_of(name), workload=workload, folder=folder)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, yours = one.state_dict(), other.state_dict()
    return mine.keys() == yours.keys() and all(torch.equal(mine[key], yours[key]) for key in mine)


def test_the_artifact_is_safe_and_loads_in_plain_transformers(
    tracker: Tracker, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path.name for path in llama.iterdir())
    run_id, model_id = finish(tracker, "plain", llama)
    names = {"MLmodel", "config.json", "model.safetensors", "tokenizer.json", "input_example.json", "requirements.txt"}
    assert names <= {file.path for file in tracker.client.list_logged_model_artifacts(model_id)}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)  # where MLflow looks for a run's models, whatever the client's address
    assert {f"student/{name}" for name in names} <= {file.path for file in tracker.client.list_artifacts(run_id, "student")}

    folder = Path(tracker.client.download_artifacts(run_id, "student", str(tmp_path)))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= SAFE
    assert not [path for path in files if path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK")]  # pickle, zipped pickle
    original = AutoModelForCausalLM.from_pretrained(llama)
    assert same_weights(original, AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True))
    assert sorted(path.name for path in llama.iterdir()) == before  # the store's folder is not touched


def test_the_bytes_are_kept_once(tracker: Tracker, home: Home, llama: Path) -> None:
    kept = len(list(home.mlflow.rglob("*.safetensors")))
    finish(tracker, "once", llama)
    assert len(list(home.mlflow.rglob("*.safetensors"))) == kept + 1


def test_a_discarded_run_takes_its_model_along(tracker: Tracker, home: Home, llama: Path) -> None:
    run_id, _ = finish(tracker, "discarded", llama)
    run, artifacts = tracker.client.get_run(run_id), home.mlflow / "artifacts"
    before, size = folder_bytes(artifacts), artifact_bytes(tracker, run)
    assert size > (llama / "model.safetensors").stat().st_size
    discard(tracker, run)
    assert before - folder_bytes(artifacts) == size


def test_the_page_of_a_model_says_what_it_is_and_how_to_load_it(tracker: Tracker, llama: Path) -> None:
    parent = tracker.open_ladder("run-page", "models", "h", "", params={}, environment={"user": "ann"})
    stage = tracker.open_stage(parent, "page", "fp-page", settings={})
    record, facts = record_of("page"), {"license": "mit", "base_model": "someone/large"}
    model_id = tracker.finish_stage(stage.run_id, record, workload="causal-lm", folder=llama, facts=facts)
    tracker.describe_stage(stage.run_id, record, [])
    for expected in ("1", "2"):
        version = create_version(tracker, "page", stage.run_id, {}, "", "")
        assert version is not None
        assert version.version == expected
    model = tracker.client.get_logged_model(model_id)
    assert (model.name, model.params["stage"], model.tags["mlflow.user"]) == ("student", "page", "ann")
    assert (model.tags["ladder.license"], model.tags["ladder.base_model"]) == ("mit", "someone/large")
    assert f'mlflow.pyfunc.load_model("models:/{model_id}")' in model.tags["mlflow.note.content"]
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "page", "version": "1"}, {"name": "page", "version": "2"}]


def test_a_reused_stage_links_the_model_that_is_there(tracker: Tracker, home: Home, llama: Path) -> None:
    first, model_id = finish(tracker, "again", llama)
    kept = len(list(home.mlflow.rglob("*.safetensors")))
    parent = tracker.open_ladder("run-reuse", "models", "h", "", params={}, environment={})
    stage = tracker.open_stage(parent, "again", "fp-again", settings={}, reused_from="run-again")
    assert stage.run_id != first
    assert tracker.finish_stage(stage.run_id, record_of("again"), workload="causal-lm", folder=llama, original_run_id=first) == model_id
    run = tracker.client.get_run(stage.run_id)
    assert run.data.tags["ladder.reused_from"] == "run-again"
    assert run.data.tags["ladder.model"] == f"models:/{model_id}"
    assert run.data.metrics["valid/nll"] == 1.0
    assert [output.model_id for output in run.outputs.model_outputs] == [model_id]
    assert len(list(home.mlflow.rglob("*.safetensors"))) == kept
    assert tracker.resolve_model(f"runs:/{stage.run_id}/student") == tracker.resolve_model(f"runs:/{first}/student")

    below = tracker.open_stage(parent, "smaller", "fp-smaller", settings={}, teacher_run_ids=[stage.run_id])
    assert [one.model_id for one in tracker.client.get_run(below.run_id).inputs.model_inputs] == [model_id]


def test_reuse_of_a_run_that_this_record_lacks_keeps_the_bytes(tracker: Tracker, llama: Path) -> None:
    parent = tracker.open_ladder("run-elsewhere", "models", "h", "", params={}, environment={})
    stage = tracker.open_stage(parent, "s", "fp-elsewhere", settings={}, reused_from="run-gone")
    tracker.finish_stage(stage.run_id, record_of("s"), workload="causal-lm", folder=llama, original_run_id="0" * 32)
    assert (tracker.resolve_model(f"runs:/{stage.run_id}/student") / "model.safetensors").is_file()


def test_an_interrupted_upload_is_done_again(tracker: Tracker, llama: Path) -> None:
    parent = tracker.open_ladder("run-upload", "models", "h", "", params={}, environment={})
    stage = tracker.open_stage(parent, "cut", "fp-cut", settings={})
    experiment_id = tracker.experiment("models")
    older = tracker.client.create_logged_model(experiment_id, "cut", stage.run_id, {"ladder.source": f"runs:/{stage.run_id}/student"})
    begun = tracker.client.create_logged_model(experiment_id, "student", stage.run_id)
    tracker.client.log_model_artifact(begun.model_id, str(llama / "config.json"))
    model_id = tracker.finish_stage(stage.run_id, record_of("cut"), workload="causal-lm", folder=llama)
    found = tracker.client.search_logged_models([experiment_id], f"source_run_id = '{stage.run_id}'")
    assert [model.model_id for model in found] == [model_id] == [begun.model_id] != [older.model_id], "no bytes are left behind"
    assert (tracker.resolve_model(f"models:/{model_id}") / "model.safetensors").is_file()


def test_registered_versions_resolve(tracker: Tracker, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, model_id = finish(tracker, "registered", llama)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)  # MLflow's registry looks up `models:/` sources there
    location = tracker.client.get_logged_model(model_id).artifact_location
    tracker.client.create_registered_model("tiny")
    for source in (location, f"runs:/{run_id}/student", f"models:/{model_id}"):
        version = tracker.client.create_model_version("tiny", source=source, run_id=run_id)
        tracker.client.set_registered_model_alias("tiny", "champion", version.version)
        for uri in (f"models:/tiny/{version.version}", "models:/tiny@champion", f"models:/{model_id}", f"runs:/{run_id}/student"):
            folder = tracker.resolve_model(uri)
            assert json.loads((folder / "config.json").read_text())["hidden_size"] == 16


def test_models_that_version_0_3_recorded_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bytes are artifacts of the run, which the logged model's tag names."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    old = connect(Home(restore(tmp_path)))
    runs = old.client.search_runs([old.experiment("tiny")], "tags.`ladder.stage` = 'two' and attributes.status = 'FINISHED'")
    assert len(runs) == 2, "one of them reused the other's model"
    for run in runs:
        folder = old.resolve_model(f"runs:/{run.info.run_id}/student")
        assert folder.name == "student"
        assert (folder / "model.safetensors").is_file()
        assert folder == old.resolve_model(f"models:/{run.outputs.model_outputs[0].model_id}")


def test_a_folder_one_level_below_is_found(tracker: Tracker, llama: Path) -> None:
    run_id = tracker.open_ladder("run-below", "models", "h", "", params={}, environment={})
    tracker.client.log_artifacts(run_id, str(llama), "foreign/model")
    assert tracker.resolve_model(f"runs:/{run_id}/foreign").name == "model"
    with pytest.raises(UserError, match=r"config\.json"):
        tracker.resolve_model(f"runs:/{run_id}/")  # two levels: not guessed


@pytest.mark.parametrize(
    "uri",
    ["models:/nobody/1", "models:/nobody@champion", "models:/m-0123", "models:/", "runs:/", f"runs:/{'0' * 32}/student", "models:/a/b/c/d"],
)
def test_a_model_that_is_not_there_is_the_users_error(tracker: Tracker, uri: str) -> None:
    with pytest.raises(UserError, match=r"teacher\.path") as caught:
        tracker.resolve_model(uri)
    assert uri in str(caught.value)


def test_a_pickle_is_left_out(tracker: Tracker, llama: Path, tmp_path: Path) -> None:
    for path in llama.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x05.")
    run_id, _ = finish(tracker, "pickle", tmp_path)
    recorded = {path.name for path in tracker.resolve_model(f"runs:/{run_id}/student").iterdir()}
    assert {path.name for path in llama.iterdir()} <= recorded
    assert "pytorch_model.bin" not in recorded


@pytest.fixture
def server(tracker: Tracker, tmp_path: Path) -> Iterator[str]:
    """What `ui_command` tells a user to start, over the default store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        *shlex.split(ui_command(tracker.uri)),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with (tmp_path / "server.log").open("w") as log:
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes more
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, (tmp_path / "server.log").read_text()
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


@pytest.mark.slow
def test_a_configured_server_is_used_and_shows_the_default_store(
    tracker: Tracker, server: str, llama: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, local_model = finish(tracker, "local", llama)
    file = f"{server}/ajax-api/2.0/mlflow/logged-models/{local_model}/artifacts/files?artifact_file_path=config.json"
    with urllib.request.urlopen(file, timeout=30) as page:
        assert json.load(page)["hidden_size"] == 16

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    remote = connect(home)
    parent = remote.open_ladder("run-remote", "remote", "h", "name: remote", params={"a": 1}, environment={"python": "3"})
    stage = remote.open_stage(parent, "s", "fp-remote", settings={"b": 2})
    with CurveLogger("s", remote, lambda: stage) as curves:
        curves.add(1, {"train/loss": 1.0})
    model_id = remote.finish_stage(stage.run_id, record_of("s"), workload="causal-lm", folder=llama)
    assert remote.client.get_run(stage.run_id).info.artifact_uri.startswith("mlflow-artifacts:/")  # the server's own place
    assert remote.open_stage(parent, "s", "fp-remote", settings={}).last_steps["train/loss"] == 1
    folder = remote.resolve_model(f"models:/{model_id}")
    assert folder == remote.resolve_model(f"runs:/{stage.run_id}/student")
    assert same_weights(AutoModelForCausalLM.from_pretrained(llama), AutoModelForCausalLM.from_pretrained(folder))
    assert len(list((home.mlflow / "downloads").iterdir())) == 1
