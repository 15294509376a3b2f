"""A JWT credential asked for at a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest

_ASK = """
import sys
from integration_service.cli.secrets import read_credential
from integration_service.contracts.definitions import IntegrationAuthType
open(sys.argv[1], "wb").write(read_credential(IntegrationAuthType.JWT, None))
"""
Talk = list[tuple[str, str]]


def ask(result: Path, talk: Talk) -> tuple[str, str]:
    """Waits for each prompt, then types its answer; returns what was asked and what stood on the screen."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", _ASK, str(result)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    screen = seen = ""
    try:
        for prompt, answer in talk:
            while prompt not in seen:
                assert select.select([ours], [], [], 30)[0], screen
                seen += os.read(ours, 4096).decode()
            screen, seen = screen + seen, ""
            os.write(ours, f"{answer}\n".encode())
        child.wait(timeout=30)
        while select.select([ours], [], [], 0)[0]:
            try:
                screen += os.read(ours, 4096).decode()
            except OSError:  # the other side is closed and all is read
                break
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    return result.read_text(), screen


@pytest.mark.parametrize(
    ("talk", "jwt"),
    [
        (
            [("Which one", ""), ("Token", "planted.to.ken"), ("expires", "2030-01-01T00:00:00Z")],
            {"token": "planted.to.ken", "expiresAt": "2030-01-01T00:00:00Z"},
        ),
        ([("Which one", "token"), ("Token", "planted.to.ken"), ("expires", "")], {"token": "planted.to.ken"}),
        ([("Which one", "secret"), ("Secret", "planted-secret"), ("Key id", "")], {"secret": "planted-secret"}),
    ],
)
def test_a_token_or_a_secret_is_typed_unseen(tmp_path: Path, talk: Talk, jwt: dict[str, str]) -> None:
    answer, screen = ask(tmp_path / "result", talk)
    assert json.loads(answer) == {"type": "jwt", "jwt": jwt}
    assert "planted" not in screen


def test_a_private_key_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("planted\nkey\n")
    talk = [("Which one", "private-key"), ("File", str(tmp_path / "key.pem")), ("Key id", "k1")]
    answer, screen = ask(tmp_path / "result", talk)
    assert json.loads(answer) == {"type": "jwt", "jwt": {"privateKey": "planted\nkey", "keyId": "k1"}}
    assert "planted" not in screen
