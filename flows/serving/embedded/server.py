"""Prefect's server of a run: the configured one, or one that a home's runs share.

The first run starts it, and later ones find it: it stays for a while after the last (`LADDER_SERVER_SECONDS`), since its start takes
longer than a run that reuses everything. Prefect's own would end with the run, and at a Ctrl-C before the run has recorded its end.

Kernel locks tell processes of it. One is held by the server as long as it lives, one is shared by all that use it, and one keeps the
starts of a home's servers apart, `ladder serve` among them, for concurrent migrations break a new database.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from conf.atomic import write_atomic
from conf.durations import seconds_of
from conf.errors import LadderError, UserError
from conf.home import Home, disk_errors
from conf.locks import is_held
from conf.served import EMBEDDED_API
from flows.serving.elapsed import Patience, elapsed
from flows.serving.server_processes import access
from models.base.files import read_json
from tasks.runtime.empty_databases import begin_database
from tasks.runtime.sqlite_files import look_at

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PROBE_SECONDS, POLL_SECONDS = 15.0, 0.05
STAY_SECONDS = 300.0
NAME = "Prefect's embedded server"
# As Prefect's own does; types of blocks, which no run uses, take a second to register in a new database.
OWN = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
}
READ_BY_SERVER = ("PREFECT_SERVER_", "PREFECT_API_", "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_LOGGING_")
DATABASES = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_DRIVER")
SETTINGS_FILES = (".env", "prefect.toml", "pyproject.toml")  # which Prefect reads in the working directory


def stay_seconds() -> float:
    """Seconds that the embedded server stays after its last user.

    Raises:
        UserError: LADDER_SERVER_SECONDS is no number of seconds.
    """
    return seconds_of("LADDER_SERVER_SECONDS", STAY_SECONDS)


@dataclass
class EmbeddedServer:
    """The server shared by processes of a home with the same settings.

    Attributes:
        home: Whose database it serves.
        key: Digest of all that makes it another server.
        process: Set in the process that has started it.
    """

    home: Home
    key: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Path:
        """The file of its address and process."""
        return self.home.prefect / f"embedded-{self.key}.json"

    @property
    def log(self) -> Path:
        """The file of its output."""
        return self.home.prefect / "server.log"

    def begin(self) -> None:
        """Become a user; start the server where none runs, without waiting for it."""
        for folder in (self.home.locks, self.home.prefect):
            folder.mkdir(parents=True, exist_ok=True)
        fcntl.flock(_open(self._lock("users")), fcntl.LOCK_SH)  # never closed: this process uses it until its end
        self._start_if_none()

    def wait(self) -> str:
        """Wait until the server answers; returns the address of its API.

        Raises:
            LadderError: It has ended, or its start does not get on.
        """
        if (api := self._answering()) is not None:
            return api
        patience = Patience(self._pids)
        with elapsed(NAME, lambda: patience.work if self._lives() else "another server of this home is just starting"):
            while (api := self._answering()) is None:
                if not self._lives():
                    if self.process:
                        raise self._failed(f"it ended with code {self.process.wait()}")
                    self._start_if_none()  # where another process was starting one, or one has just ended
                if patience.is_over():
                    raise self._failed(f"it does not answer, and has done nothing for {patience.seconds:.0f} s")
                time.sleep(POLL_SECONDS)
        return api

    def _start_if_none(self) -> None:
        start, life = _open(self.home.locks / "prefect.lock"), _open(self._lock("server"))
        try:
            for lock in (start, life):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._start(start, life)
        except BlockingIOError:
            pass  # a server lives, or is just starting
        finally:  # the new server holds them
            os.close(start)
            os.close(life)

    def _start(self, start: int, life: int) -> None:
        look_at_database(self.home)
        self.address.unlink(missing_ok=True)
        watchdog, users = Path(__file__).with_name("users_watchdog.py"), self._lock("users")
        with socket.create_server(("127.0.0.1", 0)) as listening, self.log.open("ab") as output:
            api = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
            self.process = subprocess.Popen(
                [sys.executable, "-P", *map(str, (watchdog, listening.fileno(), start, users, stay_seconds()))],
                env={**os.environ, **OWN, **access("127.0.0.1")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[listening.fileno(), start, life],
                start_new_session=True,  # Ctrl-C at the terminal does not reach it
                cwd=None if any(map(os.path.isfile, SETTINGS_FILES)) else self.home.prefect,
            )
        write_atomic(self.address, json.dumps({"api": api, "pid": self.process.pid}))

    def _answering(self) -> str | None:
        import httpx

        try:
            api = str(self._known()["api"])
            answer = httpx.get(f"{api}/health", timeout=1.0, trust_env=False)
        except (OSError, ValueError, KeyError, httpx.TransportError):
            return None
        return api if answer.status_code == httpx.codes.OK and self._lives() else None

    def _known(self) -> dict[str, str | int]:
        return read_json(self.address)

    def _pids(self) -> list[int]:
        try:
            return [int(self._known()["pid"])]
        except (OSError, ValueError, KeyError):
            return []

    def _lives(self) -> bool:
        return is_held(self._lock("server"))

    def _lock(self, of: str) -> Path:
        return self.home.locks / f"prefect-{of}-{self.key}.lock"

    def _failed(self, reason: str) -> LadderError:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self.log.is_file() else []
        return LadderError(f"{NAME} did not start: {reason}. The last line of {self.log}: {lines[-1] if lines else 'none'}")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def embedded_server(home: Home) -> EmbeddedServer:
    """The server of a home for the settings of this process."""
    named = sorted(item for item in os.environ.items() if item[0].startswith(READ_BY_SERVER) and item[0] != "PREFECT_API_URL")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home.prefect / "profiles.toml")
    texts = [
        str(path.absolute()) + path.read_text(encoding="utf-8", errors="replace")
        for path in (*map(Path, SETTINGS_FILES), profiles)
        if path.is_file()
    ]
    code = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parents[1].rglob("*.py"))]
    what = [named, texts, code, os.getuid(), sys.executable, version("prefect"), stay_seconds()]
    return EmbeddedServer(home, hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8])


_BEGUN: list[EmbeddedServer] = []  # at most one: of this process


def begin_embedded(home: Home) -> None:
    """Start the embedded server while this process imports its libraries, unless the environment names another.

    Raises:
        StoreError: The disk is full.
    """
    if not os.environ.get("PREFECT_API_URL") and not _BEGUN:
        with disk_errors(home):
            server = embedded_server(home)
            server.begin()
            _BEGUN.append(server)


def reach_server(home: Home) -> str | None:
    """Check the configured server, or wait for the embedded one and make it that of Prefect's clients in this process.

    That of `ladder serve` counts as configured: `flows.serving.environment.prepare_environment` sets it.

    Returns:
        Address of the API of the configured server; None for the embedded one.

    Raises:
        UserError: Nothing answers as Prefect at `PREFECT_API_URL`.
        LadderError: The embedded server does not start.
    """
    from prefect.settings import get_current_settings

    settings = get_current_settings().api
    if settings.url and settings.url != os.environ.get(EMBEDDED_API):
        check_server(settings.url)
        return settings.url
    begin_embedded(home)
    with disk_errors(home):
        api = _BEGUN[0].wait()
    settings.url = os.environ["PREFECT_API_URL"] = os.environ[EMBEDDED_API] = api  # the settings, and what is read from them anew
    return None


def check_server(url: str) -> None:
    """Check a configured server once, without retries, which suit a running ladder and not a mistyped address.

    Raises:
        UserError: It does not answer as Prefect.
    """
    from prefect.client.orchestration import get_client

    from tasks.runtime.prefect_client import without_retries

    with (
        without_retries(),
        get_client(sync_client=True, httpx_settings={"timeout": PROBE_SECONDS}) as client,
    ):
        error = client.api_healthcheck()
        if error is None:  # which needs no password
            error = _log_in(client, url)
    if error is not None:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        remedy = f"It answered: {reason}. Start it with `prefect server start`, correct the variable, or unset it for an embedded server."
        raise UserError.about("PREFECT_API_URL", url, "the API of a Prefect server that answers, such as http://127.0.0.1:4200/api", remedy)


def _log_in(client: SyncPrefectClient, url: str) -> Exception | None:
    """Make a request that needs the password; returns the error, None without one.

    Raises:
        UserError: The password is wrong.
    """
    from httpx import HTTPStatusError, TransportError
    from prefect.settings import get_current_settings

    try:
        client.api_version()
    except HTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            raise
        allowed, remedy = f"the user:password that {url} asks for", "Set it as it was set for that server."
        given = "(not shown)" if get_current_settings().api.auth_string else None
        raise UserError.about("PREFECT_API_AUTH_STRING", given, allowed, remedy) from None
    except TransportError as error:
        return error
    return None


def look_at_database(home: Home) -> None:
    """Set a damaged SQLite file of Prefect's aside, say that one is gone, and begin a new one.

    Raises:
        LadderError: Another process has locked it.
    """
    if any(os.environ.get(name) for name in DATABASES) or os.environ.get("PREFECT_HOME") != str(home.prefect):
        return  # another database, which is not ours
    used = home.prefect / "server.log"
    look_at(home.prefect / "prefect.db", "Prefect's database", used.exists)
    begin_database(home.prefect / "prefect.db", "prefect")
