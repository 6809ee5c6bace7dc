"""Bad input: one message, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.flows.driver import half_written

LM = """
name: letters
workload: causal-lm
data: {source: files, paths: ["texts/*.txt"], sequence_length: 32, valid_fraction: 0.2, test_fraction: 0.2}
evaluation: {examples: 8}
defaults: {training: {steps: 4, batch_size: 4, precision: fp32, validate_every: 4, checkpoint_every: 2}}
teacher:
  source: train
  shape: {hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}
  training: {steps: 4, batch_size: 4, precision: fp32, validate_every: 4, checkpoint_every: 2}
stages:
  - {name: one, student: {shape: {hidden_size: 16, layers: 1, heads: 2, feed_forward: 32}}}
"""
CLASSES = """
name: reviews
workload: sequence-classification
data: {source: files, paths: [reviews.csv], sequence_length: 32, valid_fraction: 0.2, test_fraction: 0.2}
evaluation: {examples: 8}
defaults: {training: {steps: 4, batch_size: 4, precision: fp32, validate_every: 4, checkpoint_every: 2}}
teacher:
  source: train
  shape: {family: bert, hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}
  training: {steps: 4, batch_size: 4, precision: fp32, validate_every: 4, checkpoint_every: 2}
stages:
  - {name: one, student: {shape: {family: bert, hidden_size: 16, layers: 1, heads: 2, feed_forward: 32}}}
