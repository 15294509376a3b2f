"""Embedded Postgres, driven by its own ``initdb`` and ``postgres``: TCP on loopback, scram, no sockets."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack import placing
from integration_service.devstack.child import Account, ChildSpec
from integration_service.devstack.data_dir import DataDir, read_json, write_private
from integration_service.devstack.ports import HOST
from integration_service.devstack.supervisor import Supervisor

NAME = "postgres"
INITDB = "initdb"
STOP_SIGNAL = signal.SIGINT  # fast shutdown: https://www.postgresql.org/docs/18/server-shutdown.html
SUPERUSER = "postgres"
_GRACE = timedelta(seconds=15)
_CREATED_WITHIN = timedelta(seconds=90)
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_preload_libraries": "",
    "fsync": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

_log = logging.getLogger(__name__)


# Nothing of the caller's: as root this is another account's process, whose environment others of that account read.
_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}


@dataclass(frozen=True)
class Passwords:
    """Made once for a data directory and kept in it."""

    superuser: str = field(repr=False)
    role: str = field(repr=False)


@dataclass(frozen=True)
class Cluster:
    """The Postgres of one data directory.

    `data` is PGDATA, `programs` the folder of ``initdb`` and ``postgres``, `account` whom they run as.
    """

    data: Path
    programs: Path
    account: Account | None
    port: int
    passwords: Passwords

    @classmethod
    def open(cls, data_dir: DataDir, port: int) -> Self:
        """Finds or makes the place, the programs and the passwords. The data directory's lock must be held.

        Raises UNAVAILABLE where `placing` does. Takes a moment when it has to copy the programs.
        """
        placement = placing.place(data_dir.path)
        passwords = _read_passwords(data_dir.database_passwords)
        if passwords is None:
            if placement.data.exists():
                _move_aside(placement.data)
            passwords = _make_passwords(data_dir.database_passwords)
        return cls(placement.data, placing.programs(placement), placement.account, port, passwords)

    async def start(self, supervisor: Supervisor, on_progress: Callable[[str], None]) -> None:
        """Makes the cluster if there is none, and starts the server. Nothing of its predecessor may live.

        Raises UNAVAILABLE with the end of the log when the making fails. Does not wait for the server.
        """
        if not self.data.exists():
            on_progress(f"Postgres makes its files in {self.data}")
            await self._create(supervisor)
        # Its postmaster is gone, as the claim has shown. The pid in it may by now be another process of the
        # same user, all the more in a restarted container, and Postgres would refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        on_progress(f"Postgres starts on {HOST}:{self.port}")
        await supervisor.start(self._server())

    def _server(self) -> ChildSpec:
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return ChildSpec(
            name=NAME,
            command=(str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port), *settings),
            environment=_ENVIRONMENT,
            stop_signal=STOP_SIGNAL,
            death_signal=signal.SIGQUIT,  # immediate shutdown; SIGKILL would leave its backends to find out
            grace=_GRACE,
            account=self.account,
            cwd=Path("/"),  # ours may be closed to the account
        )

    async def _create(self, supervisor: Supervisor) -> None:
        """Runs ``initdb`` beside the final place: a half-made cluster is never taken for a whole one."""
        unfinished = self.data.with_name("postgres-unfinished")
        password_file = self.data.with_name("postgres-password")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        placing.make_private(unfinished, self.account)
        write_private(password_file, self.passwords.superuser)
        if self.account:
            os.chown(password_file, self.account.uid, self.account.gid)
        initdb = ChildSpec(
            name=INITDB,
            command=(
                *(str(self.programs / "initdb"), "-D", str(unfinished), "-U", SUPERUSER),
                *("--auth=scram-sha-256", f"--pwfile={password_file}", "--no-instructions"),
                *("--encoding=UTF8", "--locale=C"),
            ),
            environment=_ENVIRONMENT,
            grace=_GRACE,
            account=self.account,
            cwd=Path("/"),
        )
        try:
            await supervisor.run_once(initdb, within=_CREATED_WITHIN)
        finally:
            password_file.unlink(missing_ok=True)
        unfinished.rename(self.data)


def _read_passwords(path: Path) -> Passwords | None:
    try:
        kept = read_json(path)
        return None if kept is None else Passwords(kept["superuser"], kept["role"])
    except (ValueError, TypeError, KeyError):
        raise IntegrationError(ErrorCode.UNAVAILABLE, f"{path} is damaged") from None


def _make_passwords(path: Path) -> Passwords:
    made = {"superuser": secrets.token_urlsafe(24), "role": secrets.token_urlsafe(24)}
    write_private(path, json.dumps(made))
    return Passwords(**made)


def _move_aside(data: Path) -> None:
    """For data whose data directory was emptied, and with it their keys: useless, but not ours to delete."""
    aside = data.with_name(f"postgres-orphaned-{int(time.time())}")
    data.rename(aside)
    _log.warning("the passwords of %s are gone; its files are now in %s", data, aside)
