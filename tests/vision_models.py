"""Vision-language models of a few thousand parameters with their processors, and tables of pictures with questions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from PIL import Image

from conf.schema.ladder import Ladder
from models.data.tokenizers import append_end, bytes_tokenizer
from tests.factories import END, PAD, ladder_of_file

WORDS = ["<image>", "<fake_token_around_image>", "<global-img>"]
IDS = 262  # of bytes, the end, the padding, `WORDS` and one that Idefics3 adds
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**TEXT, "image_size": 16, "patch_size": 4}
CLIP = {"model_type": "clip", "text_config": {**TEXT, "hidden_size": 8}, "vision_config": {**VISION, "hidden_size": 8}}
SMALL = {"model_type": "idefics3", "scale_factor": 2, "text_config": {"model_type": "llama", **TEXT}, "vision_config": VISION}


def picture(number: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    """A picture of noise, a function of its number, of this width and height."""
    levels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(levels)


def png(image: Image.Image) -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def processor(kind: str = "idefics3", template: str | None = None) -> Any:
    """A processor of pictures and bytes: `idefics3`, four ids for a picture, or `llava`, sixteen."""
    words = bytes_tokenizer()
    words.add_special_tokens({"additional_special_tokens": WORDS})
    if kind == "llava":
        sides = {"height": 16, "width": 16}
        reads = transformers.CLIPImageProcessorPil(size=sides, do_center_crop=False)
        return transformers.LlavaProcessor(
            reads, words, patch_size=4, vision_feature_select_strategy="full", image_token="<image>", chat_template=template
        )
    box = {"longest_edge": 16}
    reads = transformers.Idefics3ImageProcessorPil(size=box, max_image_size=box, do_image_splitting=False)
    return transformers.Idefics3Processor(reads, words, image_seq_len=4, chat_template=template)


def config(kind: str = "idefics3", layers: int = 2, **changes: Any) -> Any:
    """The configuration that goes with `processor`."""
    special = {"vocab_size": IDS, "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": END}
    text = {"model_type": "llama", **TEXT, "num_hidden_layers": layers, "initializer_range": 0.25, **special}
    own: dict[str, Any] = {"image_token_id": 258, "text_config": text, "vision_config": {**VISION, "initializer_range": 0.25}, **changes}
    if kind == "llava":
        own["vision_config"]["model_type"] = "siglip_vision_model"
        return transformers.LlavaConfig(**own, vision_feature_layer=-1, vision_feature_select_strategy="full")
    return transformers.Idefics3Config(**{"scale_factor": 2, **own})


def save_model(folder: Path, kind: str = "idefics3", template: str | None = None) -> Any:
    """Save a model with random weights and its processor; returns the model."""
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config(kind))
    model.save_pretrained(folder)
    processor(kind, template).save_pretrained(folder)
    return model


def save_clip(folder: Path, siglip: bool = False) -> Any:
    """Save a CLIP, or a SigLIP, with random weights and its processor; returns the model."""
    torch.manual_seed(0)
    words = append_end(bytes_tokenizer())
    special = {"vocab_size": END + 2, "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": END}
    text = {**TEXT, "max_position_embeddings": 32, **special}
    if siglip:
        own: Any = transformers.SiglipConfig(text_config={**text, "projection_size": 16}, vision_config=VISION)
    else:
        own = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)
    model = transformers.AutoModel.from_config(own)
    model.save_pretrained(folder)
    reads = transformers.CLIPImageProcessorPil(size={"height": 16, "width": 16}, do_center_crop=False)
    transformers.CLIPProcessor(reads, words).save_pretrained(folder)
    return model


def save_captions(path: Path, rows: int = 24) -> None:
    """Write a table of pictures and texts, of which every fourth is another."""
    made = [{"image": png(picture(number)), "text": f"kind {number % 4}"} for number in range(rows)]
    pq.write_table(pa.Table.from_pylist(made), path)


def captions_ladder(stage: dict[str, Any] | None = None, **settings: Any) -> Ladder:
    """A ladder of one stage on pictures and texts."""
    training = {"steps": 2, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32"}
    fractions = {"valid_fraction": 0.2, "test_fraction": 0.2}
    data = {"source": "files", "paths": ["rows.parquet"], "sequence_length": 16, **fractions, **settings.pop("data", {})}
    plain: dict[str, Any] = {
        "workload": "image-text-embedding",
        "data": data,
        "tokenizer": {"kind": "teacher"},
        "teacher": {"source": "checkpoint", "path": "clip", "allow_poor": True},
        "stages": [{"name": "small", "student": {"config": CLIP}, "training": training, **(stage or {})}],
        "evaluation": {"examples": 8, "batch_size": 4},
    }
    return ladder_of_file(**plain | settings)


def save_questions(path: Path, rows: int = 24, **changes: Any) -> list[dict[str, Any]]:
    """Write a table of pictures, prompts and completions; `changes` replace values of the third row."""
    made = [
        {"image": png(picture(number)), "prompt": f"row {number}?", "completion": "yes" if number % 2 else "no"} for number in range(rows)
    ]
    made[2] |= changes
    pq.write_table(pa.Table.from_pylist(made), path)
    return made


def ladder(path: str = "rows.parquet", stage: dict[str, Any] | None = None, **settings: Any) -> Ladder:
    """A ladder of one stage; `data` in the settings is added to that of here."""
    columns = {"image": "image", "prompt": "prompt", "completion": "completion"}
    training = {"steps": 2, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32"}
    fractions = {"valid_fraction": 0.2, "test_fraction": 0.2}
    own = {"source": "files", "paths": [path], "columns": columns, "sequence_length": 32, **fractions, **settings.pop("data", {})}
    plain: dict[str, Any] = {
        "workload": "image-text",
        "data": own,
        "tokenizer": {"kind": "teacher"},
        "teacher": {"source": "checkpoint", "path": "vlm", "allow_poor": True},
        "stages": [{"name": "small", "student": {"config": SMALL}, "training": training, **(stage or {})}],
        "evaluation": {"examples": 8, "batch_size": 4},
    }
    return ladder_of_file(**plain | settings)
