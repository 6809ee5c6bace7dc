"""Image files in folders: their classes and given splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from conf.errors import UserError
from models.data import image_processors as processors
from models.data.corpus import Pixels, SplitName

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
HIDDEN = (".", "__MACOSX")  # beginnings of names


def image_files(folder: Path) -> list[Path]:
    """The image files in a folder and its sub-folders, sorted, without those that are hidden or that macOS adds to archives."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(HIDDEN) for part in path.relative_to(folder).parts))


def image_places(
    files: Iterable[Path], folders: Sequence[Path], words: Mapping[str, SplitName]
) -> dict[Path, tuple[str | None, SplitName | None]]:
    """Class and given split of each image file, by the folders that it lies in.

    In a folder that the settings name, the uppermost folder is the class, as torchvision's `ImageFolder` has it; an image that lies
    directly in it has none. Any other file has its own folder's name. Where all classes lie in folders called train and valid or test,
    those are the splits.

    Args:
        files: The image files.
        folders: The folders that the settings name.
        words: Names of splits, in small letters.
    """
    outer, plain, within = dict[Path, str](), dict[Path, str | None](), dict[Path, str]()
    for file in files:
        root = next((folder for folder in folders if file.is_relative_to(folder)), None)
        names = file.parent.parts if root is None else file.parent.relative_to(root).parts
        plain[file] = None if not names else names[0] if root else names[-1]
        if len(names) > 1:
            outer[file], within[file] = (names[0], names[1]) if root else (names[-2], names[-1])
    splits = {words.get(name.lower()) for name in outer.values()}
    if len(outer) < len(plain) or None in splits or "train" not in splits or len(splits) < 2:
        _check_no_split(outer, {name for name in plain.values() if name}, words)
        return {file: (name, None) for file, name in plain.items()}
    return {file: (within[file], words[name.lower()]) for file, name in outer.items()}


def _check_no_split(outer: Mapping[Path, str], classes: set[str], words: Mapping[str, SplitName]) -> None:
    """Refuse a folder called train that holds folders, beside one that is neither a split nor holds any: it is hardly a class.

    Args:
        outer: Uppermost folder of each file that lies in two.
        classes: Folders that would be classes.
        words: Names of splits, in small letters.

    Raises:
        UserError: There is one.
    """
    found = next((name for name in outer.values() if words.get(name.lower()) == "train"), None)
    if found is not None and found in classes:
        allowed = "folders of classes; or train and valid or test alone, with the folders of classes in them"
        remedy = f"Name the folders so, or the folder {found} itself in data.paths."
        raise UserError.about("data.paths", ", ".join(sorted(classes)), allowed, remedy)


def digit_pixels(teacher: Path | None) -> Pixels | None:
    """Scaling from arrays in [0, 1] to a teacher's pixels; None: none."""
    if teacher is None or not processors.normalises(teacher):
        return None
    found = processors.arithmetic(processors.load(teacher), 1)
    return None if found is None else Pixels(processors.LEVELS * found.factor, found.mean, found.std)
