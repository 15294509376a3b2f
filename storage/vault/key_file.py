"""A key set in a file that changes while processes use it: read again when it does, and replaced whole."""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.contracts.wire import format_time
from integration_service.storage.vault.keyring import (
    KEY_BYTES,
    VARIABLE,
    KeyProvider,
    KeyRef,
    Keyring,
    is_inline,
    key_not_held,
)

_log = logging.getLogger(__name__)
_Content = dict[str, Any]
Done = TypeVar("Done")


def open_keyring(source: str) -> KeyProvider:
    """The key provider that `source` names: inline JSON as it is, or a file that is read again when it changes.

    Raises IntegrationError VALIDATION_ERROR.
    """
    return Keyring.load(source) if is_inline(source) else KeyringFile.open(Path(source))


@dataclass(frozen=True)
class _Seen:
    """Which file was read. A renamed one has another inode; a mounted secret is a link to one."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class KeyringFile:
    """A `KeyProvider` over a keyring file. Each use looks whether the file is another one, which costs microseconds.

    A file that has gone or cannot be read leaves the keys that were read last in force, and is logged.
    """

    def __init__(self, path: Path, keyring: Keyring, seen: _Seen | None) -> None:
        self._path = path
        self._keyring = keyring
        self._seen = seen

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises IntegrationError VALIDATION_ERROR when there is no key set at `path`."""
        seen = _Seen.of(path)
        return cls(path, Keyring.load(str(path)), seen)

    def __repr__(self) -> str:
        return f"KeyringFile({str(self._path)!r}, active={self._keyring.active})"

    @property
    def active(self) -> KeyRef:
        return self._current().active

    @property
    def refs(self) -> tuple[KeyRef, ...]:
        return self._current().refs

    async def wrap(self, data_key: bytes, bound: bytes) -> tuple[KeyRef, bytes]:
        return await self._current().wrap(data_key, bound)

    async def unwrap(self, ref: KeyRef, wrapped: bytes, bound: bytes) -> bytes:
        keyring = self._current()
        if ref not in keyring.keys:
            # Somebody wrapped under it, so it is somewhere: a file system may tell of a change late.
            keyring = self._read(_Seen.of(self._path))
        return await keyring.unwrap(ref, wrapped, bound)

    def _current(self) -> Keyring:
        seen = _Seen.of(self._path)
        return self._keyring if seen is None or seen == self._seen else self._read(seen)

    def _read(self, seen: _Seen | None) -> Keyring:
        try:
            self._keyring = Keyring.load(str(self._path))
        except IntegrationError as error:
            _log.error("the keyring changed and cannot be read, the keys read before stay: %s", error)
        self._seen = seen
        return self._keyring


def add_key(path: Path, *, activate: bool) -> KeyRef:
    """Put a new version of the active key's line into the file; with `activate`, new data keys go under it.

    Raises IntegrationError VALIDATION_ERROR when the file cannot be read or replaced.
    """

    def change(ring: Keyring, content: _Content) -> KeyRef:
        line = ring.active.key_id
        made = KeyRef(line, max(ref.version for ref in ring.refs if ref.key_id == line) + 1)
        key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        content["keys"].append({**_named(made), "key": key, "createdAt": format_time(datetime.now(UTC))})
        if activate:
            content["active"] = _named(made)
        return made

    return _replace(path, change)


def activate_key(path: Path, ref: KeyRef) -> None:
    """Make a key of the file the active one. Raises IntegrationError KEY_UNAVAILABLE when it holds no such key."""

    def change(ring: Keyring, content: _Content) -> None:
        if ref not in ring.refs:
            raise key_not_held(ref)
        content["active"] = _named(ref)

    _replace(path, change)


def remove_key(path: Path, ref: KeyRef) -> None:
    """Take a key out of the file, for good. Whoever calls this has seen that nothing is under it.

    Raises IntegrationError: KEY_UNAVAILABLE for an unknown key, VALIDATION_ERROR for the active one.
    """

    def change(ring: Keyring, content: _Content) -> None:
        if ref not in ring.refs:
            raise key_not_held(ref)
        if ref == ring.active:
            raise IntegrationError(ErrorCode.VALIDATION_ERROR, f"{ref} is the active key; rotate first", path=VARIABLE)
        content["keys"] = [entry for entry in content["keys"] if KeyRef(entry["id"], entry["version"]) != ref]

    _replace(path, change)


def _replace(path: Path, change: Callable[[Keyring, _Content], Done]) -> Done:
    """Change the file as a whole: whoever reads meanwhile, or after a crash, finds the one before or this one.

    One at a time: two that rotate at once would each lose the other's key.
    """
    target = path.resolve()
    try:
        with _locked(target.parent):
            ring = Keyring.load(str(target))
            content: _Content = json.loads(target.read_text(encoding="utf-8"))
            done = change(ring, content)
            text = json.dumps(content, indent=2) + "\n"
            Keyring.load(text)
            _write(target, text)
    except OSError as error:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, f"cannot replace the keyring: {error.strerror}", path=str(path)
        ) from None
    return done


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else is inside. A process that dies lets go by that."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(target: Path, text: str) -> None:
    # Made for nobody else. One that is there was left by a process that died: nobody else is inside.
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            owner = target.stat()
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                # Its readers run as that user; who may not give it away would lock them out, and fails here.
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _named(ref: KeyRef) -> dict[str, Any]:
    return {"id": ref.key_id, "version": ref.version}
