"""The data directory and what lies where in it. Files are 0600, folders of ours 0700."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

DEFAULT_DATA_DIR = platformdirs.user_data_path("integration-service")


@dataclass(frozen=True)
class DataDir:
    """Paths below one resolved data directory."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def stack_file(self) -> Path:
        """What a running `dev` tells other commands."""
        return self.path / "stack.json"

    @property
    def keyring(self) -> Path:
        return self.path / "keyring.json"

    @property
    def results_keyring(self) -> Path:
        """The key set of large results: the gateway gets no other."""
        return self.path / "results-keyring.json"

    @property
    def payload_keyring(self) -> Path:
        """The key set of payloads in Temporal."""
        return self.path / "payload-keyring.json"

    @property
    def codec_token(self) -> Path:
        """What `temporal` decodes with: ``--codec-auth "Bearer …"``."""
        return self.path / "codec-token"

    @property
    def gateway_token(self) -> Path:
        """What large results are fetched with."""
        return self.path / "gateway-token"

    @property
    def database_passwords(self) -> Path:
        return self.path / "database.json"

    @property
    def temporal_db(self) -> Path:
        return self.path / "temporal.db"

    @property
    def temporal_config(self) -> Path:
        """Empty: it stands where the user's own Temporal configuration would be read."""
        return self.path / "temporal.toml"

    @property
    def claims(self) -> Path:
        return self.path / "run"

    def claim(self, name: str) -> Path:
        return self.claims / name

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def prepare_folders(self) -> None:
        """Makes the folders in it and empties the logs. Call it with the lock held."""
        for folder in (self.claims, self.log("x").parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        for log in self.log("x").parent.glob("*.log"):
            os.truncate(log, 0)
        write_private(self.temporal_config, "")
        self.stack_file.unlink(missing_ok=True)


def open_data_dir(path: Path) -> DataDir:
    """The data directory at `path`, made if it is missing; the mode of one that exists is left alone.

    As root a new one is 0711, its parents 0755, so that the unprivileged user of Postgres can pass; as an
    ordinary user all are 0700.
    """
    as_root = os.geteuid() == 0
    resolved = path.expanduser().resolve()
    make_folder(resolved.parent, 0o755 if as_root else 0o700)
    make_folder(resolved, 0o711 if as_root else 0o700)
    return DataDir(resolved)


def make_folder(path: Path, mode: int) -> None:
    """Makes `path` and missing ancestors with exactly `mode`, whatever the umask; others stay as they are."""
    if path.is_dir():
        return
    make_folder(path.parent, mode)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(mode)


def write_private(path: Path, text: str) -> None:
    """Writes a 0600 file as a whole: readers, and the next start, see all of it or the one before."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """The value in a file that `write_private` wrote, or None when there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
