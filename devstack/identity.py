"""An OpenID provider (https://django-oauth-toolkit.readthedocs.io): the demo's and the tests', from a package."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from integration_service.devstack.child import ChildSpec
from integration_service.devstack.data_dir import write_private
from integration_service.devstack.environment import child_environment
from integration_service.devstack.ports import HOST
from integration_service.devstack.waiting import answers_http, until

NAME = "identity"
SCOPES = {"openid": "Who you are", "read": "Read your things", "write": "Change your things"}

Grant = Literal["authorization_code", "client_credentials", "password", "device_code"]


class Application(BaseModel):
    """A client of the provider; without a secret a public one. It has one grant, and refresh with it.

    A redirect URI on 127.0.0.1 takes any port (RFC 8252 §7.3), as long as its path is the same.
    """

    model_config = ConfigDict(frozen=True)

    client_id: str
    client_secret: str = Field(default="", repr=False)
    grant: Grant = "authorization_code"
    redirect_uris: tuple[str, ...] = ()


class User(BaseModel):
    """Somebody who can log in."""

    model_config = ConfigDict(frozen=True)

    username: str
    password: str = Field(repr=False)


class IdentitySettings(BaseModel):
    """All that the provider's process is told, in a private file."""

    model_config = ConfigDict(frozen=True)

    port: int
    secret: str = Field(repr=False)
    access_seconds: int
    grace_seconds: int
    device_interval_seconds: int
    applications: tuple[Application, ...]
    users: tuple[User, ...]


def server(
    folder: Path,
    port: int,
    *,
    secret: str,
    applications: tuple[Application, ...],
    users: tuple[User, ...],
    access_seconds: int = 3600,
    grace_seconds: int = 0,
    device_interval_seconds: int = 5,
) -> ChildSpec:
    """The provider on `port`; its settings, key, SQLite file and log of token requests go into `folder`.

    It demands PKCE with S256 and rotates refresh tokens. One that comes again later than `grace_seconds` after
    its use revokes all that came from the same consent (RFC 9700 §4.14.2).
    """
    settings = IdentitySettings(
        port=port,
        secret=secret,
        access_seconds=access_seconds,
        grace_seconds=grace_seconds,
        device_interval_seconds=device_interval_seconds,
        applications=applications,
        users=users,
    )
    write_private(settings_file(folder), settings.model_dump_json())
    return ChildSpec(
        name=NAME,
        command=(sys.executable, "-P", "-W", "ignore", "-m", "integration_service.devstack.identity_site", str(folder)),
        environment=child_environment({}),
        grace=timedelta(seconds=3),
    )


async def ready(port: int) -> None:
    """Returns once it answers."""
    await until(lambda: answers_http(port, "/o/.well-known/openid-configuration"))


def url(port: int) -> str:
    return f"http://{HOST}:{port}"


def settings_file(folder: Path) -> Path:
    return folder / "identity.json"
