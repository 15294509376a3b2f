"""A Kinto server (https://docs.kinto-storage.org): the demo's upstream that takes a credential, from a package."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from integration_service.devstack.child import ChildSpec
from integration_service.devstack.data_dir import write_private
from integration_service.devstack.environment import child_environment
from integration_service.devstack.ports import HOST

NAME = "kinto"

_CONFIG = """\
[app:main]
use = egg:kinto
kinto.storage_backend = kinto.core.storage.memory
kinto.permission_backend = kinto.core.permission.memory
kinto.cache_backend = kinto.core.cache.memory
kinto.includes = kinto.plugins.accounts
kinto.account_create_principals = system.Everyone
kinto.bucket_create_principals = system.Authenticated
kinto.userid_hmac_secret = {secret}
multiauth.policies = account
multiauth.policy.account.use = kinto.plugins.accounts.authentication.AccountsAuthenticationPolicy

[server:main]
use = egg:waitress#main
host = {host}
port = {port}

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys =
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
"""


def server(folder: Path, port: int, *, secret: str) -> ChildSpec:
    """Kinto on `port`, everything in memory; its config file goes into `folder`."""
    config = folder / "kinto.ini"
    write_private(config, _CONFIG.format(host=HOST, port=port, secret=secret))
    return ChildSpec(
        name=NAME,
        command=(
            sys.executable,
            "-P",
            "-W",
            "ignore",
            "-c",
            "import sys; from pyramid.scripts.pserve import main; main(['pserve', sys.argv[1]])",
            str(config),
        ),
        environment=child_environment({}),
        grace=timedelta(seconds=3),
    )
