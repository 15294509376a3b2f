"""A real identity provider for tests: django-oauth-toolkit in a process of its own, and a person who logs in."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import yaml

from integration_service.contracts.wire import JsonObject
from integration_service.devstack import identity
from integration_service.devstack.browser import Person
from integration_service.devstack.data_dir import open_data_dir
from integration_service.devstack.identity import Application, User
from integration_service.devstack.identity_tokens import append_line, faults_file, read_lines, requests_file
from integration_service.devstack.ports import claim_ports
from integration_service.devstack.supervisor import Supervisor

_CATALOG = Path(__file__).resolve().parent.parent / "catalog"
_WITHIN = timedelta(seconds=60)
REDIRECT_URIS = ("http://127.0.0.1/oauth/callback", "http://127.0.0.1/callback")
"""Loopback: any port."""


@dataclass(frozen=True)
class Identity:
    """A running provider: `app` for the code flow, and one client for each other grant."""

    folder: Path
    url: str
    app: Application
    machine: Application
    device: Application
    native: Application
    """A public client: no secret."""
    legacy: Application
    """Grant password."""
    user: User
    other_user: User

    @property
    def client_id(self) -> str:
        return self.app.client_id

    @property
    def client_secret(self) -> str:
        return self.app.client_secret

    @property
    def issuer(self) -> str:
        return f"{self.url}/o"

    def token_requests(self, **match: Any) -> list[dict[str, Any]]:
        """The token requests so far, oldest first, such as those with ``grant_type="refresh_token"``.

        Each has time, grant_type, client_id, refresh_token_sha256, status, error and fault.
        """
        lines = read_lines(requests_file(self.folder))
        return [line for line in lines if all(line[key] == value for key, value in match.items())]

    def fault(self, kind: str, **more: Any) -> None:
        """Disturbs one of the next token requests: see `identity_tokens`. Faults come in the order given."""
        append_line(faults_file(self.folder), {"kind": kind, **more})

    async def authorize(self, url: str, *, consent: bool = True, user: User | None = None) -> str:
        """A person opens the authorization URL, logs in and consents; returns where that leads, unopened."""
        async with self.person(user) as person:
            return await person.authorize(url, consent=consent)

    async def connect(self, url: str, *, consent: bool = True, user: User | None = None) -> httpx2.Response:
        """The same, and then the callback's answer."""
        async with self.person(user) as person:
            return await person.connect(url, consent=consent)

    async def approve_device(self, url: str, user_code: str, *, consent: bool = True) -> None:
        """A person enters a device's code, and accepts or denies."""
        async with self.person() as person:
            await person.approve_device(url, user_code, consent=consent)

    def person(self, user: User | None = None) -> Person:
        who = user or self.user
        return Person(who.username, who.password)

    def definition(self, name: str, **oauth2: Any) -> JsonObject:
        """The catalog's definition under another name, with `oauth2Config` changed; None removes a key."""
        file: JsonObject = yaml.safe_load((_CATALOG / "identity.yaml").read_text())
        config = {**file["oauth2Config"], **oauth2}
        return {
            **file,
            "name": name,
            "oauth2Config": {key: value for key, value in config.items() if value is not None},
        }


@asynccontextmanager
async def identity_provider(
    folder: Path, *, redirect_uris: tuple[str, ...] = REDIRECT_URIS, **options: Any
) -> AsyncIterator[Identity]:
    """A provider on a free port, its files in `folder`. `options` are those of `identity.server`."""
    data_dir = open_data_dir(folder)
    data_dir.prepare_folders()
    app = Application(client_id="app", client_secret=_secret(), redirect_uris=redirect_uris)
    machine = Application(client_id="machine", client_secret=_secret(), grant="client_credentials")
    device = Application(client_id="device", grant="device_code")
    native = Application(client_id="native", redirect_uris=redirect_uris)
    legacy = Application(client_id="legacy", client_secret=_secret(), grant="password")
    user = User(username="ada", password=_secret())
    other_user = User(username="bob", password=_secret())
    port = claim_ports({"identity": 0})["identity"]
    supervisor = Supervisor(data_dir)
    async with AsyncExitStack() as cleanup:
        cleanup.push_async_callback(supervisor.stop, identity.NAME)
        await supervisor.start(
            identity.server(
                data_dir.path,
                port,
                secret=_secret(),
                applications=(app, machine, device, native, legacy, *options.pop("applications", ())),
                users=(user, other_user, *options.pop("users", ())),
                **options,
            )
        )
        await supervisor.while_alive(identity.ready(port), within=_WITHIN)
        yield Identity(
            folder=data_dir.path,
            url=identity.url(port),
            app=app,
            machine=machine,
            device=device,
            native=native,
            legacy=legacy,
            user=user,
            other_user=other_user,
        )


def _secret() -> str:
    return secrets.token_urlsafe(24)
