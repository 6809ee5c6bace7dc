"""Read pictures into the pixels that a corpus stores."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import UserError
from conf.loading.path_policy import check_read
from conf.schema.data import PictureData
from models.base.files import read_json
from models.data import image_processors as processors

if TYPE_CHECKING:
    from PIL.Image import Image

GREY = {"1", "L"}
COLOUR = {"RGB", "RGBA", "RGBX", "P", "PA", "LA", "CMYK", "YCbCr", "HSV", "LAB"}
DEEP = {"I;16", "I;16L", "I;16B"}  # grey of 16 bits
PixelArray = NDArray[np.uint8] | NDArray[np.float32]
BROKEN = "readable image"  # what a row lacks whose image cannot be read
ReadImage = Callable[[Any, str], tuple[PixelArray, str]]  # of a value and its place: pixels and the hash of the content


class UnreadableImage(UserError):
    """An image is none, broken, or of a kind that is not read."""


class ImageReader:
    """Gives the pixels of images that a corpus stores, all of one shape.

    The sizes are made equal by the image processor of a checkpoint teacher, or by `data.resize`; without both they must be equal.

    Attributes:
        pixels: Scaling from stored pixels to a model's; None: none. Known once an image was read.
        processor: The processor that every student carries. Known once an image was read.
    """

    def __init__(self, data: PictureData, teacher: Path | None) -> None:
        """Set up a reader.

        Args:
            data: Says size and channels.
            teacher: Folder of a checkpoint teacher; None: the teacher is trained here.

        Raises:
            UserError: The teacher's processor cannot be used.
        """
        self.channels: int = _channels(teacher) if data.channels == "auto" else data.channels
        self.processor: Any = processors.load(teacher) if teacher else None
        if data.resize is not None:
            size, crop = data.resize.size, data.resize.method == "crop"
            own = self.processor
            self.processor = processors.plain(size, self.channels, crop) if own is None else processors.resized(own, size, crop)
        self.pixels = processors.arithmetic(self.processor, self.channels) if self.processor is not None else None
        self._resizes = self.processor is not None
        self._first: tuple[tuple[int, ...], str] | None = None

    def beside(self, folder: Path) -> ReadImage:
        """The reader of the images of a table, whose paths count from `folder`."""
        return partial(self.read, key="data.columns.image", folder=folder)

    def read(self, value: Any, origin: str, key: str, folder: Path = Path()) -> tuple[PixelArray, str]:
        """The stored pixels (C, H, W) of an image, and the hash of its content.

        Args:
            value: A path, bytes, a mapping with either (as `datasets` stores images), or a picture.
            origin: Where the image stands.
            key: Dotted key of the setting to blame.
            folder: Folder that relative paths count from.

        Raises:
            UserError: It is no image, a broken one, or one of another size than the first.
        """
        picture = open_picture(value, key, origin, folder)
        picture = picture.convert("L" if self.channels == 1 else "RGB")
        content = f"{picture.size}".encode() + picture.tobytes()
        if self.processor is None:
            self.processor = processors.plain((picture.height, picture.width), self.channels)
            self.pixels = processors.arithmetic(self.processor, self.channels)
        return self._equal(self._stored(picture), origin), hashlib.sha256(content).hexdigest()

    def _stored(self, picture: Image) -> PixelArray:
        if not self._resizes:
            values = np.asarray(picture)
            return values[None] if self.channels == 1 else np.ascontiguousarray(values.transpose(2, 0, 1))
        return processors.bare_pixels(self.processor, picture) if self.pixels else processors.pixels(self.processor, picture)

    def _equal(self, values: PixelArray, origin: str) -> PixelArray:
        first, where = self._first = self._first or (values.shape, origin)
        if values.shape != first:
            (_, height, width), found = first, f"{values.shape[1]} x {values.shape[2]} in {origin}"
            remedy = f"Set data.resize, such as {{size: [{min(height, width)}, {min(height, width)}]}}."
            raise UserError.about("data.resize", None, f"images of one size: {height} x {width} in {where}, but {found}", remedy)
        return values


def _channels(teacher: Path | None) -> int:
    if teacher is None:
        return 3
    file = teacher / "config.json"
    channels = read_json(file).get("num_channels", 3)
    if not isinstance(channels, int):
        raise UserError.about("teacher.path", f"{file} with num_channels {channels!r}", "a whole number", "Mend the configuration.")
    return channels


def open_picture(value: Any, key: str, origin: str, folder: Path = Path(), most_pixels: int | None = None) -> Image:
    """The picture, upright, of a mode that Pillow converts to grey and to colour.

    Args:
        value: As of `ImageReader.read`, like `key`, `origin` and `folder`.
        key: Dotted key of the setting to blame.
        origin: Where the image stands.
        folder: Folder that relative paths count from.
        most_pixels: Of an image, which is not decoded where it has more; None: Pillow's limit.

    Raises:
        UserError: It is no image, a broken one, or too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    allowed = "readable images"
    try:
        opened = value if isinstance(value, Image.Image) else Image.open(_file(value, folder))
        if most_pixels is not None and opened.width * opened.height > most_pixels:
            raise UserError.about(
                key, f"{opened.width} x {opened.height} pixels", f"at most {most_pixels:,} pixels", "Send a smaller image."
            )
        picture = ImageOps.exif_transpose(opened)
        picture.load()
    except FileNotFoundError as error:
        raise _no_file(value, origin, key) from error
    except UnidentifiedImageError as error:
        raise UnreadableImage.about(key, origin, allowed, "Mend or leave out the image: Pillow knows no such format.") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableImage.about(key, origin, allowed, f"Mend or leave out the image: {reason}.") from error
    except TypeError:
        raise UnreadableImage.about(key, origin, "grey or colour images", f"{origin} holds {type(value).__name__}.") from None
    if picture.mode in DEEP:
        return Image.fromarray((np.asarray(picture, dtype=np.uint16) // 257).astype(np.uint8))
    if picture.mode not in GREY | COLOUR:
        raise UserError.about(key, origin, "grey or colour images", f"{origin} holds an image of mode {picture.mode}.")
    return picture


def _file(value: Any, folder: Path) -> io.BytesIO:
    """An image as Pillow opens it; the file itself is closed again, also if it is broken."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        check_read(folder / value, "data.columns.image")
        value = (folder / value).read_bytes()
    if not isinstance(value, bytes):
        raise TypeError
    return io.BytesIO(value)


def named_files(values: Iterable[tuple[str, Any]], folder: Path, key: str = "data.columns.image") -> Iterator[tuple[str, Path]]:
    """Name and path of each file that stands in a column of images.

    Args:
        values: Where each value of the column stands, and the value.
        folder: Folder that relative paths count from.
        key: Dotted key of the setting to blame.

    Raises:
        UserError: There is no such file.
    """
    for origin, value in values:
        if isinstance(value, str) and value:
            check_read(folder / value, key)
            if not (folder / value).is_file():
                raise _no_file(value, origin, key)
            yield value, folder / value


def _no_file(value: Any, origin: str, key: str) -> UserError:
    return UserError.about(key, str(value), "readable images", f"{origin} names it, and there is no such file.")
