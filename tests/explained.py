"""What Postgres did for each statement that a repository sent: its own `auto_explain`, told as notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg import sql

from integration_service.storage.database import Connection, Database

_SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_level": "notice",
    "auto_explain.log_format": "json",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_nested_statements": "on",
}


async def explain_everything(superuser: str) -> None:
    """From now on every new connection to the database of this URL tells its plans."""
    async with await psycopg.AsyncConnection.connect(superuser, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        await connection.execute("LOAD 'auto_explain'")  # its settings are known then
        for setting, value in _SETTINGS.items():
            await connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    name, sql.SQL(".").join(map(sql.Identifier, setting.split("."))), sql.Literal(value)
                )
            )


@dataclass(frozen=True)
class Scan:
    """How a table was read: the kind of node, the index, how many rows were looked at."""

    table: str
    node: str
    index: str | None
    looked_at: int

    def __str__(self) -> str:
        return f"{self.node} on {self.table}" + (f" by {self.index}" if self.index else "") + f": {self.looked_at} rows"


class Explained(Database):
    """A database whose statements' scans are kept, as they were really done."""

    def __init__(self, url: str) -> None:
        super().__init__(url, max_connections=2)
        self.scans: list[Scan] = []
        self._listened: WeakSet[Connection] = WeakSet()

    async def _alive(self) -> Connection:
        connection = await super()._alive()
        if connection not in self._listened:
            self._listened.add(connection)
            connection.add_notice_handler(self._keep)
        return connection

    def _keep(self, told: psycopg.errors.Diagnostic) -> None:
        _, plan, text = (told.message_primary or "").partition("plan:\n")
        if plan:
            self.scans += _scans(json.loads(text)["Plan"])


def _scans(node: dict[str, Any], table: str = "") -> Iterator[Scan]:
    table = node.get("Relation Name", table)
    loops = node["Actual Loops"]
    # What another plan would have done instead is told too, with no loops.
    if (
        loops
        and node["Node Type"].endswith(("Scan", "Scan Backward"))
        and ("Relation Name" in node or "Index Name" in node)
    ):
        looked_at = sum(
            node.get(name, 0) for name in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
        )
        yield Scan(table, node["Node Type"], node.get("Index Name"), round(looked_at * loops))
    for child in node.get("Plans", []):
        yield from _scans(child, table)
