"""Alembic's entry: it runs inside the transaction that `migrate` opened."""

from alembic import context

from integration_service.storage.schema_version import SCHEMA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=None,
    version_table_schema=SCHEMA,
    transaction_per_migration=False,
)
context.run_migrations()
