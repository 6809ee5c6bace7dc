"""MLflow's files of a model: `MLmodel`, signature, example, requirements.

The folder of a logged model is the model's own Hugging Face folder with these beside it, so that one copy of the weights serves
`from_pretrained`, `mlflow.transformers.load_model` and `mlflow.pyfunc.load_model`.
"""

from __future__ import annotations

import base64
import io
import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from conf.schema.workloads import answers_in_ids, makes_embeddings, reads_pictures
from models.base.files import read_json
from models.embeddings.sentence_folder import copy_modules, read_pooling
from tasks.tracking.packaging import flavour

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

CODE = "predict.py"
EXAMPLE, SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"
REQUIREMENTS, CONDA, PYTHON_ENV = "requirements.txt", "conda.yaml", "python_env.yaml"
NEEDED = ("mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy")
LONGEST = 80  # characters of an example, which must leave room for an answer


@dataclass(frozen=True)
class About:
    """Metadata of a model in MLflow.

    Attributes:
        workload: `causal-lm`, `sequence-classification` or `image-classification`.
        run_id: MLflow run that made it.
        model_id: Its id in MLflow.
        place: Where its artifacts lie.
        example: An input; None: a neutral one.
        facts: More about it, such as `license`; kept as the model's metadata.
    """

    workload: str
    run_id: str
    model_id: str
    place: str
    example: str | None
    facts: Mapping[str, str]


def write_package(folder: Path, parts: Path, about: About, target: Path) -> None:
    """Write MLflow's files of a model.

    Args:
        folder: Its Hugging Face folder.
        parts: Folder with a tokenizer or an image processor that `folder` lacks; else an empty one.
        about: The rest.
        target: An existing empty folder, for all that is to be uploaded beside the files of `folder`.
    """
    from mlflow.models import Model

    for place in (folder, parts):
        flavour.write_parts(place, target)
    for path in flavour.model_files(parts):
        shutil.copy(path, target / path.name)
    if about.workload == "embedding":
        copy_modules(folder, target)
    shutil.copy(Path(__file__).with_name("pyfunc_model.py"), target / CODE)
    _write_environment(target, about.workload)
    rows = [about.example[:LONGEST] if about.example else _neutral(folder, about.workload)]
    (target / EXAMPLE).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (target / SERVING_EXAMPLE).write_text(json.dumps({"inputs": rows}, indent=2, ensure_ascii=False), encoding="utf-8")
    described = Model(
        artifact_path=about.place,
        run_id=about.run_id,
        model_id=about.model_id,
        flavors=_flavours(folder, about.workload, target),
        signature=signature(about.workload),
        saved_input_example_info={"artifact_path": EXAMPLE, "type": "json_object", "serving_input_path": SERVING_EXAMPLE},
        metadata=dict(about.facts),
        model_size_bytes=sum(path.stat().st_size for path in flavour.model_files(folder)),
    )
    described.save(str(target / "MLmodel"))


def _flavours(folder: Path, workload: str, target: Path) -> dict[str, Any]:
    """The forms in which MLflow loads the model; its pipelines take no processor of pictures with texts."""
    plain = {} if workload in ("image-text", "image-text-embedding") else {"transformers": flavour.flavour(folder, workload, target)}
    return {**plain, "python_function": _pyfunc(workload, folder)}


def _pyfunc(workload: str, folder: Path) -> dict[str, Any]:
    """The `python_function` flavour of `pyfunc_model`; `mlflow.pyfunc.add_to_model` writes the same, and imports much more."""
    return {
        "loader_module": "mlflow.pyfunc.model",
        "python_version": platform.python_version(),
        "env": {"conda": CONDA, "virtualenv": PYTHON_ENV},
        "config": {"workload": workload, **({"pooling": asdict(read_pooling(folder))} if workload == "embedding" else {})},
        "model_code_path": CODE,
        "python_model": CODE,
        "artifacts": {"model": {"path": ".", "uri": "."}},
        "streamable": False,
    }


def signature(workload: str) -> ModelSignature:
    """Inputs, outputs and parameters of `pyfunc_model`, which checks its inputs by its type hints."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Map

    if answers_in_ids(workload):
        outputs = Schema([ColSpec(DataType.string)])
        params = [
            ParamSpec("max_new_tokens", DataType.long, 32),
            ParamSpec("temperature", DataType.double, 0.0),
            ParamSpec("top_p", DataType.double, 1.0),
            ParamSpec("seed", DataType.long, 0),
        ]
    elif makes_embeddings(workload):
        made = ModelSignature(Schema([ColSpec(DataType.string)]), Schema([ColSpec(Array(DataType.double))]), ParamSchema([]))
        made._is_signature_from_type_hint = True
        return made
    else:
        columns: list[Any] = [
            ColSpec(DataType.string, "label"),
            ColSpec(DataType.double, "score"),
            ColSpec(Map(DataType.double), "probabilities"),
        ]
        outputs, params = Schema(columns), [ParamSpec("top_k", DataType.long, 5)]
    made = ModelSignature(Schema([ColSpec(DataType.string)]), outputs, ParamSchema(params))
    made._is_signature_from_type_hint = True
    return made


def _neutral(folder: Path, workload: str) -> str:
    """An input that says nothing of the data: a word, or a grey picture as a PNG in base64."""
    if not reads_pictures(workload):
        return {"causal-lm": "The", "sequence-classification": "A text.", "embedding": "A text."}[workload]
    from PIL import Image

    config = read_json(folder / "config.json")
    side = config.get("image_size") or config.get("vision_config", {}).get("image_size") or 64
    height, width = side if isinstance(side, list) else (side, side)
    file = io.BytesIO()
    Image.new("L", (width, height), 128).save(file, "PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    rows = {"image-text": {"image": picture, "prompt": "What is this?"}, "image-text-embedding": {"image": picture}}
    return json.dumps(rows[workload]) if workload in rows else picture


def requirements(workload: str) -> list[str]:
    """The packages that `pyfunc_model` needs, with the versions of here; a build's own mark, such as `+cpu`, is left out."""
    names = (*NEEDED, *(("pillow",) if reads_pictures(workload) else ()))
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]


def _write_environment(target: Path, workload: str) -> None:
    packages, python = requirements(workload), platform.python_version()
    (target / REQUIREMENTS).write_text("".join(f"{line}\n" for line in packages), encoding="utf-8")
    conda: dict[str, Any] = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": packages}],
    }
    (target / CONDA).write_text(yaml.safe_dump(conda, sort_keys=False), encoding="utf-8")
    env = {"python": python, "build_dependencies": ["pip"], "dependencies": [f"-r {REQUIREMENTS}"]}
    (target / PYTHON_ENV).write_text(yaml.safe_dump(env, sort_keys=False), encoding="utf-8")
