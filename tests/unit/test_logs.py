"""What is logged: a line a record, where it belongs, and no secret on any way that leads there."""

from __future__ import annotations

import asyncio
import base64
import html
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest

from integration_service.storage.vault.envelope import Context, decrypt, encrypt
from integration_service.storage.vault.keyring import Keyring, generate_keyring
from integration_service.telemetry.logs import belonging_to, configure_logs, now_belongs_to
from integration_service.telemetry.redaction import REDACTED, redacted, remember, remembering

PLANTED = "planted-secret-value"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What the process has logged as JSON."""
    root, hook, thread_hook = logging.getLogger(), sys.excepthook, threading.excepthook
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs("json", stream=stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:], sys.excepthook, threading.excepthook = handlers, hook, thread_hook
    root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = False


def _entries(stream: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {PLANTED}",
        f"authorization='Basic {PLANTED}'",
        f"[('Authorization', 'Token {PLANTED}')]",
        f"{{'Authorization': 'ApiKey {PLANTED}', 'Accept': '*/*'}}",
        f"Headers([(b'authorization', b'{PLANTED}')])",
        f"Bearer {PLANTED}",
        f"GET https://api.test/x?access_token={PLANTED}&page=2",
        f"GET /oauth/callback?code={PLANTED}&state={PLANTED} HTTP/1.1",
        f"grant_type=refresh_token&refresh_token={PLANTED}&client_secret={PLANTED}",
        f'{{"access_token": "{PLANTED}", "expires_in": 3600}}',
        f"{{'refreshToken': '{PLANTED}'}}",
        f'{{"clientSecret":"{PLANTED}\\"{PLANTED}"}}',
        f"password={PLANTED}",
        f"postgresql://user:{PLANTED}@db/integrations",
        f"https://{PLANTED}@api.test/",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n{PLANTED}",
        "eyJhbGciOiJIUzI1NiJ9.cGxhbnRlZC1zZWNyZXQtdmFsdWU.planted-secret-value",
        "ghp_plantedplantedplanted1234",
        "xoxb-plantedplanted",
    ],
)
def test_known_shapes_are_masked(text: str) -> None:
    clean = redacted(text)
    assert PLANTED not in clean
    assert "plantedplanted" not in clean
    assert REDACTED in clean


@pytest.mark.parametrize(
    "text",
    [
        "HTTP_404: the upstream answered 404 (methods.get)",
        "the database is at 0003, older than this program (0008): run `integrations migrate`",
        "audit head: seal 1, 307f57dbeba10d900534c2e8695dd5a68413fc6a70fc3b02d0c830acc41edf6c",
        "exit code=0x, see https://docs.test/token",
    ],
)
def test_ordinary_sentences_stay(text: str) -> None:
    assert redacted(text).replace(REDACTED, "0x") == text


async def test_what_the_vault_opened_or_stored_is_masked_on_every_way_to_the_log(logged: io.StringIO) -> None:
    provider = Keyring.load(generate_keyring())
    context = Context("credential", ("scope",))
    with remembering(), belonging_to(activityId="7"):
        held = await encrypt(provider, json.dumps({"apiKey": {"key": PLANTED}}).encode(), context)
        stored = await encrypt(provider, b'{"token": "another-planted-one"}', context)
        assert await decrypt(provider, held, context)
        del stored
        log = logging.getLogger("some.library")
        log.warning("in the message %s", PLANTED)
        log.warning("as an argument's repr %r", {"value": PLANTED, "new": "another-planted-one"})
        log.error("stack", stack_info=True)
        logging.getLogger(f"logger.{'x'}").info("quoted %s", PLANTED.replace("-", "%2D") + PLANTED)
        try:
            raise ValueError(PLANTED)
        except ValueError:
            log.exception("with a traceback")
        warnings.warn(f"as a warning {PLANTED}", stacklevel=1)

        async def fails() -> None:
            raise RuntimeError(PLANTED)

        task = asyncio.create_task(fails())
        await asyncio.wait({task})
        asyncio.get_running_loop().call_exception_handler({"message": "from the loop", "exception": task.exception()})
        try:
            raise KeyError(PLANTED)
        except KeyError as error:
            sys.excepthook(type(error), error, error.__traceback__)
    assert PLANTED not in logged.getvalue()
    assert "another-planted-one" not in logged.getvalue()
    entries = _entries(logged)
    assert len(entries) >= 8
    assert all(entry["activityId"] == "7" for entry in entries)


AS_SENT = 'user:pl4nted/"p&w+ö'


def _inside_base64(before: str) -> str:
    return base64.b64encode(f'{before}{AS_SENT}", "and": "more"}}'.encode()).decode()


@pytest.mark.parametrize(
    "spelled",
    [
        quote(AS_SENT.encode()),
        quote(AS_SENT, safe=""),
        quote(AS_SENT, safe="!'()*").lower(),
        quote_plus(AS_SENT),
        json.dumps(AS_SENT),
        json.dumps(AS_SENT, ensure_ascii=False),
        json.dumps(AS_SENT).replace("/", "\\/"),
        html.escape(AS_SENT),
        repr(AS_SENT.encode()),
        base64.b64encode(AS_SENT.encode()).decode(),
        base64.urlsafe_b64encode(AS_SENT.encode()).decode().rstrip("="),
        _inside_base64(""),
        _inside_base64("."),
        _inside_base64(".."),
    ],
)
def test_a_secret_is_masked_however_it_is_spelled(spelled: str) -> None:
    with remembering():
        remember(json.dumps({"custom": {"x": AS_SENT}}).encode())
        clean = redacted(f"sent {spelled}!")
    assert REDACTED in clean
    for before in range(3):
        piece = base64.b64encode(b"." * before + AS_SENT.encode()).decode()[4:-4]
        assert piece not in clean
    assert "nted" not in clean


def test_a_secret_across_the_cut_leaves_nothing() -> None:
    with remembering():
        remember(json.dumps({"a": PLANTED}).encode())
        for before in range(64 * 1024 - len(PLANTED), 64 * 1024):
            assert "plan" not in redacted("x" * before + PLANTED)
    for before in range(64 * 1024 - 40, 64 * 1024):
        assert "planted" not in redacted("x" * before + f'{{"access_token": "{PLANTED}"}}')


def test_a_record_that_cannot_be_written_shows_nothing(logged: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("some.library", logging.WARNING, "x.py", 7, "%d", (PLANTED,), None)
    logging.getLogger().handlers[0].handle(record)
    shown = logged.getvalue() + "".join(capsys.readouterr())
    assert shown == "a log record of some.library (x.py:7) could not be written: TypeError\n"


def test_half_a_character_keeps_no_secret_in_the_log(logged: io.StringIO) -> None:
    with remembering():
        remember(json.dumps({"a": f"\ud800{PLANTED}"}).encode())
        logging.getLogger("some.library").warning("it is %s", f"\ud800{PLANTED}")
    assert _entries(logged)[0]["message"] == f"it is {REDACTED}"


def test_others_cannot_write_urls_and_headers(logged: io.StringIO) -> None:
    for name in ("httpx2", "httpcore2.http11", "authlib.oauth2", "urllib3.connectionpool", "zeep.transports"):
        logging.getLogger(name).info("GET https://api.test/%s", PLANTED)
        logging.getLogger(name).debug("send_request_headers %s", PLANTED)
    logging.getLogger("uvicorn.access").warning('"GET /oauth/callback?code=%s"', PLANTED)
    assert logged.getvalue() == ""


def test_a_record_says_where_it_belongs(logged: io.StringIO) -> None:
    log = logging.getLogger("integration_service.x")
    with belonging_to(workflowId="w", runId="r", traceId=None):
        now_belongs_to(instanceId="i", method="get", correlationId=f"token={PLANTED}")
        log.info("inside")
    log.info("outside")
    inside, outside = _entries(logged)
    assert inside == {
        "time": inside["time"],
        "level": "INFO",
        "logger": "integration_service.x",
        "message": "inside",
        "workflowId": "w",
        "runId": "r",
        "instanceId": "i",
        "method": "get",
        "correlationId": f"token={REDACTED}",
    }
    assert outside.keys() == {"time", "level", "logger", "message"}


def test_text_is_for_people(logged: io.StringIO) -> None:
    stream = io.StringIO()
    configure_logs("text", stream=stream)
    with belonging_to(workflowId="w"):
        logging.getLogger("x").warning("two\nlines with token=%s", PLANTED)
    first, second = stream.getvalue().splitlines()
    assert first.endswith("WARNING x two workflowId=w")
    assert second == f"lines with token={REDACTED}"


def test_a_callers_words_begin_no_line(logged: io.StringIO) -> None:
    stream = io.StringIO()
    configure_logs("text", stream=stream)
    with belonging_to(correlationId="x\n2026-01-01 INFO audit all is well\u2028\x1b[2J"):
        logging.getLogger("x").info("one")
    [line] = stream.getvalue().splitlines()
    assert line.endswith(r"correlationId=x\n2026-01-01 INFO audit all is well\u2028\x1b[2J")


def test_forgotten_when_the_call_is_over() -> None:
    with remembering():
        pass
    assert redacted(PLANTED) == PLANTED
