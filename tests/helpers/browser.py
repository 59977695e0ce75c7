# yolo-prune, AGPL-3.0 license
"""A headless Chromium, driven by WebDriver over HTTP (chromedriver; W3C WebDriver, a dozen of its calls)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element, W3C WebDriver 12.1


def missing() -> str | None:
    """What is not installed; None where a browser can be started."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    return "chromedriver and a Chromium" if not any(found) or not shutil.which("chromedriver") else None


class Browser:
    """One window."""

    def __init__(self, address: str, session: str) -> None:
        self.address = f"{address}/session/{session}"

    def open(self, page: Path) -> None:
        """Open a file."""
        _call(f"{self.address}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *given: Any) -> Any:
        """What a script returns."""
        return _call(f"{self.address}/execute/sync", {"script": script, "args": list(given)})

    def click(self, selector: str) -> None:
        """Click on the first element that a CSS selector finds, as a person does."""
        found = _call(f"{self.address}/element", {"using": "css selector", "value": selector})
        _call(f"{self.address}/element/{found[_ELEMENT]}/click", {})

    def point_at(self, x: float, y: float) -> None:
        """Move the pointer to a place of the window, in CSS pixels."""
        steps = [
            {"type": "pointerMove", "duration": 0, "x": round(x + offset), "y": round(y), "origin": "viewport"}
            for offset in (-40, -1, 0)
        ]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        _call(f"{self.address}/actions", {"actions": [pointer]})

    def size(self, width: int, height: int) -> None:
        """Give the window a size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)

    def dark(self, yes: bool) -> None:
        """Prefer dark colours, or light ones."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if yes else "light"}]
        self.devtools("Emulation.setEmulatedMedia", {"features": features})

    def devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        """One command of Chromium's own protocol."""
        return _call(f"{self.address}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def picture(self, path: Path) -> None:
        """Write a screenshot."""
        path.write_bytes(base64.b64decode(_call(f"{self.address}/screenshot")))

    def log(self) -> list[dict[str, Any]]:
        """What the console said since the last call, and what could not be loaded."""
        entries: list[dict[str, Any]] = _call(f"{self.address}/se/log", {"type": "browser"})
        return entries


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A window that is closed at the end. folder: for its profile and its log."""
    with (folder / "driver.log").open("wb") as log:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=log)
        try:
            assert driver.stdout is not None
            said = next(line for line in driver.stdout if b"successfully on port" in line)
            port = int(said.rsplit(b" ", 1)[1].strip(b".\n"))
            address = f"http://127.0.0.1:{port}"
            session = _call(f"{address}/session", {"capabilities": {"alwaysMatch": _wishes(folder)}})["sessionId"]
            try:
                yield Browser(address, session)
            finally:
                _call(f"{address}/session/{session}", method="DELETE")
        finally:
            driver.terminate()
            driver.wait(20)


def _wishes(folder: Path) -> dict[str, Any]:
    flags: Sequence[str] = (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        f"--user-data-dir={folder / 'profile'}",
    )
    return {
        "browserName": "chrome",
        "goog:chromeOptions": {"args": list(flags)},
        "goog:loggingPrefs": {"browser": "ALL"},
    }


def _call(url: str, content: Any = None, method: str | None = None) -> Any:
    """One call; nothing between us and the driver is asked for a proxy."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 60
    while True:
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > end:
                raise
            time.sleep(0.2)
