import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from conf.errors import UserError
from models.architectures.checkpoint import check_interface, load_model, save_model
from models.architectures.folder_checks import check_folder
from models.base.files import weight_files, weights_sha256
from models.base.interface import Interface
from models.data import tokenizers
from models.data.corpus import Corpus

Make = Callable[..., nn.Module]


@pytest.fixture
def saved(prose: Corpus, model_for: Make, tmp_path: Path) -> Path:
    """A published causal LM with its tokenizer."""
    tokenizers.save(tokenizers.bytes_tokenizer(), tmp_path / "tokenizer")
    save_model(model_for(prose, layers=2), tmp_path / "model", tmp_path / "tokenizer")
    return tmp_path / "model"


def refused(folder: Path, workload: str = "causal-lm") -> str:
    with pytest.raises(UserError) as caught:
        load_model(folder, workload)
    message = str(caught.value)
    assert message.startswith("teacher.path: got ")
    assert caught.value.exit_code == 2
    return message


@pytest.mark.parametrize("name", ["prose", "sentences", "images"])
def test_a_saved_model_is_loaded_with_the_same_bits(name: str, request: pytest.FixtureRequest, model_for: Make, tmp_path: Path) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    model = model_for(corpus)
    save_model(model, tmp_path / "one", None)
    loaded = load_model(tmp_path / "one", corpus.info.workload)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    save_model(loaded, tmp_path / "two", None)
    assert weights_sha256(tmp_path / "one") == weights_sha256(tmp_path / "two")
    save_model(model_for(corpus, seed=1), tmp_path / "other", None)
    assert weights_sha256(tmp_path / "one") != weights_sha256(tmp_path / "other")


