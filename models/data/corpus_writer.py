"""Append documents to the arrays of a corpus."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from models.data.corpus import COUNTED
from models.data.encoder import Encoded

Rows = dict[str, int]  # array -> rows written
LINES = "lines"


class GrowingArray:
    """An `.npy` file, byte for byte as `np.save` writes it, to which rows are appended."""

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...] = (), rows: int = 0) -> None:
        """Open the file and keep its first `rows`; `shape` is that of one row."""
        self.dtype, self.shape, self.rows = np.dtype(dtype), shape, rows
        self._file = path.open("r+b" if rows else "w+b")
        self._write_header()
        self._file.seek(rows * int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize, 1)
        self._file.truncate()

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows of the array's shape."""
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data.cast("B") if rows.size else b"")
        self.rows += len(rows)

    def flush(self) -> None:
        """Flush to the system, so that the rows outlive the process."""
        self._file.flush()

    def close(self) -> None:
        """Write the number of rows into the file, and close it."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        # numpy leaves room for the number of rows, so the header is as long for any of them.
        description = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, description)


class SplitWriter:
    """The arrays of a `Split`, documents appended; a context that closes its files.

    Beside them lie the hashes of sampled lines, `LINES`, where there are any; they are no part of the split.
    """

    def __init__(
        self, folder: Path, dtype: DTypeLike, shape: tuple[int, ...] = (), rows: Rows | None = None, counted: bool = False
    ) -> None:
        """Begin in a folder, which is made, or go on after the `rows` written there.

        Args:
            folder: Of the split.
            dtype: Of a value.
            shape: Of a value.
            rows: Of each array; None: nothing is written yet.
            counted: Whether not all ids are to be predicted, see `Split.counted`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        kept = rows or {}
        kinds: dict[str, Any] = {"values": dtype, "offsets": np.int64, "labels": np.int64, "slices": np.int32, "sizes": np.int64}
        if counted:
            kinds[COUNTED] = np.uint8
        self._arrays = {
            name: GrowingArray(folder / f"{name}.npy", kind, shape if name == "values" else (), kept.get(name, 0))
            for name, kind in kinds.items()
        }
        self._arrays[LINES] = GrowingArray(folder.with_name(f"{folder.name}-{LINES}.npy"), np.uint64, (), kept.get(LINES, 0))
        if not self._arrays["offsets"].rows:
            self._arrays["offsets"].append(np.zeros(1, dtype=np.int64))

    def append(self, encoded: Encoded, labels: NDArray[Any], slices: NDArray[Any], sizes: NDArray[Any]) -> None:
        """Append documents; one label, slice and size each."""
        arrays, end = self._arrays, self._arrays["values"].rows
        arrays["values"].append(encoded.values)
        arrays["offsets"].append(end + np.cumsum(encoded.counts))
        arrays["labels"].append(labels)
        arrays["slices"].append(slices)
        arrays["sizes"].append(sizes)
        if encoded.counted is not None:
            arrays[COUNTED].append(encoded.counted)
        if encoded.lines is not None:
            arrays[LINES].append(encoded.lines)

    def flush(self) -> Rows:
        """Flush to the system; returns the number of rows, from which a later process can go on."""
        for array in self._arrays.values():
            array.flush()
        return {name: array.rows for name, array in self._arrays.items()}

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for array in self._arrays.values():
            array.close()
