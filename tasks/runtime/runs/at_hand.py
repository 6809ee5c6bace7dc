"""Results of records that lie elsewhere: fetched into the store of this home.

They may be another machine's, or a size limit has removed them from the home (`LADDER_STORE_CACHE`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from tasks.records.run import DataRecord, StageRecord
from tasks.store.cached import find_stored
from tasks.store.store import Store

DATA, MODELS = ("data",), ("teacher", "stage")  # parts of the store
Known = TypeVar("Known", DataRecord, StageRecord)


def at_hand(store: Store, record: Known) -> Known | None:
    """The record with its folder on this machine; None: it is neither on a disk that is seen here, nor in the store, nor behind it."""
    if Path(record.folder).is_dir():
        return record
    for kind in DATA if isinstance(record, DataRecord) else MODELS:
        found = find_stored(store, kind, record.fingerprint)
        if found is not None:
            return record.model_copy(update={"folder": str(found.folder)})
    return None
