"""Images from folders, tables, Parquet and datasets; sizes and channels made equal."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conf.errors import UserError
from conf.loading import path_policy
from conf.schema.data import DatasetData, FilesData, PictureData
from models.data.images import ImageReader
from tasks.data.reading.sources import read_source, source_hash
from tests.tasks.data.reading.pictures import class_folders, documents, levels, picture


@pytest.mark.parametrize("pattern", ["pictures", "pictures/*/*.png", "pictures/**/*.png"])
def test_the_folder_of_an_image_is_its_class(tmp_path: Path, pattern: str) -> None:
    class_folders(tmp_path / "pictures")
    (tmp_path / "pictures" / "cat" / "notes.txt").write_text("no image") if pattern == "pictures" else None
    found = documents(FilesData(paths=(pattern,)), tmp_path)
    assert [(d.origin, d.label, d.slice) for d in found[:1]] == [("pictures/cat/0.png", "cat", "cat")]
    assert [d.label for d in found] == ["cat"] * 6 + ["dog"] * 6
    assert np.array_equal(levels(found[6]), np.asarray(picture(1)).transpose(2, 0, 1))


def test_folders_called_train_and_test_are_given_splits(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        class_folders(tmp_path / "pictures" / split, 4)
    for pattern in ("pictures", "pictures/*/*/*.png"):
        found = documents(FilesData(paths=(pattern,)), tmp_path)
        assert {(d.split, d.label) for d in found} == {(s, c) for s in ("train", "valid", "test") for c in ("cat", "dog")}
    assert {d.split for d in documents(FilesData(paths=("pictures/train",)), tmp_path)} == {None}, "a part of the data has no parts"


def test_the_uppermost_folder_is_the_class_and_outside_of_it_there_is_none(tmp_path: Path) -> None:
    class_folders(tmp_path / "pictures" / "pets", 2)
    class_folders(tmp_path / "pictures" / "test", 2)
    picture(5).save(tmp_path / "pictures" / "loose.png")
    (tmp_path / "pictures" / "unsorted").mkdir()
    picture(6).save(tmp_path / "pictures" / "unsorted" / "6.png")
    data = FilesData(paths=("pictures",), unlabelled=("unsorted",))
    found = {d.origin: (d.label, d.split) for d in documents(data, tmp_path)}
    assert found == {
        "pictures/loose.png": (None, None),
        "pictures/pets/cat/0.png": ("pets", None),
        "pictures/pets/dog/1.png": ("pets", None),
        "pictures/test/cat/0.png": ("test", None),
        "pictures/test/dog/1.png": ("test", None),
        "pictures/unsorted/6.png": (None, None),
    }


def test_folders_of_classes_may_be_named_one_by_one(tmp_path: Path) -> None:
    class_folders(tmp_path / "pictures", 4)
    data = FilesData(paths=("pictures/cat", "pictures/dog"))
    assert {d.origin: d.label for d in documents(data, tmp_path)} == {
        f"pictures/{kind}/{number}.png": kind for number, kind in enumerate(["cat", "dog", "cat", "dog"])
    }
    given = FilesData.model_validate({"splits": {"train": ["pictures/cat"], "test": ["pictures/dog"]}})
    assert {d.label for d in documents(given, tmp_path)} == {None}


def test_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "1.npy").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"data\.paths\[0\]: got 'arrays'; .* It names a folder without pictures: their names end in \.bmp, "
    ):
        documents(FilesData(paths=("arrays",)), tmp_path)


def test_a_table_with_a_path_that_is_not_there_or_a_row_without_one(tmp_path: Path) -> None:
    class_folders(tmp_path / "pictures", 4)
    rows = [[f"pictures/{kind}/{number}.png", kind] for number, kind in enumerate(["cat", "dog", "cat", "dog"])]

    def data(path: str, missing: str = "error") -> FilesData:
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image", "label"], *rows, [path, "cat"]])
        return FilesData.model_validate({"paths": ["rows.csv"], "missing": missing})

    with pytest.raises(UserError, match=r"data\.columns\.image: got 'gone\.png'; allowed: readable images\. rows\.csv:6 names it"):
        source_hash(data("gone.png"), tmp_path, "image-classification")
    with pytest.raises(UserError, match=r"an image in every row\. rows\.csv:6 has none: data\.missing=drop"):
        documents(data(""), tmp_path)
    assert source_hash(data("", "drop"), tmp_path, "image-classification")
    assert len(documents(data("", "drop"), tmp_path)) == 4


def test_a_table_names_files_beside_itself(tmp_path: Path) -> None:
    class_folders(tmp_path / "in" / "pictures", 2)
    with (tmp_path / "in" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "kind"), ("pictures/cat/0.png", "tabby"), ("pictures/dog/1.png", "pug")])
    data = FilesData.model_validate({"paths": ["in/labels.csv"], "columns": {"image": "file", "label": "kind"}})
    found = documents(data, tmp_path)
    assert [d.label for d in found] == ["tabby", "pug"]
    assert np.array_equal(levels(found[1]), np.asarray(picture(1)).transpose(2, 0, 1))
    before = source_hash(data, tmp_path, "image-classification")
    picture(7).save(tmp_path / "in" / "pictures" / "dog" / "1.png")
    assert source_hash(data, tmp_path, "image-classification") != before, "the images belong to the content"
    (tmp_path / "in" / "pictures" / "dog" / "1.png").unlink()
    with pytest.raises(UserError, match=r"data\.columns\.image: got 'pictures/dog/1.png'.*in/labels.csv:3 names it"):
        documents(data, tmp_path)


def test_bytes_in_parquet_and_pictures_in_datasets(tmp_path: Path) -> None:
    import datasets

    buffers = [io.BytesIO(), io.BytesIO()]
    for number, buffer in enumerate(buffers):
        picture(number).save(buffer, "PNG")
    made = datasets.Dataset.from_dict({"image": [b.getvalue() for b in buffers], "label": [0, 1]})
    made.to_parquet(tmp_path / "bytes.parquet")
    made.cast_column("image", datasets.Image()).to_parquet(tmp_path / "struct.parquet")
    made.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    for data in (FilesData(paths=("bytes.parquet",)), FilesData(paths=("struct.parquet",)), DatasetData(name="saved")):
        assert np.array_equal(levels(documents(data, tmp_path)[1]), np.asarray(picture(1)).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "1", "RGBA", "P", "I;16"])
def test_channels_are_colour_unless_grey_is_asked_for(tmp_path: Path, mode: str) -> None:
    made = Image.fromarray(np.full((4, 6), 257 * 51, np.uint16)) if mode == "I;16" else picture(0, mode=mode)
    made.save(tmp_path / "a.png")
    assert made.mode == mode
    for channels in ("auto", 3, 1):
        reader = ImageReader(PictureData(channels=channels), None)
        values, _ = reader.read("a.png", "a.png", "data.paths", tmp_path)
        assert (values.shape, values.dtype) == ((1 if channels == 1 else 3, 4, 6), np.uint8)
        if mode == "I;16":
            assert set(values.ravel().tolist()) == {51}, "16 bits are scaled, not cut"


def test_equal_images_have_one_key_whatever_their_format(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    picture(0).save(tmp_path / "b.bmp")
    reader = ImageReader(PictureData(), None)
    first, second = (reader.read(name, name, "data.paths", tmp_path)[1] for name in ("a.png", "b.bmp"))
    assert first == second, "or they would stand on both sides of a split"


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture(0).save(tmp_path / "a.png", exif=exif)
    values, _ = ImageReader(PictureData(), None).read("a.png", "a.png", "data.paths", tmp_path)
    assert np.array_equal(values, np.rot90(np.asarray(picture(0)), -1).transpose(2, 0, 1))


def test_sizes_must_be_equal_or_made_so(tmp_path: Path) -> None:
    class_folders(tmp_path, 4)
    picture(9, (8, 8)).save(tmp_path / "dog" / "9.png")
    with pytest.raises(UserError, match=r"data\.resize.*4 x 6 in cat/0.png, but 8 x 8 in dog/9.png.*size: \[4, 4\]"):
        documents(FilesData(paths=("*/*.png",)), tmp_path)
    for method, size in (("crop", (4, 4)), ("stretch", (3, 5))):
        data = FilesData.model_validate({"paths": ["*/*.png"], "resize": {"size": size, "method": method}})
        assert {levels(d).shape for d in documents(data, tmp_path)} == {(3, *size)}
    with pytest.raises(ValueError, match="allowed: a square"):
        FilesData.model_validate({"paths": ["*"], "resize": {"size": [4, 5]}})


def test_a_crop_keeps_the_middle_and_a_stretch_everything(tmp_path: Path) -> None:
    wide = Image.new("RGB", (12, 4), "white")
    wide.paste("black", (0, 0, 4, 4))
    crop, stretch = (
        ImageReader(PictureData.model_validate({"resize": {"size": [4, 4], "method": method}}), None).read(wide, "", "data")[0]
        for method in ("crop", "stretch")
    )
    assert crop.min() == 255
    assert stretch.min() == 0


@pytest.mark.parametrize("content", [b"not a picture", b"", None], ids=["text", "empty", "cut"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    class_folders(tmp_path, 4)
    file = tmp_path / "dog" / "3.png"
    file.write_bytes(file.read_bytes()[:60] if content is None else content)
    with pytest.raises(UserError, match=r"data\.paths: got 'dog/3.png'; allowed: readable images\. Mend or leave out"):
        documents(FilesData(paths=("*/*.png",)), tmp_path)
    source = read_source(FilesData(paths=("*/*.png",), missing="drop"), "image-classification", tmp_path)
    assert source.dropped == {"readable image": 1}
    assert "dog/3.png" not in {document.origin for document in source.documents}


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"image": [7], "label": [0]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match=r"data\.columns\.image.*saved, row 0 holds int"):
        documents(DatasetData(name="saved"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"data\.paths\[0\]: got 'empty'"):
        documents(FilesData(paths=("empty",)), tmp_path)


def test_hidden_files_and_those_of_archives_are_no_images(tmp_path: Path) -> None:
    class_folders(tmp_path / "all")
    for name in (".cache/1.png", "__MACOSX/cat/._1.png", "cat/._2.png"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(b"no image")
    assert {document.label for document in documents(FilesData(paths=("all",)), tmp_path)} == {"cat", "dog"}


def test_a_folder_called_train_that_holds_folders_is_no_class(tmp_path: Path) -> None:
    class_folders(tmp_path / "all" / "train")
    class_folders(tmp_path / "all" / "holdout")
    with pytest.raises(UserError, match=r"data\.paths: got 'holdout, train'; allowed: folders of classes; or train and valid or test"):
        documents(FilesData(paths=("all",)), tmp_path)
    class_folders(tmp_path / "vehicles")
    (tmp_path / "vehicles" / "cat").rename(tmp_path / "vehicles" / "train")
    assert {document.label for document in documents(FilesData(paths=("vehicles",)), tmp_path)} == {"train", "dog"}


def test_a_table_of_a_served_run_names_no_image_outside_the_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "roots").mkdir()
    picture().save(tmp_path / "secret.png")
    data = FilesData(paths=["table.csv"], columns={"image": "file", "label": "kind"})  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(path_policy, "_served", (tmp_path / "roots",))
    for name in ("../secret.png", str(tmp_path / "secret.png"), "../none.png"):
        (tmp_path / "roots" / "table.csv").write_text(f"file,kind\n{name},a\n")
        for read in (documents, lambda data, base: source_hash(data, base, "image-classification")):
            with pytest.raises(UserError, match=r"data\.columns\.image: got .*; allowed: a path inside the allowed folders"):
                read(data, tmp_path / "roots")


@pytest.mark.parametrize("channels", ["null", '"x"', "[3]", "2.5"])
def test_a_teacher_without_a_number_of_channels_is_refused(tmp_path: Path, channels: str) -> None:
    (tmp_path / "config.json").write_text(f'{{"num_channels": {channels}}}')
    with pytest.raises(UserError, match=r"^teacher\.path: got .* with num_channels "):
        ImageReader(PictureData(channels="auto"), tmp_path)
