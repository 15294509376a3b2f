"""Deterministic code only: the standard library, temporalio and contracts."""
