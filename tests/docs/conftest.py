"""The Prefect server and the MLflow database of the tests of flows serve the commands of the pages, too."""

from tests.flows.conftest import empty_database, prefect_api

__all__ = ["empty_database", "prefect_api"]
