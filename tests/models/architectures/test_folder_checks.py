"""Folders that are no model, each refused with one message before anything is built."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from conf.errors import UserError
from models.architectures.checkpoint import check_finite, check_sizes, load_model, save_model, skeleton
from models.architectures.folder_checks import check_config, check_folder
from models.base.files import weight_files, weights_sha256
from models.data.corpus import Corpus

Make = Callable[..., nn.Module]


@pytest.fixture
def saved(prose: Corpus, model_for: Make, tmp_path: Path) -> Path:
    save_model(model_for(prose, layers=2), tmp_path / "model", None)
    return tmp_path / "model"


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        check_folder(folder, "teacher.path")
    return str(caught.value)


def change(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("num_hidden_layers", 0, "a whole number from 1 to 1,000"),
        ("num_hidden_layers", -2, "a whole number from 1 to 1,000"),
        ("num_hidden_layers", 10**9, "a whole number from 1 to 1,000"),
        ("hidden_size", 2**30, "at most 2,236,067, with 2 layers"),
        ("hidden_size", 2.5, "a whole number from 1 to"),
        ("vocab_size", "many", "a whole number from 1 to"),
        ("intermediate_size", True, "a whole number from 1 to"),
        ("num_key_value_heads", 3, "a divisor of num_attention_heads, which is 2"),
        ("attention_dropout", 1.5, "a share from 0 to 1"),
        ("rms_norm_eps", float("nan"), "a finite number"),
        ("rms_norm_eps", -1e-6, "0 or more"),
        ("pad_token_id", 258, "an id below vocab_size, which is 258"),
        ("id2label", ["a", "b"], "an object with the names of the classes 0, 1, ..."),
        ("id2label", {"0": "a", "2": "b"}, "an object with the names of the classes 0, 1, ..."),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(saved: Path, name: str, value: Any, allowed: str) -> None:
    change(saved, **{name: value})
    message = refused(saved)
    assert f"with {name} {value!r}" in message.replace("\\", "")
    assert allowed in message


def test_heads_that_do_not_divide(saved: Path) -> None:
    change(saved, num_attention_heads=3, num_key_value_heads=3, head_dim=None)
    assert "num_attention_heads 3'; allowed: a divisor of hidden_size, which is 16" in refused(saved)


def test_what_transformers_alone_can_refuse_has_its_words(saved: Path) -> None:
    change(saved, rope_parameters={"rope_type": "strange"})
    with pytest.raises(UserError, match="transformers said: "):
        skeleton(saved, "causal-lm")


def sharded(folder: Path, target: Path) -> Path:
    model: Any = load_model(folder, "causal-lm")
    model.save_pretrained(target, max_shard_size="8KB")
    return target / "model.safetensors.index.json"


@pytest.mark.parametrize("place", ["../model/model.safetensors", "/etc/passwd", "sub/part.safetensors", "..\\part.safetensors"])
def test_an_index_that_points_outside_its_folder(saved: Path, tmp_path: Path, place: str) -> None:
    index = sharded(saved, tmp_path / "shards")
    check_folder(index.parent, "teacher.path")
    content = json.loads(index.read_text())
    content["weight_map"][next(iter(content["weight_map"]))] = place
    index.write_text(json.dumps(content))
    assert "names of safetensors files in the same folder" in refused(index.parent)


def test_every_shard_is_in_the_identity(saved: Path, tmp_path: Path) -> None:
    folder = sharded(saved, tmp_path / "shards").parent
    shards, before = weight_files(folder), weights_sha256(folder)
    assert len(shards) > 2
    for shard in shards:
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert weights_sha256(folder) != before, shard.name
        shard.write_bytes(content)
    assert weights_sha256(folder) == before


@pytest.mark.parametrize("name", ["vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja", "generation_config.json"])
def test_no_file_that_is_copied_is_a_link_to_elsewhere(saved: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (saved / name).unlink(missing_ok=True)
    (saved / name).symlink_to(tmp_path / "secret")
    assert f"{name}, a link to {tmp_path / 'secret'}" in refused(saved)


def test_an_adapter_that_names_its_base_model_is_refused(saved: Path) -> None:
    (saved / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    assert "allowed: a whole model, without an adapter" in refused(saved)


def test_code_in_a_folder_is_never_run(saved: Path, tmp_path: Path) -> None:
    (saved / "modeling_own.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    change(saved, auto_map={"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "modeling_own.Own"})
    load_model(saved, "causal-lm")
    change(saved, model_type="own")
    with pytest.raises(UserError, match="transformers said: "):
        load_model(saved, "causal-lm")
    assert not (tmp_path / "trace").exists()


def test_a_link_out_of_the_folder_but_for_the_hubs_cache(saved: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / "abc"
    blob.parent.mkdir()
    (saved / "model.safetensors").rename(blob)
    (saved / "model.safetensors").symlink_to(blob)
    assert "a link to" in refused(saved)
    snapshot = tmp_path / "snapshots" / "1234"
    snapshot.parent.mkdir()
    saved.rename(snapshot)
    (snapshot / "model.safetensors").unlink()
    os.symlink("../../blobs/abc", snapshot / "model.safetensors")
    check_folder(snapshot, "teacher.path")


def renamed(folder: Path, prefix: str) -> None:
    file = folder / "model.safetensors"
    save_file({prefix + name: tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


@pytest.mark.parametrize(("prefix", "wrapper"), [("_orig_mod.", "torch.compile"), ("module.", "DistributedDataParallel")])
def test_weights_of_a_wrapper(saved: Path, prefix: str, wrapper: str) -> None:
    renamed(saved, prefix)
    message = refused(saved)
    assert f"weights saved without {wrapper}" in message
    assert "save_pretrained(folder)" in message


def test_a_wrapper_inside_the_model_is_named(saved: Path) -> None:
    file = saved / "model.safetensors"
    save_file({name.replace("layers.1.", "layers.1._orig_mod."): each for name, each in load_file(file).items()}, file)
    message = refused(saved)
    assert "weights are named model.layers.1._orig_mod." in message
    assert "weights saved without torch.compile" in message


def test_parts_that_are_missing_unlisted_or_exchanged(saved: Path, tmp_path: Path) -> None:
    index = sharded(saved, tmp_path / "shards")
    content = json.loads(index.read_text())
    name, file = next(iter(content["weight_map"].items()))
    other = next(each for each in content["weight_map"].values() if each != file)
    index.write_text(json.dumps({"weight_map": {**content["weight_map"], name: other}}))
    assert f"looks for {name} in {other}'; allowed: an index of its files: it is in {file}" in refused(index.parent)
    index.write_text(json.dumps(content))
    (index.parent / file).rename(index.parent / "aside")
    assert f"points to {file}'; allowed: files that are there" in refused(index.parent)
    (index.parent / "aside").rename(index.parent / file)
    index.unlink()
    assert "a folder with model.safetensors, or with model.safetensors.index.json beside its parts" in refused(index.parent)


def test_tensors_of_other_sizes_than_the_configuration_says(saved: Path) -> None:
    check_sizes(saved, skeleton(saved, "causal-lm"))
    change(saved, intermediate_size=24)
    with pytest.raises(
        UserError, match=r"whose tensor model\.layers\.\d\.mlp\.\w+\.weight is \d+ x \d+'; allowed: .*24.*, as its config\.json"
    ):
        check_sizes(saved, skeleton(saved, "causal-lm"))


def test_weights_of_an_unknown_wrapper_are_named(saved: Path) -> None:
    renamed(saved, "student.")
    with pytest.raises(UserError, match=r"It has 'student\..*' in its place: save the inner model without its wrapper"):
        load_model(saved, "causal-lm")


@pytest.mark.parametrize(("text", "dtype"), [("nan", torch.float16), ("inf", torch.float32), ("-inf", torch.bfloat16)])
def test_a_number_that_is_not_finite_is_found_in_its_tensor(saved: Path, text: str, dtype: torch.dtype) -> None:
    check_finite(saved)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(saved / "model.safetensors").items()}
    tensors["model.layers.1.mlp.down_proj.weight"][3, 1] = float(text)
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"tensor model\.layers\.1\.mlp\.down_proj\.weight holds 1 of 512 numbers that are NaN or infinite"):
        check_finite(saved)


@pytest.mark.parametrize("text", ["[" * 50_000 + "]" * 50_000, '{"a":' * 50_000 + "1" + "}" * 50_000])
def test_a_configuration_that_nests_too_deep(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"^teacher\.path: got '.*config\.json'; allowed: valid JSON\. It does not parse: it nests"):
        check_config(tmp_path / "config.json", "teacher.path")
