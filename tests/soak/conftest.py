"""Heavy proofs: whole by `make soak`, in a short form by `SOAK=1 pytest tests/soak`; a few of them in every run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration_service.devstack.stack import Stack
from tests.identity import Identity, identity_provider
from tests.soak.workers import Workers

Provide = Callable[..., Awaitable[Identity]]
Measured = Callable[[str], None]
_MEASURED = "measured"
_IN_EVERY_RUN = ("test_effects.py",)
"""All short forms together take ten minutes, which a run has not."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="the heavy proofs whole: they need hours, not minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak", default=False):
        for item in items:
            item.add_marker(pytest.mark.timeout(0))  # hours, if need be
    if os.environ.get("SOAK") or config.getoption("--soak", default=False):
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.path.name not in _IN_EVERY_RUN:
            item.add_marker(pytest.mark.skip(reason="a heavy proof: make soak"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Told by the reports: those who measured may have been other processes.
    reports = (one for of_an_outcome in terminalreporter.stats.values() for one in of_an_outcome)
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {line}"
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, line in report.user_properties
        if name == _MEASURED
    ]
    if lines:
        terminalreporter.section(_MEASURED)
    for line in lines:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether to run the whole proof. A run that was not pointed at this folder does not know the option."""
    return bool(request.config.getoption("--soak", default=False))


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Says a figure at the end of the run."""
    return lambda line: request.node.user_properties.append((_MEASURED, line))


@pytest.fixture
async def provide() -> AsyncIterator[Provide]:
    """Starts an identity provider of the test's own; the options are those of `identity_provider`."""
    async with AsyncExitStack() as cleanup:

        async def start(**options: object) -> Identity:
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="integrations-idp-"))
            return await cleanup.enter_async_context(identity_provider(Path(folder) / "idp", **options))

        yield start


@pytest.fixture
def workers(stack: Stack) -> Workers:
    return Workers(stack)
