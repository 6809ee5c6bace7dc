"""Find the exports of given weights in the store."""

from __future__ import annotations

from pathlib import Path

from conf.home import Home
from models.base.files import read_json
from tasks.export.export import KIND
from tasks.records.export import CHECK, ExportRecord
from tasks.store.store import MANIFEST, Store


def stored_exports(home: Home, weights_sha256: str) -> dict[str, Path]:
    """Format -> folder of each verified export of a student; the newest where there are several.

    Args:
        home: The home.
        weights_sha256: Hash of the student's weights.
    """
    found: dict[str, Path] = {}
    folders = sorted((home.store / KIND).glob(f"*/{CHECK}"), key=lambda path: path.stat().st_mtime)
    for file in folders:
        try:
            record = ExportRecord.model_validate_json(file.read_bytes())
            fingerprint = read_json(file.parent / MANIFEST)["fingerprint"]
        except (OSError, ValueError, LookupError):
            continue  # damaged, or of another version
        if record.weights_sha256 == weights_sha256 and Store(home).peek(KIND, fingerprint) is not None:
            found[record.name] = file.parent
    return found
