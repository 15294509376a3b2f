"""A headless Chromium, driven by its own protocol (CDP) over a pipe: opens pages, reads and photographs them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.waiting import eventually

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--remote-debugging-pipe",
)
_TEXT = """
[document, ...[...document.querySelectorAll("iframe")].map(frame => frame.contentDocument)]
    .map(page => page && page.body ? page.body.innerText : "").join("\\n")
"""
_MAX_MESSAGE = 64 * 1024 * 1024


class Browser:
    """One page."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._last = 0
        self._session: str | None = None

    async def start(self) -> None:
        target = await self._send("Target.createTarget", url="about:blank")
        attached = await self._send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        await self._send("Page.enable")

    async def open(self, url: str, *, width: int = 1600, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self._send("Emulation.setDeviceMetricsOverride", **size)
        await self._send("Page.navigate", url=url)

    async def evaluate(self, script: str) -> Any:
        found = await self._send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return found["result"].get("value")

    async def text(self) -> str:
        """What a person reads, on one line; frames of the same server included."""
        found = await self.evaluate(_TEXT)
        return " ".join(str(found).split())

    async def shows(self, *sentences: str) -> str:
        """The page's text once all of it is there."""

        async def look() -> str | None:
            text = await self.text()
            return text if all(sentence in text for sentence in sentences) else None

        try:
            return await eventually(look, within_s=30)
        except AssertionError:
            text = await self.text()
            missing = [sentence for sentence in sentences if sentence not in text]
            raise AssertionError(f"not on the page: {missing}; there is: {text}") from None

    async def click(self, selector: str) -> None:
        async def found() -> bool:
            return bool(await self.evaluate(f"!!document.querySelector({json.dumps(selector)})"))

        await eventually(found)
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    async def without_script(self) -> None:
        """Pages run no script from here on; `evaluate` still does."""
        await self._send("Emulation.setScriptExecutionDisabled", value=True)

    async def in_dark(self, on: bool) -> None:
        """As somebody sees it who has set a dark scheme."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        await self._send("Emulation.setEmulatedMedia", features=features)

    async def press(self, key: str) -> None:
        """One key of the keyboard: Tab, Enter, or Space."""
        code, text = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " ")}[key]
        told = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
        await self._send("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": text} if text else {}))
        await self._send("Input.dispatchKeyEvent", type="keyUp", **told)

    async def write(self, text: str) -> None:
        """Typed where the keyboard is, in the place of what is selected there."""
        await self._send("Input.insertText", text=text)

    async def photograph(self) -> bytes:
        """PNG of what is in the window."""
        shot = await self._send("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        return base64.b64decode(shot["data"])

    async def _send(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._last, "method": method, "params": params, **session}
        self._writer.write(json.dumps(message).encode() + b"\0")
        await self._writer.drain()
        async with asyncio.timeout(60):
            while True:
                answer = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if answer.get("id") == self._last:
                    assert "error" not in answer, answer
                    result: dict[str, Any] = answer["result"]
                    return result


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser with a profile of its own, gone afterwards."""
    assert PROGRAM is not None
    loop = asyncio.get_running_loop()
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    inward, outward = os.fdopen(our_in, "rb"), os.fdopen(our_out, "wb")
    profile = tempfile.mkdtemp(prefix="integrations-chromium-")
    process = await asyncio.create_subprocess_exec(
        # Chromium reads from descriptor 3 and writes to 4.
        *("bash", "-c", f'exec "$@" 3<&{their_in} 4>&{their_out}', "chromium"),
        *(PROGRAM, *_FLAGS, f"--user-data-dir={profile}"),
        pass_fds=(their_in, their_out),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(their_in)
    os.close(their_out)
    reader = asyncio.StreamReader(limit=_MAX_MESSAGE)
    incoming, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), inward)
    outgoing, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, outward)
    try:
        page = Browser(reader, asyncio.StreamWriter(outgoing, protocol, None, loop))
        await page.start()
        yield page
    finally:
        outgoing.close()
        incoming.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        shutil.rmtree(Path(profile), ignore_errors=True)
