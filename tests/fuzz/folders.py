"""Model folders with one thing wrong, and the trial that shows whether it is said in one message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from conf.home import Home
from conf.schema.ladder import Ladder
from conf.schema.teacher import CheckpointTeacher
from models.data import tokenizers
from tasks.data.prepare import prepare_data
from tasks.planning.plan import make_plan
from tasks.runtime.runs.run_registry import Context
from tasks.runtime.stage_inputs import StageInputs
from tasks.teachers.import_checkpoint import import_checkpoint

WORDS = "the quick brown fox jumps over the lazy dog while the hounds look on and nobody says a word about it"
WORKLOADS = {"llama": "causal-lm", "gpt2": "causal-lm", "bert": "sequence-classification", "vit": "image-classification"}
# In place of a whole JSON file.
CONTENTS = {
    "null": b"null",
    "a list": b'["x", 1]',
    "a text": b'"text"',
    "a number": b"3",
    "an empty object": b"{}",
    "nothing": b"",
    "half": None,
    "bytes": b"\xff\xfe\x00\x80",
    "UTF-16": '{"model_type": "bert"}'.encode("utf-16"),
    "deep nesting": b"[" * 50_000 + b"]" * 50_000,
    "a long integer": b'{"vocab_size": ' + b"9" * 5_000 + b"}",
    "a lone surrogate": rb'{"model_type": "\ud800"}',
}
VALUES: tuple[Any, ...] = (None, "", -1, 0, 10**12, "x", [], {}, True, 2.5, float("nan"), [None], {"a": {}})  # in place of one value


class Mutation(NamedTuple):
    """One change of a model folder."""

    name: str
    change: Callable[[Path], object]


def make_folder(kind: str, folder: Path) -> Path:
    """A tiny model with its tokenizer or image processor, and beside it, in the same folder, data that it fits."""
    import transformers

    torch.manual_seed(0)
    common: dict[str, Any] = {"num_labels": 2, "id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    tokenizer = tokenizers.train_bpe([WORDS], 300)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    model: Any
    match kind:
        case "llama":
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **ids))
        case "gpt2":
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, **ids))
        case "bert":
            model = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes, **ids, **common))
        case _:
            model = transformers.ViTForImageClassification(transformers.ViTConfig(image_size=8, patch_size=4, **sizes, **common))
            transformers.ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder / "teacher")
    model.save_pretrained(folder / "teacher")
    if kind != "vit":
        tokenizers.save(tokenizer, folder / "teacher")
    _write_data(kind, folder)
    return folder / "teacher"


def _write_data(kind: str, folder: Path) -> None:
    words = WORDS.split()
    texts = [" ".join(words[i % 7 :] + words[: i % 5]) + f" {i}" for i in range(40)]
    if kind == "vit":
        from PIL import Image

        for index in range(24):
            place = folder / "data" / ("no", "yes")[index % 2] / f"{index}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), index * 10, dtype=np.uint8)).save(place)
    elif kind == "bert":
        rows = "".join(f"{text},{('no', 'yes')[i % 2]}\n" for i, text in enumerate(texts))
        (folder / "data.csv").write_text("text,label\n" + rows, encoding="utf-8")
    else:
        (folder / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def ladder_for(kind: str, **changes: Any) -> Ladder:
    """A ladder whose teacher is the folder `teacher`, with one student of its own architecture."""
    paths = {"vit": "data/**/*.png", "bert": "data.csv"}.get(kind, "data.jsonl")
    small: dict[str, Any] = {"family": kind, "hidden_size": 16, "layers": 1, "heads": 2, "feed_forward": 32, "patch_size": 4}
    student = {"shape": small} if kind in ("bert", "vit") else {"parameters": 12_000}
    training = {"steps": 2, "batch_size": 2, "precision": "fp32", "validate_every": 2, "checkpoint_every": 2}
    return Ladder.model_validate(
        {
            "name": "fuzz",
            "workload": WORKLOADS[kind],
            "data": {"source": "files", "paths": [paths], "sequence_length": 16, "valid_fraction": 0.2, "test_fraction": 0.2},
            "tokenizer": {"kind": "teacher"},
            "teacher": {"source": "checkpoint", "path": "teacher"},
            "evaluation": {"examples": 4},
            "stages": [{"name": "small", "student": student, "training": training}],
            **changes,
        }
    )


def trial(ladder: Ladder, base: Path, home: Path) -> None:
    """What `ladder plan`, and then `ladder run` up to its first training, do with a teacher's folder.

    Raises:
        UserError: The folder or the data were refused.
    """
    assert isinstance(ladder.teacher, CheckpointTeacher)
    make_plan(ladder, base, Home(home))
    context = Context(run="run-1", ladder="fuzz", home=str(home), base=str(base))
    data = prepare_data(ladder, context)
    import_checkpoint(ladder.teacher, StageInputs(ladder, data, context))


def mutations(folder: Path) -> Iterator[Mutation]:
    """Every mutation of this folder."""
    for path in sorted(folder.glob("*.json")):
        for word, content in CONTENTS.items():
            yield Mutation(f"{path.name} holds {word}", _content(path.name, content))
        yield Mutation(f"{path.name} is missing", lambda f, name=path.name: (f / name).unlink())
        yield Mutation(f"{path.name} is a folder", lambda f, name=path.name: ((f / name).unlink(), (f / name).mkdir()))
        yield Mutation(f"{path.name} is a link to nowhere", _link(path.name))
        for key in json.loads(path.read_text(encoding="utf-8")):
            for value in VALUES:
                yield Mutation(f"{path.name}: {key} = {value!r}", _setting(path.name, key, value))
            yield Mutation(f"{path.name}: no {key}", _setting(path.name, key))
    yield from _added_settings()
    yield from _weights()
    yield from _shards()


def _added_settings() -> Iterator[Mutation]:
    for method in ("gptq", "awq", "bitsandbytes", "fp8", "nonsense", None, 3):
        yield Mutation(f"quantised by {method!r}", _setting("config.json", "quantization_config", {"quant_method": method, "bits": 4}))
    for value in VALUES:
        yield Mutation(f"quantization_config {value!r}", _setting("config.json", "quantization_config", value))
        yield Mutation(f"auto_map {value!r}", _setting("config.json", "auto_map", value))
    yield Mutation("rope_scaling 3", _setting("config.json", "rope_scaling", 3))
    yield Mutation("rope_parameters []", _setting("config.json", "rope_parameters", []))
    yield Mutation("code of its own", _setting("config.json", "auto_map", {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}))


def _content(name: str, content: bytes | None) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)

    return change


def _link(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(folder / "nowhere")

    return change


def _setting(name: str, key: str, *value: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        settings.pop(key, None)
        if value:
            settings[key] = value[0]
        (folder / name).write_text(json.dumps(settings), encoding="utf-8")

    return change


def _weights() -> Iterator[Mutation]:
    file = "model.safetensors"

    def bytes_by(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
        return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))

    def tensors_by(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
        def write(folder: Path) -> None:
            save_file(change(load_file(folder / file)), folder / file, metadata={"format": "pt"})

        return write

    yield Mutation("weights of no bytes", bytes_by(lambda content: b""))
    yield Mutation("weights cut at the end", bytes_by(lambda content: content[:-50]))
    yield Mutation("weights cut in the header", bytes_by(lambda content: content[:40]))
    yield Mutation("weights with a header of 2**60 bytes", bytes_by(lambda content: (2**60).to_bytes(8, "little") + content[8:]))
    yield Mutation("weights that are noise", bytes_by(lambda content: np.random.default_rng(0).bytes(len(content))))
    yield Mutation("weights with bytes at the end", bytes_by(lambda content: content + b"more"))
    yield Mutation("weights that are a folder", lambda f: ((f / file).unlink(), (f / file).mkdir()))
    yield Mutation("no weights", lambda f: (f / file).unlink())
    yield Mutation("pickled weights", lambda f: (f / file).rename(f / "pytorch_model.bin"))
    yield Mutation("no tensors", tensors_by(lambda tensors: {}))
    yield Mutation("half the tensors", tensors_by(lambda tensors: dict(list(tensors.items())[::2])))
    yield Mutation("tensors of other names", tensors_by(lambda tensors: {f"x.{name}": t for name, t in tensors.items()}))
    yield Mutation("tensors with a row less", tensors_by(lambda tensors: {name: t[:-1].contiguous() for name, t in tensors.items()}))
    yield Mutation("tensors of one dimension", tensors_by(lambda tensors: {name: t.flatten() for name, t in tensors.items()}))
    yield Mutation("tensors of no dimension", tensors_by(lambda tensors: {name: t.sum() for name, t in tensors.items()}))
    yield Mutation("empty tensors", tensors_by(lambda tensors: {name: t[:0] for name, t in tensors.items()}))
    yield Mutation("nan", tensors_by(lambda tensors: {name: t * torch.nan for name, t in tensors.items()}))
    for dtype in (torch.int64, torch.int8, torch.bool, torch.float64, torch.complex64, torch.float8_e4m3fn, torch.uint8):
        yield Mutation(f"tensors of {dtype}", tensors_by(lambda tensors, to=dtype: {name: t.to(to) for name, t in tensors.items()}))


def _shards() -> Iterator[Mutation]:
    index = "model.safetensors.index.json"

    def split(folder: Path) -> dict[str, str]:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(tensors)
        places = {name: f"model-{1 + (i >= len(names) // 2)}-of-2.safetensors" for i, name in enumerate(names)}
        for file in set(places.values()):
            save_file({n: t for n, t in tensors.items() if places[n] == file}, folder / file, metadata={"format": "pt"})
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
        return places

    yield Mutation("a shard less", lambda f: (split(f), (f / "model-2-of-2.safetensors").unlink()))
    yield Mutation("an index of nothing", lambda f: (split(f), (f / index).write_text('{"weight_map": {}}')))
    yield Mutation("an index that is a list", lambda f: (split(f), (f / index).write_text("[]")))
    yield Mutation("an index of numbers", lambda f: (split(f), (f / index).write_text('{"weight_map": {"a": 1}}')))
    yield Mutation(
        "an index that names nothing there", lambda f: (split(f), (f / index).write_text('{"weight_map": {"a": "b.safetensors"}}'))
    )
    yield Mutation("an index beside whole weights", lambda f: (f / index).write_text('{"weight_map": {"a": "b.safetensors"}}'))
    yield Mutation("shards without index", lambda f: (split(f), (f / index).unlink()))


def mutated(source: Path, target: Path, mutation: Mutation) -> Path:
    """A copy of the folder above a teacher's, mutated."""
    shutil.copytree(source, target, symlinks=True)
    mutation.change(target / "teacher")
    return target
