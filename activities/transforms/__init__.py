"""Transforms: JSONata, evaluated in sandboxed child processes."""

from integration_service.activities.transforms.checking import check_expressions
from integration_service.activities.transforms.pool import Transforms

__all__ = ["Transforms", "check_expressions"]
