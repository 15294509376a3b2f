"""Months, as the execution log is partitioned by them: UTC, each named by its first instant."""

from __future__ import annotations

from datetime import UTC, datetime


def month_of(moment: datetime) -> datetime:
    """The first instant of a moment's month, UTC."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def after(month: datetime, months: int = 1) -> datetime:
    """So many months later; `month` is a first of a month."""
    index = month.year * 12 + month.month - 1 + months
    return month.replace(year=index // 12, month=index % 12 + 1)


def table_of(month: datetime) -> str:
    """The name of the month's partition, in schema `audit`."""
    return f"executions_{month:%Y_%m}"
