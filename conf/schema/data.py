"""Settings of the data sources and of the tokenizer."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from conf.schema.base import Choices, Settings, setting
from conf.schema.generate import Generate
from conf.schema.tables import Columns, ScoredPairs, Splits, TransferRows

Pixels = Annotated[int, Field(ge=1, le=4096)]


class CommonData(Settings):
    """Settings of every data source."""

    workloads: ClassVar[tuple[str, ...]] = ("causal-lm", "sequence-classification")  # that the source serves
    image_shape: ClassVar[tuple[int, int, int] | None] = None  # (C, H, W) of images that the source brings as numbers; None: as files
    rows: ClassVar[int] = 0  # of a source that needs nothing but its name; 0: not known

    sequence_length: int = setting(192, "Length of a training sequence; longer texts are cut or split", "tokens", ge=2, le=1_048_576)
    valid_fraction: float = setting(0.05, "Share of documents held out for validation", "fraction of documents", gt=0, lt=0.5)
    test_fraction: float = setting(0.05, "Share of documents kept apart for final proofs", "fraction of documents", gt=0, lt=0.5)
    max_documents: int | None = setting(None, "Use at most this many documents, drawn by `seed`; none: all", "documents", ge=3, le=10**10)
    max_train_documents: int | None = setting(
        None,
        "Train on at most this many documents, drawn by `seed`; valid and test stay as they are; none: all",
        "documents",
        added=True,
        ge=1,
        le=10**10,
    )
    classes: int | None = setting(
        None, "Number of classes, which confirms labels that look like a mistake; none: counted in the data", "classes", ge=2, le=1_000_000
    )
    missing: Literal["error", "drop"] = setting(
        "error",
        "Rows without text or image: error refuses the first; drop leaves out these, rows without label and images that cannot be read, "
        "counted in log and record",
        added=True,
    )
    unlabelled: tuple[str, ...] = setting((), "Values of the label column that stand for no label, such as -100", "labels", added=True)
    max_labels: int | None = setting(
        None,
        "Keep the labels of this many training examples, drawn by `seed`; teachers alone label the others; none: all",
        "labels",
        added=True,
        ge=1,
        le=10**10,
    )
    seed: int = setting(0, "Seed of all draws; more documents of one seed include fewer", "seed", added=True, ge=0, lt=2**31)
    cross_document_attention: bool = setting(
        True, "Let attention in a training window of packed documents cross from one into the next (causal-lm)", added=True
    )
    transfer: tuple[TransferRows, ...] = setting(
        (),
        "Further tables for training alone: a row without label has the teacher's answer as its target, one that a held-out row equals is "
        "left out; none: no others",
        "tables",
        added=True,
    )
    generate: Generate | None = setting(
        None, "Answers that a teacher writes to prompts, for training alone as those of `transfer` (causal-lm); none: no such", added=True
    )

    pairs: ScoredPairs | None = setting(
        None, "Pairs of texts with scores, by whose rank each model is judged (embedding); none: no pairs", added=True
    )

    @field_validator("unlabelled", mode="before")
    @classmethod
    def _numbers_as_text(cls, value: Any) -> Any:
        return [str(item) if isinstance(item, int | float) else item for item in value] if isinstance(value, list | tuple) else value


class StdlibData(CommonData):
    """The source code of Python's standard library, which every machine has. Slices are its top-level packages."""

    workloads: ClassVar[tuple[str, ...]] = ("causal-lm",)

    source: Literal["python-stdlib"] = setting("python-stdlib", "Kind of data source")


class DigitsData(CommonData):
    """The 1,797 handwritten digits (8 x 8 pixels) that scikit-learn carries. Slices are the digits."""

    workloads: ClassVar[tuple[str, ...]] = ("image-classification",)
    image_shape: ClassVar[tuple[int, int, int] | None] = (1, 8, 8)
    rows: ClassVar[int] = 1797

    source: Literal["digits"] = setting("digits", "Kind of data source")


class Resize(Settings):
    """One size for all images, made by Pillow's bilinear filter as the image processors of transformers do."""

    size: tuple[Pixels, Pixels] = setting(
        ..., "Height and width that every image gets", "pixels", allowed="two whole numbers from 1 to 4096"
    )
    method: Literal["crop", "stretch"] = setting(
        "crop", "crop: scale the shorter side and keep the middle, for squares; stretch: scale both sides, whatever their proportion"
    )

    @model_validator(mode="after")
    def _crop_makes_squares(self) -> Resize:
        if self.method == "crop" and self.size[0] != self.size[1]:
            raise ValueError(f"got size {list(self.size)} with method 'crop'; allowed: a square. Use equal sides, or method: stretch.")
        return self


