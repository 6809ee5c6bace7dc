"""A Hugging Face folder as a model of MLflow's flavour `transformers`.

The flavour points at the plain folder (`model_binary: "."`), so `mlflow.transformers.load_model` reads safetensors and a tokenizer,
nothing is pickled, and the same bytes load with `from_pretrained`. Nothing here imports mlflow.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from models.base.files import read_json

SAFE = frozenset({".safetensors", ".json", ".txt", ".model", ".md", ".jinja", ".jsonl"})
TASKS = {
    "causal-lm": ("text-generation", "TextGenerationPipeline", "AutoModelForCausalLM"),
    "sequence-classification": ("text-classification", "TextClassificationPipeline", "AutoModelForSequenceClassification"),
    "image-classification": ("image-classification", "ImageClassificationPipeline", "AutoModelForImageClassification"),
    "image-text": ("image-text-to-text", "ImageTextToTextPipeline", "AutoModelForImageTextToText"),
    "image-text-embedding": ("zero-shot-image-classification", "ZeroShotImageClassificationPipeline", "AutoModel"),
    "embedding": ("feature-extraction", "FeatureExtractionPipeline", "AutoModel"),
}
# Part of a pipeline -> the file that marks it in a model folder, the class that reads it, and the files that it needs.
PARTS = {
    "tokenizer": (
        "tokenizer_config.json",
        "AutoTokenizer",
        ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.jinja", "spiece.model"),
    ),
    "image_processor": ("preprocessor_config.json", "AutoImageProcessor", ("preprocessor_config.json",)),
}


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that the record carries: weights as safetensors, tokenizer and text.

    Whatever else lies there, such as a pickle beside the safetensors of a downloaded checkpoint, is left out, and so are sub-folders.
    """
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in SAFE and not path.name.startswith("."))


def parts_of(folder: Path) -> list[str]:
    """The parts of a pipeline, beside the model, that a folder holds."""
    return [part for part, (marker, _, _) in PARTS.items() if (folder / marker).is_file()]


def flavour(folder: Path, workload: str, package: Path) -> dict[str, Any]:
    """The `transformers` flavour of a Hugging Face folder: the settings of MLflow's loader, and no code.

    Args:
        folder: Hugging Face folder.
        workload: `causal-lm`, `sequence-classification` or `image-classification`.
        package: Folder in which `write_parts` has put its tokenizer or image processor.
    """
    import transformers

    task, pipeline, auto_class = TASKS[workload]
    architectures = read_json(folder / "config.json").get("architectures") or [auto_class]
    parts = [part for part in PARTS if (package / "components" / part).is_dir()]
    return {
        "task": task,
        "instance_type": pipeline,
        "framework": "pt",
        "model_binary": ".",
        # MLflow trusts remote code for a class that transformers does not have, so such a name must never reach it.
        "pipeline_model_type": architectures[0] if hasattr(transformers, architectures[0]) else auto_class,
        "components": parts,
        **{f"{part}_type": PARTS[part][1] for part in parts},
        "transformers_version": transformers.__version__,
    }


def write_parts(folder: Path, target: Path) -> None:
    """Copy tokenizer or image processor to `target/components/<part>`, where MLflow's loader looks for them."""
    for part in parts_of(folder):
        place = target / "components" / part
        place.mkdir(parents=True, exist_ok=True)
        for path in sorted({path for pattern in PARTS[part][2] for path in folder.glob(pattern)}):
            shutil.copy(path, place / path.name)
