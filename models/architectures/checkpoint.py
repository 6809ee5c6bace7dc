"""Load and save Hugging Face folders; safetensors only, no code is run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from conf.errors import UserError, foreign_errors
from conf.schema.workloads import has_classes
from models.architectures.answers import ANSWERS, load_answers
from models.architectures.composite import language_config
from models.architectures.folder_checks import check_folder
from models.architectures.shapes import AUTO_CLASSES, build
from models.architectures.token_answers import load_token_answers
from models.base.files import weight_files
from models.base.interface import Interface
from models.embeddings.encoder import SentenceEncoder
from models.embeddings.pooling import pooling_of, set_pooling
from models.embeddings.sentence_folder import read_dense, read_pooling
from models.embeddings.two_towers import TwoTowers


def load_model(
    folder: Path, workload: str, *, key: str = "teacher.path", dtype: torch.dtype | None = torch.float32, config: Any = None
) -> nn.Module:
    """Load a model from a checked folder; `dtype=None` keeps the checkpoint's own, `config` takes the place of its configuration.

    Raises:
        UserError: The folder is no such model (see `check_folder`), or serves another workload.
    """
    if (folder / ANSWERS).is_file() and not (folder / "config.json").is_file():
        return load_token_answers(folder) if workload == "causal-lm" else load_answers(folder)
    check_folder(folder, key)
    model, info = from_folder(folder, workload, config or read_config(folder, key, workload), key, dtype=dtype or "auto")
    for part in (model.config, language_config(model.config)):
        part.use_cache = False  # nothing here generates, and filling a cache costs time at every forward pass
    missing = sorted(info["missing_keys"])
    if missing:
        wrapped = next((name for name in sorted(info["unexpected_keys"]) if name.endswith(tuple(f".{each}" for each in missing))), None)
        why = f" It has {wrapped!r} in its place: save the inner model without its wrapper." if wrapped else ""
        raise UserError.about(
            key, str(folder), f"a checkpoint trained for {workload}", f"It lacks weights that the model needs, such as {missing[0]!r}.{why}"
        )
    return model


def from_folder(folder: Path, workload: str, config: Any, key: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model of `config` with a folder's weights, and what transformers says about names and shapes that did not fit.

    Raises:
        UserError: transformers cannot load it.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # one bar for each of our models is of no use
    auto = getattr(transformers, AUTO_CLASSES[workload])
    with foreign_errors(key, str(folder), f"a model that {AUTO_CLASSES[workload]} loads"):
        model, info = auto.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    if workload == "image-text-embedding":
        return TwoTowers(config, model), info
    return (_encoder(folder, config, model, info, key), info) if workload == "embedding" else (model, info)


def _encoder(folder: Path, config: Any, body: nn.Module, info: dict[str, Any], key: str) -> SentenceEncoder:
    """A sentence encoder of a loaded body; a pooler that its files lack is no loss, as no embedding needs it."""
    info["missing_keys"] = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
    model = SentenceEncoder(config, body)
    if model.projection is not None and pooling_of(config).dense:
        model.projection.load_state_dict(read_dense(folder, key))
    return model


def read_config(folder: Path, key: str = "teacher.path", workload: str | None = None) -> Any:
    """The configuration of a checked folder; for embedding with the pooling that is described beside it.

    Raises:
        UserError: transformers does not know it.
    """
    import transformers

    with foreign_errors(key, str(folder / "config.json"), "the configuration of a model that transformers knows"):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if workload == "embedding":
        if not isinstance(getattr(config, "hidden_size", None), int):
            raise UserError.about(key, f"{folder}, a {config.model_type}", "an encoder of texts with one width of states", "Use another.")
        set_pooling(config, read_pooling(folder, key))
    return config


def check_sizes(folder: Path, model: nn.Module, key: str = "teacher.path") -> None:
    """Refuse tensors of other sizes than the configuration asks for; no weight is read.

    Args:
        folder: A checked folder.
        model: Of its configuration, on the meta device.
        key: Dotted key to blame.

    Raises:
        UserError: Naming the first such tensor.
    """
    from safetensors import safe_open

    if getattr(cast(Any, model).config, "quantization_config", None) is not None:
        return
    named = model.body if isinstance(model, SentenceEncoder | TwoTowers) else model
    wanted = {name: list(tensor.shape) for name, tensor in named.state_dict().items()}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                size, other = file.get_slice(name).get_shape(), wanted.get(name)
                if other is not None and size != other:
                    found = f"{path}, whose tensor {name} is {_sized(size)}"
                    remedy = "The two are of different models: fetch or save the checkpoint again."
                    raise UserError.about(key, found, f"{_sized(other)}, as its config.json says", remedy)


def _sized(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def check_finite(folder: Path, key: str = "teacher.path", most: int | None = None) -> float:
    """Refuse weights that hold NaN or an infinity; one tensor at a time is in memory.

    Args:
        folder: A checked folder.
        key: Dotted key to blame.
        most: Bytes to read: of larger weights the beginning of every tensor; None: all.

    Returns:
        The share of the weights that was looked at.

    Raises:
        UserError: Naming the file, the tensor and how many of its numbers are not finite.
    """
    from safetensors import safe_open

    files = weight_files(folder)
    size = sum(path.stat().st_size for path in files)
    share = 1.0 if most is None or size <= most else most / size
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                stored = file.get_slice(name)
                shape: list[int] = stored.get_shape()
                tensor: Tensor = stored[: math.ceil(shape[0] * share)] if shape and share < 1 else file.get_tensor(name)
                if tensor.is_floating_point() and not bool(tensor.float().sum().isfinite()):
                    wrong = int((~tensor.float().isfinite()).sum())
                    if wrong:
                        count = (
                            f"{wrong:,} of {math.prod(shape):,} numbers"
                            if share == 1
                            else f"{wrong:,} of the first {tensor.numel():,} numbers"
                        )
                        found = f"{path}, whose tensor {name} holds {count} that are NaN or infinite"
                        remedy = "The file is damaged or its training had diverged: fetch it again, or take an earlier checkpoint."
                        raise UserError.about(key, found, "finite weights", remedy)
    return share


def skeleton(folder: Path, workload: str) -> nn.Module:
    """The model of a checked folder without its weights, on the meta device: for shapes and counts.

    Raises:
        UserError: transformers does not know such a model, or not for this workload.
    """
    config = read_config(folder, workload=workload)
    with foreign_errors("teacher.path", str(folder), f"a model that {AUTO_CLASSES[workload]} loads"), torch.device("meta"):
        return build(config, workload)


def save_model(model: nn.Module, folder: Path, tokenizer_folder: Path | None) -> None:
    """Write a Hugging Face folder that loads in plain transformers: configuration, safetensors, tokenizer."""
    import shutil

    import transformers

    transformers.utils.logging.disable_progress_bar()
    saved = cast(Any, model)
    settings = [saved.config, language_config(saved.config), saved.generation_config] if saved.can_generate() else []
    for each in settings:
        each.use_cache = True  # for users who generate; training never asks for the cache
    saved.save_pretrained(folder)
    for each in settings:
        each.use_cache = False
    if tokenizer_folder is not None:
        for path in tokenizer_folder.iterdir():
            shutil.copy(path, folder / path.name)


def check_interface(model: nn.Module, interface: Interface, folder: Path, key: str = "teacher.path") -> None:
    """Refuse a teacher whose outputs cannot be compared with the students'.

    A vocabulary may be padded beyond the tokenizer's ids (the surplus is cut), never smaller.

    Raises:
        UserError: Vocabulary or classes differ from the data's, or the model cannot take its images.
    """
    config = cast(Any, model).config
    if interface.image_shape is not None:
        check_image(model, interface.image_shape, folder, key)
    if has_classes(interface.workload) and config.num_labels != interface.classes:
        raise UserError.about(
            key,
            f"{folder} with {config.num_labels} classes",
            f"{interface.classes} classes, as the data have",
            "Set data.classes, or use another.",
        )
    config = language_config(config)
    if interface.vocabulary is not None and config.vocab_size < interface.vocabulary:
        raise UserError.about(
            key,
            f"{folder} with {config.vocab_size} ids",
            f"at least the {interface.vocabulary} ids of the tokenizer",
            "Teacher and student must share one vocabulary: set tokenizer.kind=teacher.",
        )


def check_image(model: nn.Module, image: tuple[int, int, int], folder: Path, key: str = "teacher.path") -> None:
    """Refuse a teacher that cannot take images of (C, H, W), whatever its architecture; needs no memory on the meta device.

    Raises:
        UserError: In the words of transformers.
    """
    empty = torch.empty(1, *image, device=next(model.parameters()).device)
    channels, height, width = image
    allowed = f"a model for images of {height} x {width} with {channels} channels, as the data have"
    with foreign_errors(key, str(folder), allowed, "Set data.resize and data.channels to what it takes."), torch.no_grad():
        model.eval()(pixel_values=empty)
