"""Postgres: definitions, instances, credentials, audit. Repositories speak the domain and return values."""
