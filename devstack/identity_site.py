"""The identity provider's process: a Django site with nothing but django-oauth-toolkit and a login form.

Run as ``python -m … FOLDER`` with the `IdentitySettings` in that folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import django
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings as django_settings

from integration_service.devstack.data_dir import write_private
from integration_service.devstack.identity import SCOPES, IdentitySettings, settings_file, url
from integration_service.devstack.identity_tokens import ClosableProtocol, TokenEndpoint
from integration_service.devstack.ports import HOST

_BUSY_S = 20
_LOGIN_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><title>Log in</title></head><body>
<form method="post">{% csrf_token %}{{ form.as_p }}<button type="submit">Log in</button></form>
</body></html>
"""
_GRANTS = {
    "authorization_code": "authorization-code",
    "client_credentials": "client-credentials",
    "password": "password",
    "device_code": "urn:ietf:params:oauth:grant-type:device_code",
}


def main() -> None:
    """Serves until a signal ends it. What is stored in the folder is kept over restarts."""
    folder = Path(sys.argv[1])
    settings = IdentitySettings.model_validate_json(settings_file(folder).read_text(encoding="utf-8"))
    django_settings.configure(**_site(folder, settings))
    django.setup()
    django_settings.ROOT_URLCONF = _routes()
    _store(settings)

    from django.core.asgi import get_asgi_application

    uvicorn.run(
        TokenEndpoint(get_asgi_application(), folder),
        host=HOST,
        port=settings.port,
        http=ClosableProtocol,
        ws="none",
        lifespan="off",
        proxy_headers=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


def _site(folder: Path, settings: IdentitySettings) -> dict[str, Any]:
    return {
        "SECRET_KEY": settings.secret,
        "ALLOWED_HOSTS": [HOST, "localhost"],
        "INSTALLED_APPS": ["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
        "MIDDLEWARE": [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
        # Cookies know no ports: the names keep another site on this host from being logged out.
        "SESSION_COOKIE_NAME": "identity-session",
        "CSRF_COOKIE_NAME": "identity-csrf",
        "PASSWORD_HASHERS": ["django.contrib.auth.hashers.ScryptPasswordHasher"],
        "LOGIN_URL": "login",
        "STATIC_URL": "static/",
        "USE_TZ": True,
        "TEMPLATES": [_templates()],
        "DATABASES": {"default": _database(folder)},
        "OAUTH2_PROVIDER": _provider(folder, settings),
        "LOGGING": {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"stderr": {"class": "logging.StreamHandler"}},
            "root": {"level": "ERROR", "handlers": ["stderr"]},
        },
    }


def _templates() -> dict[str, Any]:
    return {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [
                ("django.template.loaders.locmem.Loader", {"registration/login.html": _LOGIN_PAGE}),
                "django.template.loaders.app_directories.Loader",
            ],
            "context_processors": ["django.template.context_processors.request"],
        },
    }


def _database(folder: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": folder / "identity.db",
        "OPTIONS": {
            "timeout": _BUSY_S,
            # A transaction that reads first and then writes would meet "database is locked" at once.
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


def _provider(folder: Path, settings: IdentitySettings) -> dict[str, Any]:
    here = url(settings.port)
    return {
        "SCOPES": SCOPES,
        "PKCE_REQUIRED": True,
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": settings.grace_seconds,
        "ACCESS_TOKEN_EXPIRE_SECONDS": settings.access_seconds,
        "OIDC_ENABLED": True,
        "OIDC_ISS_ENDPOINT": f"{here}/o",
        "OIDC_RSA_PRIVATE_KEY": _signing_key(folder / "identity-key.pem"),
        "OAUTH_DEVICE_VERIFICATION_URI": f"{here}/o/device/",
        "OAUTH_DEVICE_VERIFICATION_URI_COMPLETE": f"{here}/o/device/?user_code={{user_code}}",
        "DEVICE_FLOW_INTERVAL": settings.device_interval_seconds,
        # RFC 9700: S256 only, `iss` in every answer (RFC 9207), no tokens in URLs.
        "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
        "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
        "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
        "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    }


def _signing_key(path: Path) -> str:
    if not path.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    return path.read_text(encoding="ascii")


def _routes() -> tuple[Any, ...]:
    from django.contrib.auth.views import LoginView
    from django.db import transaction
    from django.http import HttpRequest, JsonResponse
    from django.urls import include, path
    from oauth2_provider.decorators import rw_protected_resource_metadata
    from oauth2_provider.views import TokenView

    def whoami(request: HttpRequest) -> JsonResponse:
        user = request.resource_owner
        return JsonResponse({"user": user and user.get_username()})

    return (
        path("login/", LoginView.as_view(), name="login"),
        # One transaction a request: with SQLite the package's own row locks lock nothing, and a refresh token
        # that came twice at the same time would be good twice.
        path("o/token/", transaction.atomic(TokenView.as_view())),
        path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
        # For tokens without a user too: GET needs scope read.
        path("whoami/", rw_protected_resource_metadata()(whoami)),
    )


def _store(settings: IdentitySettings) -> None:
    """Makes the tables, and the users and applications as they are now asked for."""
    from django.contrib.auth import get_user_model
    from django.contrib.auth.hashers import make_password
    from django.core.management import call_command
    from oauth2_provider.models import get_application_model

    call_command("migrate", verbosity=0, interactive=False)
    for user in settings.users:
        get_user_model().objects.update_or_create(
            username=user.username, defaults={"password": make_password(user.password)}
        )
    for application in settings.applications:
        get_application_model().objects.update_or_create(
            client_id=application.client_id,
            defaults={
                "name": application.client_id,
                "client_secret": application.client_secret,
                "hash_client_secret": False,  # it comes with every token request; hashing it is meant to be slow
                "client_type": "confidential" if application.client_secret else "public",
                "authorization_grant_type": _GRANTS[application.grant],
                "redirect_uris": " ".join(application.redirect_uris),
                "algorithm": "RS256",
            },
        )


if __name__ == "__main__":
    main()
