"""Settings of `ladder monitor`: windows, the drop that matters, permitted errors."""

from __future__ import annotations

from pydantic import model_validator

from conf.schema.base import Settings, setting


class WindowColumns(Settings):
    """Columns of window files, where they have other names than those that `ladder serve-model` writes."""

    input: str = setting("input", "Column of the text, or of an image's place", "column", identity=False, min_length=1)
    label: str = setting("label", "Column of the right answer; it may be missing, and cells may be empty", "column", identity=False)
    prediction: str = setting("prediction", "Column of the answer that was served", "column", identity=False)
    confidence: str = setting("confidence", "Column of its probability", "column", identity=False)
    time: str = setting("time", "Column of the request's time, ISO 8601 or seconds since 1970", "column", identity=False)
    request: str = setting(
        "request", "Column of the request's id, by which a row that comes again is counted once", "column", identity=False
    )
    slice: str = setting("slice", "Column of slices", "column", identity=False)
    model: str = setting("model", "Column of the version that answered", "column", identity=False)


class Monitoring(Settings):
    """Watching a promoted model on windows of requests, and the drop at which the ladder goes back to work."""

    windows: str | None = setting(
        None,
        "Folder of window files, or a pattern of them (JSON lines or Parquet); none: those that `ladder serve-model` writes",
        "path",
        identity=False,
    )
    columns: WindowColumns = setting(WindowColumns(), "Columns of the window files", identity=False)
    drop: float = setting(
        0.02,
        "Relative drop of the promoted metric (rise, for bits per byte) that must be exceeded with certainty for a trigger",
        "fraction",
        identity=False,
        gt=0,
        le=0.8,
    )
    alpha: float = setting(
        0.05, "Chance of a false alarm in all windows of a version together", "probability", identity=False, gt=0, lt=0.5
    )
    k: int = setting(
        2, "Of the last `n` windows so many must show the drop, or the shift, themselves", "windows", identity=False, ge=1, le=100
    )
    n: int = setting(3, "Windows in a row that `k` counts in", "windows", identity=False, ge=1, le=100)
    horizon: int = setting(
        50, "Windows for which the chance of a false shift of inputs is `alpha`", "windows", identity=False, ge=1, le=10_000
    )
    cool_down: int = setting(5, "Windows after a trigger without another one", "windows", identity=False, ge=0, le=10_000)
    shadow_rows: int = setting(
        100, "Rows of each window that the root teacher answers, too; 0: it is never loaded", "rows", identity=False, ge=0, le=1_000_000
    )
    reference_rows: int = setting(
        5000, "Largest number of held-out rows that the champion is measured on at promotion", "rows", identity=False, ge=10, le=10_000_000
    )
    psi: float = setting(0.1, "Population stability index from which a significant shift counts", "index", identity=False, ge=0, le=100)
    log_share: float = setting(
        0.0, "Share of requests that `ladder serve-model` writes into windows; 0: none", "fraction", identity=False, ge=0, le=1
    )

    @model_validator(mode="after")
    def _votes_fit(self) -> Monitoring:
        if self.k > self.n:
            raise ValueError(f"k: got {self.k}; allowed: at most n, {self.n}. Lower k, or raise n.")
        return self
