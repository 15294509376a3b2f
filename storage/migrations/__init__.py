"""Brings a database to this version, by Alembic; safe when two processes start at once."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.storage.schema_version import HEAD, SCHEMA

_LOCK = 0x1E7E6A71  # any constant; advisory locks are per database


def migrate(database_url: str) -> None:
    """Run what is missing, under an advisory lock, in one transaction.

    Raises IntegrationError UNAVAILABLE when the server does not answer or its database is newer.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    # SQLAlchemy never sees the URL: libpq's own syntax (services, several hosts) stays valid, and unlogged.
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool)
    try:
        with engine.connect() as connection, connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError:
        raise IntegrationError(ErrorCode.UNAVAILABLE, "the database does not answer") from None
    except ProgrammingError:
        raise IntegrationError(
            ErrorCode.VALIDATION_ERROR, "not a database URL that libpq reads", path="INTEGRATIONS_DATABASE_URL"
        ) from None
    except CommandError:
        raise IntegrationError(
            ErrorCode.UNAVAILABLE,
            f"the database is newer than this program ({HEAD}): deploy the newer program",
            path="database",
        ) from None