class PictureData(CommonData):
    """Settings of the data sources that read pictures, besides others."""

    workloads: ClassVar[tuple[str, ...]] = (
        "causal-lm",
        "sequence-classification",
        "image-classification",
        "image-text",
        "embedding",
        "image-text-embedding",
    )

    resize: Resize | None = setting(
        None, "Size that images are brought to; none: that of a checkpoint teacher's image processor, else all must have one size"
    )
    channels: Literal["auto", 1, 3] = setting(
        "auto",
        "1: grey; 3: colour; auto: as many as a checkpoint teacher takes, else 3, which is what transformers.pipeline hands over",
        allowed="auto, 1 or 3",
    )


class WeightedSource(Settings):
    """One of several sources that are mixed: files, or a Hugging Face dataset."""

    name: str = setting(..., "Its slice in evaluations, where no column groups the examples", "name", min_length=1)
    paths: tuple[str, ...] = setting((), "Files or glob patterns", "paths")
    dataset: str | None = setting(
        None, "In place of `paths`: dataset id on the hub, or a folder written by save_to_disk", "id or path", added=True, min_length=1
    )
    subset: str | None = setting(None, "Configuration of a hub dataset", "name", added=True)
    split: str = setting("train", "Split of the dataset to read", "name", added=True)
    revision: str | None = setting(None, "Git revision of a hub dataset", "revision", added=True)
    columns: Columns | None = setting(None, "Names of its columns; none: those of `data.columns`", added=True)
    weight: float = setting(
        1.0, "Times that its training documents are read in an epoch; 2.5: twice, and half of them once more", "times", gt=0, le=100
    )

    @model_validator(mode="after")
    def _files_or_a_dataset(self) -> WeightedSource:
        if bool(self.paths) == (self.dataset is not None):
            given = "paths and dataset" if self.paths else "neither paths nor dataset"
            raise ValueError(f"got {given}; allowed: one of them. Name files or patterns, or a dataset.")
        if self.dataset is None and (self.subset is not None or self.revision is not None):
            raise ValueError("got subset or revision without dataset; allowed: paths alone, or dataset with them. Leave them out.")
        return self


class FilesData(PictureData):
    """Local files.

    `.txt`, `.py` and other text: a file is a document. `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`: a row is one, or names an image
    file. Folders of images: a file is an example, the folder that it lies in its class.
    """

    source: Literal["files"] = setting("files", "Kind of data source")
    paths: tuple[str, ...] = setting((), "Files or glob patterns; relative ones count from the ladder's YAML file", "paths")
    splits: Splits | None = setting(
        None, "Given splits: `train`, `valid`, `test` as paths in place of `paths`, or a `column`; none: by hash", added=True
    )
    sources: tuple[WeightedSource, ...] = setting((), "Several sources with weights, in place of `paths`; none: one source", added=True)
    columns: Columns = setting(Columns(), "Names of the columns in tabular files")

    @model_validator(mode="after")
    def _paths_or_splits(self) -> FilesData:
        given = {"paths": self.paths, "splits.train": self.splits and self.splits.train, "sources": self.sources}
        found = [name for name, value in given.items() if value]
        if len(found) != 1:
            said = " and ".join(found) or "none of paths, splits.train and sources"
            raise ValueError(f"got {said}; allowed: one of them. Name files or patterns such as paths: [data/*.jsonl].")
        if any(source.columns and source.columns.conversations != self.columns.conversations for source in self.sources):
            raise ValueError("got columns of conversations in some; allowed: in all of data.columns and sources, or in none. Change them.")
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"got sources named {', '.join(names)}; allowed: a name of its own for each. Rename one.")
        return self

    @property
    def has_datasets(self) -> bool:
        """Whether any of several sources is a Hugging Face dataset."""
        return any(source.dataset is not None for source in self.sources)

    @property
    def is_mixed(self) -> bool:
        """Whether several sources are read each in its own way: datasets, or columns of their own."""
        return self.has_datasets or any(source.columns is not None for source in self.sources)

    def of_source(self, source: WeightedSource) -> FilesData | DatasetData:
        """The settings of one of several sources as if it were the only one."""
        columns = {"columns": source.columns or self.columns}
        if source.dataset is None:
            return self.model_copy(update={"sources": (), "paths": source.paths, "transfer": (), "generate": None, **columns})
        shared = {name: getattr(self, name) for name in PictureData.model_fields} | columns | {"transfer": (), "generate": None}
        named = {"name": source.dataset, "subset": source.subset, "split": source.split, "revision": source.revision}
        return DatasetData.model_construct(None, **{"source": "dataset", "splits": self.splits, **named, **shared})

    def patterns(self) -> dict[str, tuple[str, ...]]:
        """Key of the setting -> its patterns, in the order in which files are read."""
        if self.sources:
            return {f"data.sources[{index}].paths": source.paths for index, source in enumerate(self.sources)}
        given = self.splits.named() if self.splits else {}
        return {f"data.splits.{name}": patterns for name, patterns in given.items()} or {"data.paths": self.paths}


