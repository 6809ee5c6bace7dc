"""A result that a server names is never unpickled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultRecordMetadata, ResultStore
from prefect.serializers import CompressedSerializer, PickleSerializer, Serializer
from prefect.states import Completed

from tasks.runtime import prefect_client


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("serializer", [PickleSerializer(), CompressedSerializer(serializer=PickleSerializer())])
def test_a_state_that_names_a_pickle_as_its_result_runs_nothing(tmp_path: Path, serializer: Serializer[Any]) -> None:
    assert prefect_client.AWAY
    trace, file = tmp_path / "trace", tmp_path / "result"
    store = ResultStore(result_storage=LocalFileSystem(basepath=str(tmp_path)), serializer=serializer)
    record = store.create_result_record(Payload(trace), key="result")
    asyncio.run(store.apersist_result_record(record))
    metadata = ResultRecordMetadata(storage_key=str(file), serializer=serializer)
    state = Completed(data=metadata)
    assert state.data == metadata, "as a server sends it"
    with pytest.raises(ValueError, match="Ladder reads no pickles"):
        asyncio.run(ResultStore._from_metadata(metadata)).result  # noqa: B018
    assert not trace.exists()
