"""Image processors: from a picture to the pixels that a model takes.

All of them are Hugging Face image processors computed by Pillow, so a published student carries one that plain transformers loads. The
stored pixels are a processor's before it scales and normalises: one byte each, and `Pixels` does the rest, in every batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import foreign_errors
from models.base.files import read_json
from models.data.corpus import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "preprocessor_config.json"
LEVELS = 255  # the largest value of a byte
PROBE = (37, 53)  # height and width of the picture by which a processor's arithmetic is checked
TOLERANCE = 1e-5


def plain(size: Sequence[int], channels: int, crop: bool = False) -> Any:
    """The processor that gives pixels in [0, 1].

    Args:
        size: Height and width that every picture gets.
        channels: 1 or 3.
        crop: Scale the shorter side and keep the middle; else scale both sides. For squares.
    """
    from transformers import ViTImageProcessorPil

    box = {"height": size[0], "width": size[1]}
    return ViTImageProcessorPil(
        size={"shortest_edge": size[0]} if crop else box,
        do_center_crop=crop or None,
        crop_size=box if crop else None,
        do_convert_rgb=channels == 3 or None,
        do_normalize=False,
        image_mean=[0.0] * channels,
        image_std=[1.0] * channels,
    )


def load(folder: Path) -> Any | None:
    """The processor in a teacher's folder; None where it has none.

    Raises:
        UserError: transformers does not know it, or not without torchvision.
    """
    from transformers import AutoImageProcessor

    if not (folder / FILE).is_file():
        return None
    with _reading(folder):
        return AutoImageProcessor.from_pretrained(str(folder), backend="pil", trust_remote_code=False, local_files_only=True)


def _reading(folder: Path) -> AbstractContextManager[None]:
    remedy = "Save another with the processor's save_pretrained, or remove the file."
    return foreign_errors("teacher.path", str(folder / FILE), "an image processor that Pillow can compute", remedy)


def resized(processor: Any, size: Sequence[int], crop: bool) -> Any:
    """The same processor with another size; its other settings stay."""
    box = {"height": size[0], "width": size[1]}
    settings = {"size": {"shortest_edge": size[0]} if crop else box, "do_resize": True, "do_center_crop": crop, "crop_size": box}
    return type(processor)(**{**processor.to_dict(), **settings})


def processor_hash(folder: Path) -> str | None:
    """Hash of the processor's file in `folder`; None where there is none."""
    path = folder / FILE
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def normalises(folder: Path) -> bool:
    """Whether the processor in `folder`, if there is one, gives other pixels than those in [0, 1]; read from its file alone."""
    path = folder / FILE
    if not path.is_file():
        return False
    with _reading(folder):
        settings = read_json(path)
        scales = settings.get("do_rescale", True) and math.isclose(settings.get("rescale_factor", 1 / LEVELS), 1 / LEVELS)
        return bool(settings.get("do_normalize", True)) or not scales


def pixels(processor: Any, picture: Image) -> NDArray[np.float32]:
    """(C, H, W) of a picture, all that the processor does."""
    return np.asarray(processor(images=picture)["pixel_values"][0], dtype=np.float32)


def bare_pixels(processor: Any, picture: Image) -> NDArray[Any]:
    """(C, H, W) of a picture, neither scaled nor normalised: bytes, by most processors."""
    return np.asarray(processor(images=picture, do_rescale=False, do_normalize=False)["pixel_values"][0])


def arithmetic(processor: Any, channels: int) -> Pixels | None:
    """A processor's scaling of bytes; None where it does other things with them, so that its floats must be stored.

    Found by a picture of noise, and not by the class.

    Raises:
        UserError: The processor cannot take pictures of so many channels.
    """
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, LEVELS + 1, (*PROBE, 3), dtype=np.uint8)
    picture = Image.fromarray(noise) if channels == 3 else Image.fromarray(noise[..., 0])
    remedy = f"Its image processor cannot take {channels}."
    with foreign_errors("data.channels", channels, "the number of channels that the teacher takes", remedy):
        whole, bare = pixels(processor, picture), bare_pixels(processor, picture)
    done = scaling_of(processor, whole.shape[0])
    fits = bare.dtype == np.uint8 and bare.shape == whole.shape
    return done if fits and np.allclose(done.of(bare), whole, atol=TOLERANCE) else None


def scaling_of(processor: Any, channels: int) -> Pixels:
    """Scale, mean and deviation by the settings of a processor."""
    factor = float(processor.rescale_factor) if processor.do_rescale else 1.0
    if not processor.do_normalize:
        return Pixels(factor, (0.0,) * channels, (1.0,) * channels)
    mean, std = (tuple(float(v) for v in np.broadcast_to(each, channels)) for each in (processor.image_mean, processor.image_std))
    return Pixels(factor, mean, std)