class DatasetData(PictureData):
    """A Hugging Face dataset, from the hub or from a folder written by `save_to_disk`."""

    source: Literal["dataset"] = setting("dataset", "Kind of data source")
    name: str = setting(..., "Dataset id on the hub, or a folder written by save_to_disk", "id or path", min_length=1)
    subset: str | None = setting(None, "Configuration of a hub dataset", "name")
    split: str = setting("train", "Split to read; Ladder makes its own train, valid and test parts from it", "name")
    splits: Splits | None = setting(
        None, "Given splits: `train`, `valid`, `test` as names in place of `split`, or a `column`; none: by hash", added=True
    )
    revision: str | None = setting(None, "Git revision of a hub dataset", "revision")
    columns: Columns = setting(Columns(), "Names of the columns")


def has_rationales(data: CommonData, own: bool = False) -> bool:
    """Whether any rows of a source, or of `data.transfer`, may bear a rationale; `own`: by the columns of `data` itself."""
    tables = [data] if own else [data, *getattr(data, "sources", ()), *data.transfer]
    return any(columns is not None and columns.rationale is not None for each in tables if (columns := getattr(each, "columns", None)))


def rounds_of(data: CommonData) -> int:
    """Rounds in which a teacher writes rows and a student is judged by them; 1 also where nothing is written."""
    return 1 if data.generate is None else data.generate.rounds


def transfer_data(data: CommonData, place: int) -> FilesData:
    """One table of `data.transfer` as settings of files, with the ladder's columns unless it has its own."""
    rows = data.transfer[place]
    columns = rows.columns or getattr(data, "columns", None) or Columns()
    shared = {
        name: getattr(data, name) for name in PictureData.model_fields if hasattr(data, name) and name not in ("transfer", "generate")
    }
    return FilesData.model_construct(None, source="files", paths=rows.paths, columns=columns, splits=None, sources=(), **shared)


Data = Annotated[StdlibData | DigitsData | FilesData | DatasetData, Field(discriminator="source"), Choices()]


def sources_for(workload: str) -> list[str]:
    """Names of the data sources that serve a workload."""
    union, *_ = get_args(Data)
    return [each.model_fields["source"].default for each in get_args(union) if workload in each.workloads]


class Tokenizer(Settings):
    """The tokenizer of the data: that of every student, and of the teacher but for objective.alignment."""

    kind: Literal["bytes", "teacher", "bpe", "folder"] = setting(
        "bytes",
        "bytes: UTF-8 bytes and specials; teacher: the checkpoint's own; bpe: trained on the training documents; folder: that of `path`",
    )
    vocabulary: int | None = setting(
        None, "Size of the vocabulary: required for bpe; for teacher, used by `plan` alone", "ids", ge=259, le=10_000_000
    )
    path: str | None = setting(
        None,
        "Folder of a Hugging Face tokenizer, such as that of a student's checkpoint (folder; causal-lm)",
        "path",
        added=True,
        min_length=1,
    )
    chat_template: str | None = setting(
        None,
        "Chat template of conversations: its text, or the path of a file, counted from the ladder's YAML file; the word none: prompt and "
        "completion one after another; not set: the tokenizer's own, if it has one",
        added=True,
    )

    @property
    def is_given(self) -> bool:
        """Whether it exists before the data are prepared: a checkpoint's, or a folder's."""
        return self.kind in ("teacher", "folder")

    @model_validator(mode="after")
    def _folder_needs_a_path(self) -> Tokenizer:
        if (self.kind == "folder") != (self.path is not None):
            found = "without a path" if self.path is None else f"with the path {self.path!r}"
            raise ValueError(f"got kind {self.kind!r} {found}; allowed: kind folder with a path. Add or leave out the path.")
        return self

    @model_validator(mode="after")
    def _bpe_needs_a_size(self) -> Tokenizer:
        if self.kind == "bpe" and self.vocabulary is None:
            raise ValueError(
                "got kind 'bpe' without a vocabulary; allowed: kind bpe with a number of ids. Give one, such as vocabulary: 4096."
            )
        return self
