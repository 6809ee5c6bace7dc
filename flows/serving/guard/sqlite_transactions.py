"""Patch of Prefect's server: SQLite transactions take their lock at the start.

Loaded by path, apart from the rest of the project, by `parent_watchdog.py`.
"""

from __future__ import annotations

from typing import Any


def begin_immediate() -> None:
    """Make Prefect's writing transactions on SQLite take the lock when they begin, and wait for it.

    Without it most read first. If another writes before they do, SQLite refuses them without waiting; the server answers 503, and its
    client asks again after two seconds: in every fourth reused run. https://sqlite.org/lang_transaction.html
    """
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin: Any = AioSqliteConfiguration.begin_transaction

    def immediate(self: AioSqliteConfiguration, session: Any, with_for_update: bool = True) -> Any:
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = immediate
