"""Records of another machine, with their folders in the store of this one."""

from __future__ import annotations

import os

from conf.errors import LadderError
from tasks.records.run import DataRecord, StageRecord
from tasks.runtime.runs.at_hand import Known, at_hand
from tasks.runtime.runs.run_registry import Context, store_of
from tasks.store.store import Store


def data_here(record: DataRecord, context: Context) -> DataRecord:
    """The record of a corpus with its folder on this machine; raises as `model_here`."""
    return _here(store_of(context), record)


def model_here(record: StageRecord, context: Context) -> StageRecord:
    """The record of a model, and those of its members, with their folders on this machine.

    Raises:
        LadderError: It is neither on a disk that this machine sees nor in its store, nor in the object store behind it.
    """
    store = store_of(context)
    members = tuple(_here(store, each) for each in record.members)
    return _here(store, record).model_copy(update={"members": members})


def _here(store: Store, record: Known) -> Known:
    found = at_hand(store, record)
    if found is None:
        raise LadderError(
            f"LADDER_CLUSTER: {os.uname().nodename} does not see {record.folder}, and it is not in its store, {store.home.store}. "
            "Give all machines the same LADDER_STORE, or a disk that all see."
        )
    return found