"""


def ladder_file(folder: Path, text: str) -> Path:
    path = folder / "ladder.yaml"
    path.write_text(text)
    return path


def texts(folder: Path, content: str = "All work and no play makes Jack a dull boy. ", files: int = 12) -> None:
    (folder / "texts").mkdir()
    for index in range(files):
        (folder / "texts" / f"{index}.txt").write_text((content + f"{index} ") * 8 if content else "")


def refused(cli, *args, says: tuple[str, ...], code: int = 2) -> str:
    """The message with which a run is refused, after the checks that hold for each."""
    done = cli("run", *args, code=code)
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    for words in says:
        assert words in errors[0], f"{words!r} is not in: {done.err}"
    assert done.out == ""
    assert half_written(cli.home) == []
    return errors[0]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "stages.half.training.lerning_rate=1",
            ("stages[0].training.lerning_rate: unknown key", "Did you mean 'learning_rate'", "ladder explain"),
        ),
        ("stages.hafl.training.steps=1", ("'stages.hafl.training.steps'", "Did you mean 'half'", "half, quarter, eighth")),
        ("stages[7].training.steps=1", ("'stages[7].training.steps'", "stages[0] to stages[2]")),
        (
            "stages.half.training.steps=many",
            ("stages[0].training.steps: got 'many'", "a whole number in [1, 100000000]", "ladder explain"),
        ),
        ("stages.half.objective.temperature=-1", ("stages[0].objective.temperature: got -1", "a number in [0.01, 100]", "ladder explain")),
        ("stages.half.objective.alpha=1.5", ("stages[0].objective.alpha: got 1.5", "a number in [0, 1]", "ladder explain")),
        ("stages.half.name=quarter", ("stages[1].name: got 'quarter'", "a name that no other stage has", "choose another")),
        ("no-value", ("override: got 'no-value'; allowed: key=value",)),
    ],
)
def test_a_wrong_setting(bare, override, says):
    refused(bare, "digits", override, says=says)
    assert not bare.home.exists()


def test_a_stage_that_is_larger_than_its_teacher(bare):
    says = ("stages[1].student.shape: got 'quarter with ", "at most the ", "of its teacher, half", "Make the student smaller")
    refused(bare, "digits", "stages.quarter.student.shape.feed_forward=500", says=says)


def test_starting_at_an_unknown_stage(bare):
    says = ("--start-at: got 'quater'", "half, quarter, eighth", "Did you mean 'quarter'")
    refused(bare, "digits", "--start-at", "quater", says=says)


def test_an_unknown_ladder(bare):
    refused(
        bare, "digit", says=("ladder: got 'digit'", "digits, llama-1b, minilm, python-stdlib, sentiment, smollm2", "Did you mean 'digits'")
    )
    refused(bare, "nowhere/my.yaml", says=("ladder: got 'nowhere/my.yaml'", "path of a YAML file"))


def test_yaml_that_does_not_parse(bare, tmp_path):
    path = ladder_file(tmp_path, "name: [tiny\nstages: }")
    refused(bare, path, says=(f"ladder: got '{path}'", "a readable YAML file"))


def test_a_missing_data_file(cli, tmp_path):
    refused(cli, ladder_file(tmp_path, LM), says=("data.paths[0]: got 'texts/*.txt'", "a file, or a pattern that matches files"))


@pytest.mark.slow
def test_an_empty_dataset(cli, tmp_path):
    (tmp_path / "reviews.csv").write_text("text,label\n")
    refused(cli, ladder_file(tmp_path, CLASSES), says=("data: got 'files'", "a source with documents", "The source is empty"))


@pytest.mark.slow
def test_text_that_is_shorter_than_a_sequence(cli, tmp_path):
    texts(tmp_path, "a", files=3)
    says = ("data.sequence_length: got 3000", "shorten the sequences or add documents")
    refused(cli, ladder_file(tmp_path, LM), "data.sequence_length=3000", says=says)


@pytest.mark.slow
def test_labels_outside_the_range(cli, tmp_path):
    rows = "".join(f"text number {i},{i % 3}\n" for i in range(30))
    (tmp_path / "reviews.csv").write_text("text,label\n" + rows)
    refused(
        cli,
        ladder_file(tmp_path, CLASSES),
        "data.classes=2",
        says=("data.classes: got 2", "labels from 0 to 1", "bears the label '2'"),
    )


def llama(folder: Path, vocabulary: int, tokenizer: bool = False) -> Path:
    import torch
    import transformers

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=vocabulary, **shape)).save_pretrained(folder)
    if tokenizer:
        from models.data.tokenizers import BYTES_VOCABULARY, save, train_bpe

        other = train_bpe(["some words that are not bytes"] * 20, BYTES_VOCABULARY)
        save(other, folder)
    return folder


def checkpoint_ladder(folder: Path) -> Path:
    head, _, rest = LM.partition("teacher:\n")
    return ladder_file(folder, f"{head}teacher: {{source: checkpoint, path: teacher}}\nstages:{rest.partition('stages:')[2]}")


def test_a_teacher_whose_vocabulary_is_smaller(cli, tmp_path):
    texts(tmp_path)
    llama(tmp_path / "teacher", 200)
    refused(cli, checkpoint_ladder(tmp_path), says=("teacher.path: got", "with a vocabulary of 200 ids", "tokenizer.kind=teacher"))


@pytest.mark.slow
def test_a_teacher_whose_ids_mean_something_else(cli, tmp_path):
    texts(tmp_path)
    llama(tmp_path / "teacher", 300, tokenizer=True)
    refused(cli, checkpoint_ladder(tmp_path), says=("teacher.path: got", "vocabulary", "tokenizer.kind=teacher"))


def test_a_teacher_with_pickled_weights_only(cli, tmp_path):
    import torch

    texts(tmp_path)
    folder = llama(tmp_path / "teacher", 300)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    says = ("teacher.path: got", "weights as safetensors", "pytorch_model.bin", "save_pretrained")
    refused(cli, checkpoint_ladder(tmp_path), says=says)


def test_a_corrupt_safetensors_file(cli, tmp_path):
    texts(tmp_path)
    weights = llama(tmp_path / "teacher", 300) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    says = ("teacher.path: got", str(weights), "a whole safetensors file", "Fetch or save the checkpoint again")
    refused(cli, checkpoint_ladder(tmp_path), says=says)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.mark.parametrize(("variable", "path"), [("PREFECT_API_URL", "/api"), ("MLFLOW_TRACKING_URI", "")])
def test_a_server_that_does_not_answer(cli, tiny, variable, path):
    url = f"http://127.0.0.1:{closed_port()}{path}"
    cli.env[variable] = url
    done = cli("run", tiny, code=2)
    assert f"error: {variable}: got '{url}'" in done.err
    assert "unset it" in done.err
    assert done.seconds < 60  # imports and one attempt, on a machine that may be busy; retries would take minutes
    assert half_written(cli.home) == []
    assert not (cli.home / "runs").exists()


def test_nothing_answers_as_prefect(cli, tiny):
    given = cli.env["PREFECT_API_URL"]
    cli.env["PREFECT_API_URL"] = given + "/elsewhere"
    refused(cli, tiny, says=("PREFECT_API_URL: got", "such as http://127.0.0.1:4200/api"))

    cli.env["PREFECT_API_URL"] = given.replace("://", "://ann:s3cret@")
    said = refused(cli, tiny, says=("PREFECT_API_URL: got 'http://ann:***@127.0.0.1:", "Set PREFECT_API_AUTH_STRING"))
    assert "s3cret" not in said


def test_a_home_that_is_no_folder(bare, tiny, tmp_path):
    bare.home.write_text("a file")
    refused(bare, tiny, says=("LADDER_HOME", str(bare.home)), code=1)
