"""Folders of sentence-transformers: read, written, and refused where a module is not known."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from conf.errors import UserError
from models.architectures.checkpoint import load_model, save_model
from models.architectures.folder_checks import check_folder
from models.base.files import weights_sha256
from models.data import tokenizers
from models.embeddings.encoder import SentenceEncoder
from models.embeddings.pooling import MODES, Pooling, pooled, set_pooling
from models.embeddings.sentence_folder import copy_modules, limit_length, model_sha256, module_files, read_pooling

TEXTS = ["a dog runs", "the market fell sharply today", "x"]
LENGTH = 24


def encoder(**pooling: Any) -> SentenceEncoder:
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=tokenizers.BYTES_VOCABULARY
    )
    set_pooling(config, Pooling(**pooling))
    torch.manual_seed(0)
    return SentenceEncoder(config).eval()


def published(model: SentenceEncoder, folder: Path) -> Path:
    tokenizers.save(tokenizers.append_end(tokenizers.bytes_tokenizer()), folder / "tokenizer")
    save_model(model, folder / "model", folder / "tokenizer")
    limit_length(folder / "model", LENGTH)
    return folder / "model"


def answers(model: Any, folder: Path) -> torch.Tensor:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        return model(batch["input_ids"], batch["attention_mask"]).logits


PROJECTED = [
    *({"mode": mode} for mode in MODES),
    {"size": 6, "normalize": False},
    {"size": 16, "dense": True, "bias": True, "activation": "tanh"},
]


@pytest.mark.parametrize("pooling", PROJECTED, ids=str)
def test_a_written_folder_gives_the_same_embeddings(pooling: dict[str, Any], tmp_path: Path) -> None:
    model = encoder(**pooling)
    folder = published(model, tmp_path)
    check_folder(folder, "teacher.path")
    again: Any = load_model(folder, "embedding").eval()
    assert torch.equal(answers(again, folder), answers(model, folder))
    assert "sentence_embedding" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    plain = transformers.AutoModel.from_pretrained(folder)
    assert torch.equal(plain.embeddings.word_embeddings.weight, model.body.embeddings.word_embeddings.weight)  # pyright: ignore


@pytest.mark.parametrize("pooling", PROJECTED, ids=str)
def test_sentence_transformers_gives_the_same_embeddings(pooling: dict[str, Any], tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = published(encoder(**pooling), tmp_path)
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    ours: Any = load_model(folder, "embedding").eval()
    assert theirs.max_seq_length == LENGTH
    assert torch.allclose(torch.from_numpy(theirs.encode(TEXTS)), answers(ours, folder), atol=1e-5, rtol=0)


def test_the_projection_is_part_of_the_hash_and_of_a_copy(tmp_path: Path) -> None:
    folder = published(encoder(size=6), tmp_path)
    before = weights_sha256(folder)
    (tmp_path / "copy").mkdir()
    copy_modules(folder, tmp_path / "copy")
    assert {path.relative_to(tmp_path / "copy") for path in module_files(tmp_path / "copy")} == {
        path.relative_to(folder) for path in module_files(folder)
    }
    assert Path("2_Dense/model.safetensors") in {path.relative_to(folder) for path in module_files(folder)}
    dense = folder / "2_Dense" / "model.safetensors"
    dense.write_bytes(dense.read_bytes()[:-1] + b"\1")
    assert weights_sha256(folder) != before


def test_the_pooling_is_part_of_the_hash_of_the_model(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [{}, {"mode": "cls"}, {"normalize": False}]
    hashes = {model_sha256(published(encoder(**way), tmp_path / str(number))) for number, way in enumerate(ways)}
    assert len(hashes) == 3
    assert len({weights_sha256(tmp_path / str(n) / "model") for n in range(3)}) == 1


def test_positions_beside_the_text_do_not_count() -> None:
    states = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    left, right = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[1, 1, 1, 0, 0]])
    for mode in MODES:
        inside = pooled(states[:1, 2:], torch.ones(1, 3, dtype=torch.int64), mode)
        assert torch.allclose(pooled(states[:1], left, mode), inside)
        moved = torch.cat([states[:1, 2:], states[:1, :2]], dim=1)
        assert torch.allclose(pooled(moved, right, mode), inside)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("modules.json", "[", "a list of modules"),
        ("modules.json", [{"path": "", "type": "x.Transformer"}, {"path": "../1", "type": "x.Pooling"}], "folders such as 1_Pooling"),
        ("modules.json", [{"path": "", "type": "x.Transformer"}, {"path": "1_LSTM", "type": "x.LSTM"}], "with LSTM"),
        ("modules.json", [{"path": "", "type": "x.Transformer"}], "a folder with a module of pooling"),
        (
            "modules.json",
            [{"path": path, "type": f"x.{path[2:] or 'Transformer'}"} for path in ("", "1_Pooling", "3_Normalize", "2_Dense")],
            "a Transformer, Pooling, at most one Dense and Normalize, in this order",
        ),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "mean and max"),
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "one mode of pooling of mean, cls"),
        ("2_Dense/config.json", {"out_features": 6, "activation_function": "torch.nn.modules.activation.GELU"}, "Identity or Tanh"),
    ],
)
def test_modules_that_are_not_known_are_refused(file: str, content: Any, words: str, tmp_path: Path) -> None:
    folder = published(encoder(size=6), tmp_path)
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=words):
        read_pooling(folder)


def test_a_plain_encoder_takes_the_normalised_mean(tmp_path: Path) -> None:
    encoder().body.save_pretrained(tmp_path)  # pyright: ignore
    assert read_pooling(tmp_path) == Pooling("mean", None, normalize=True)