def test_a_published_folder_holds_weights_settings_tokenizer_and_nothing_else(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {path.suffix for path in saved.iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert load_file(saved / "model.safetensors").keys() == AutoModelForCausalLM.from_pretrained(saved).state_dict().keys() - {
        "lm_head.weight"
    }


def test_a_published_student_generates_in_plain_transformers(saved: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved)
    model: Any = AutoModelForCausalLM.from_pretrained(saved)
    assert model.config.use_cache
    assert model.generation_config.use_cache
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (256, 257)
    inputs = tokenizer("the quick", return_tensors="pt")
    ids = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=6, do_sample=False)
    assert ids[0, :9].tolist() == list(b"the quick")
    again = ids[:, :9]
    while again.shape[1] < ids.shape[1]:
        with torch.no_grad():
            again = torch.cat([again, model(input_ids=again).logits[:, -1:].argmax(-1)], dim=1)
    assert again.tolist() == ids.tolist()


def test_a_published_classifier_answers_in_plain_transformers(sentences: Corpus, model_for: Make, tmp_path: Path) -> None:
    model = model_for(sentences).eval()
    save_model(model, tmp_path / "model", None)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    # Weights mapped from a file start at an odd address, for which some processors' kernels sum in another order (seen on AVX2, 6e-8).
    for parameter in plain.parameters():
        parameter.data = parameter.data.clone()
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_loaded_teacher_fills_no_cache(saved: Path) -> None:
    with torch.no_grad():
        assert load_model(saved, "causal-lm")(input_ids=torch.arange(5)[None]).past_key_values is None


def test_a_loaded_model_computes_attention_by_pytorchs_kernels(saved: Path) -> None:
    model: Any = load_model(saved, "causal-lm")
    assert model.config._attn_implementation == "sdpa"


def test_saving_does_not_change_how_the_model_trains(prose: Corpus, model_for: Make, tmp_path: Path) -> None:
    model: Any = model_for(prose)
    save_model(model, tmp_path / "model", None)
    assert model.config.use_cache is False


def test_a_checkpoint_of_another_precision_is_loaded_in_the_given_dtype(saved: Path, tmp_path: Path) -> None:
    half = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    assert {p.dtype for p in load_model(tmp_path / "half", "causal-lm").parameters()} == {torch.float32}
    assert {p.dtype for p in load_model(tmp_path / "half", "causal-lm", dtype=None).parameters()} == {torch.bfloat16}


def test_the_hash_of_shards_depends_on_every_shard(saved: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(saved)
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    files = weight_files(tmp_path / "shards")
    assert len(files) > 1
    whole = weights_sha256(tmp_path / "shards")
    loaded = load_model(tmp_path / "shards", "causal-lm")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    content = bytearray(files[-1].read_bytes())
    content[-1] ^= 1
    files[-1].write_bytes(content)
    assert weights_sha256(tmp_path / "shards") != whole


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "an existing Hugging Face folder. Check the path." in refused(tmp_path / "nowhere")


def test_a_folder_without_configuration_is_refused_and_its_files_are_named(saved: Path) -> None:
    (saved / "config.json").unlink()
    message = refused(saved)
    assert "a folder with config.json" in message
    assert "model.safetensors" in message


def test_a_broken_configuration_is_refused(saved: Path) -> None:
    (saved / "config.json").write_text("{")
    assert "valid JSON" in refused(saved)


def test_pickled_weights_are_refused_and_never_read(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert "It holds no weights" in refused(saved)
    (saved / "pytorch_model.bin").write_bytes(b"not even a pickle")
    message = refused(saved)
    assert "only pickled weights (pytorch_model.bin), which can run code" in message
    assert "save_pretrained" in message


@pytest.mark.parametrize("damage", ["cut", "emptied", "garbled"])
def test_a_corrupt_safetensors_file_is_refused_by_name(saved: Path, damage: str) -> None:
    path = saved / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "emptied": b"", "garbled": b"\xff" * 64 + content[64:]}[damage])
    message = refused(saved)
    assert str(path) in message
    assert "This one is damaged" in message


def test_a_corrupt_shard_is_refused_before_anything_is_loaded(saved: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(saved).save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    last = weight_files(tmp_path / "shards")[-1]
    last.write_bytes(last.read_bytes()[:-4])
    with pytest.raises(UserError, match=last.name):
        check_folder(tmp_path / "shards", "teacher.path")


def test_a_missing_shard_is_refused(saved: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(saved).save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    weight_files(tmp_path / "shards")[0].unlink()
    assert "that points to model-00001-of-00004.safetensors'; allowed: files that are there" in refused(tmp_path / "shards")


@pytest.mark.parametrize("workload", ["sequence-classification", "image-classification"])
def test_a_model_of_another_workload_is_refused(saved: Path, workload: str) -> None:
    assert str(saved) in refused(saved, workload)


def test_a_classifier_is_no_language_model(sentences: Corpus, model_for: Make, tmp_path: Path) -> None:
    save_model(model_for(sentences, family="llama"), tmp_path / "llama", None)
    assert "a checkpoint trained for causal-lm. It lacks weights that the model needs, such as 'lm_head.weight'" in refused(
        tmp_path / "llama"
    )


def test_weights_of_another_shape_than_the_configuration_are_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    assert "transformers said" in refused(saved)


def test_an_unknown_architecture_is_refused_and_its_code_is_not_run(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    ours = {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Config", "AutoModelForCausalLM": "strange.Model"}}
    (saved / "config.json").write_text(json.dumps(config | ours))
    (saved / "strange.py").write_text(f"open({str(saved / 'ran')!r}, 'w')")
    assert "the configuration of a model that transformers knows" in refused(saved)
    assert not (saved / "ran").exists()


def test_a_teacher_with_too_few_ids_or_other_classes_is_refused(
    prose: Corpus, sentences: Corpus, images: Corpus, model_for: Make, interface: Callable[[Corpus], Interface]
) -> None:
    import dataclasses

    folder = Path("teachers/big")
    for corpus in (prose, sentences, images):
        check_interface(model_for(corpus), interface(corpus), folder)
    wanted = dataclasses.replace(interface(prose), vocabulary=300)
    with pytest.raises(UserError, match=r"teachers/big with 258 ids'; allowed: at least the 300 ids .* tokenizer\.kind=teacher"):
        check_interface(model_for(prose), wanted, folder)
    check_interface(model_for(prose), dataclasses.replace(wanted, vocabulary=200), folder)  # padded: the surplus is cut
    for corpus, classes in ((sentences, 2), (images, 3)):
        with pytest.raises(UserError, match=rf"with {classes} classes'; allowed: 7 classes, as the data have"):
            check_interface(model_for(corpus), dataclasses.replace(interface(corpus), classes=7), folder)
    with pytest.raises(UserError, match="with 258 ids"):
        check_interface(model_for(sentences), dataclasses.replace(interface(sentences), vocabulary=300), folder)
