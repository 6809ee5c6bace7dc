"""Read pictures into the inputs of a vision-language model that a corpus stores.

A processor gives a picture's `pixel_values` (m, ...), where m is 1 or its number of patches, and perhaps further inputs, which depend on
its size alone: pictures of one size have the same, and the corpus holds them once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError, foreign_errors
from conf.schema.data import PictureData, Resize
from models.data.corpus import PIXELS, Pixels
from models.data.image_processors import TOLERANCE, scaling_of
from models.data.images import ImageReader, PixelArray, open_picture
from models.multimodal.processors import Placeholder, placeholder

if TYPE_CHECKING:
    from PIL.Image import Image

BARE = {"do_rescale": False, "do_normalize": False}


class PictureReader(ImageReader):
    """Gives the `pixel_values` of pictures as a corpus stores them: bytes that `pixels` scales, or float32.

    Attributes:
        pixels: Scaling from stored values to a model's; None: none. Known once a picture was read.
        inputs: Further inputs of every picture, by their names in the model's forward, (1, m, ...). Known then, too.
        placeholder: The text that stands for a picture, if texts hold one. Known then, too.
    """

    def __init__(self, data: PictureData, processor: Any, writes: bool = True) -> None:  # not the base's: the pixels are the processor's
        self.writes = writes
        self.processor, self.image_processor = processor, processor.image_processor
        self.resize: Resize | None = data.resize
        self.pixels: Pixels | None = None
        self.inputs: dict[str, NDArray[Any]] = {}
        self.placeholder: Placeholder | None = None
        self._first: tuple[tuple[int, ...], str] | None = None

    def read(self, value: Any, origin: str, key: str, folder: Path = Path()) -> tuple[PixelArray, str]:
        """The stored `pixel_values` (m, ...) of a picture, and the hash of its content; arguments and errors as of the base."""
        picture = self._sized(open_picture(value, key, origin, folder).convert("RGB"))
        content = f"{picture.size}".encode() + picture.tobytes()
        if self._first is None:
            self._look(picture)
        settings = BARE if self.pixels else {}
        values, others = self._processed(picture, origin, settings)
        known, where = self._first = self._first or (values.shape, origin)
        if values.shape != known or not _same(others, self.inputs):
            remedy = f"{origin} is {picture.height} x {picture.width}, unlike {where}: set data.resize, such as {{size: [224, 224]}}."
            raise UserError.about("data.resize", None, "pictures of one size, for a model that reads them with text", remedy)
        return values, hashlib.sha256(content).hexdigest()

    def _sized(self, picture: Image) -> Image:
        from PIL import Image, ImageOps

        if self.resize is None:
            return picture
        size = self.resize.size[1], self.resize.size[0]
        if self.resize.method == "crop":
            return ImageOps.fit(picture, size, Image.Resampling.BILINEAR)
        return picture.resize(size, Image.Resampling.BILINEAR)

    def _look(self, picture: Image) -> None:
        """Learn from the first picture how its pixels are scaled and which other inputs there are."""
        from PIL import Image

        if self.writes:
            self.placeholder = placeholder(self.processor, picture)
        noise = np.random.default_rng(0).integers(0, 256, (picture.height, picture.width, 3), dtype=np.uint8)
        probe = Image.fromarray(noise)
        whole, self.inputs = self._processed(probe, "", {})
        bare, _ = self._processed(probe, "", BARE)
        if bare.dtype == np.uint8 and bare.shape == whole.shape and whole.shape[-3:-2] == (3,):
            scaling = scaling_of(self.image_processor, 3)
            self.pixels = scaling if np.allclose(scaling.of(bare), whole, atol=TOLERANCE) else None

    def _processed(self, picture: Image, origin: str, settings: Mapping[str, bool]) -> tuple[PixelArray, dict[str, NDArray[Any]]]:
        allowed = f"pictures that {type(self.image_processor).__name__} takes"
        with foreign_errors("data.columns.image", origin, allowed, "Correct or leave out the row."):
            found = self.image_processor(images=[picture], return_tensors="np", **settings)
        values = np.asarray(found[PIXELS])
        stored = values if values.dtype == np.uint8 else values.astype(np.float32)
        taken = set(self.processor.model_input_names) - {PIXELS}
        return cast(PixelArray, stored), {name: np.asarray(value)[None] for name, value in found.items() if name in taken}


def _same(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
