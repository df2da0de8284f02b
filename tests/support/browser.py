"""A real Chromium without a screen, driven by its DevTools protocol: a page in; its state, errors and requests out."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)
ANSWER_S = 120


class Page:
    """One tab of the browser.

    Attributes:
        messages: errors and warnings of its console.
        requests: addresses that it requested, its own included.
    """

    def __init__(self, runner, socket):
        self._runner, self._socket, self._number = runner, socket, 0
        self.messages, self.requests, self._events = [], [], []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def do(self, method, **params):
        """Send one command of the protocol and return its result."""
        return self._runner.run(self._do(method, params))

    async def _do(self, method, params):
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = await self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    async def _receive(self):
        message = json.loads((await asyncio.wait_for(self._socket.receive(), ANSWER_S)).data)
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.messages.append(params["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.messages.append(params["args"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.messages.append(params["entry"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        self._events.append(method)
        return message

    def open(self, path, *, width=1100, height=900, theme="light", motion="no-preference"):
        """Load the file at `path` and wait until it is drawn."""
        mobile = width < 600
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        preferences = {"prefers-color-scheme": theme, "prefers-reduced-motion": motion}
        self.do("Emulation.setEmulatedMedia", features=[{"name": k, "value": v} for k, v in preferences.items()])
        self._events.clear()
        self.do("Page.navigate", url=Path(path).resolve().as_uri())

        async def loaded():
            while "Page.loadEventFired" not in self._events:
                await self._receive()

        self._runner.run(loaded())
        # plotly draws after the page has loaded, frame by frame.
        self.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 300))))"
        )

    def evaluate(self, expression):
        """Return the value of a JavaScript expression."""
        message = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in message, message
        return message["result"].get("value")

    def press(self, key, code=None, text=None):
        """Press a key of the keyboard."""
        named = {"key": key, "code": code or key, "windowsVirtualKeyCode": {"Tab": 9, "Enter": 13, " ": 32}[key]}
        self.do("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
        self.do("Input.dispatchKeyEvent", type="keyUp", **named)

    def picture(self, path, *, whole=True):
        """Write a PNG of the page; `whole`: not only the part on the screen."""
        image = self.do("Page.captureScreenshot", captureBeyondViewport=whole, **(self._clip() if whole else {}))
        Path(path).write_bytes(base64.b64decode(image["data"]))

    def _clip(self):
        size = self.do("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}


@contextmanager
def browser(profile: Path):
    """Yield a tab of a Chromium with an empty profile; skip the test where none is installed."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    aiohttp = pytest.importorskip("aiohttp")
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.PIPE, text=True
    )
    try:
        with process.stderr as lines, asyncio.Runner() as runner:
            address = next(match[1] for line in lines if (match := re.search(r"(127\.0\.0\.1:\d+)", line)))

            async def connect():
                session = aiohttp.ClientSession()
                while True:  # the first page opens a moment after the server
                    async with session.get(f"http://{address}/json") as answer:
                        if tab := next((t for t in await answer.json() if t["type"] == "page"), None):
                            break
                    await asyncio.sleep(0.05)
                return session, await session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0)

            session, socket = runner.run(connect())
            try:
                yield Page(runner, socket)
            finally:
                runner.run(socket.close())
                runner.run(session.close())
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
