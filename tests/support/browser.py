"""A real Chromium that opens a page: what it loaded, what its console said, and a picture of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LONGEST_S = 60.0
OWN = "not an origin"


def found() -> str | None:
    """Return the browser on PATH, or the one that BROWSER_FOR_TESTS names; None if there is none."""
    return os.environ.get("BROWSER_FOR_TESTS") or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(frozen=True)
class Seen:
    """What one visit left. ``requests``: every address on a network that the page asked for."""

    picture: Path
    requests: list[str]
    output: str

    @property
    def complaints(self) -> list[str]:
        """What the console of the page said."""
        return [line for line in self.output.splitlines() if "CONSOLE" in line]


def visit(page: Path, directory: Path, *, height: int, dark: bool = False) -> Seen:
    """Open ``page`` and take a picture of it."""
    directory.mkdir()
    picture, log = directory / "page.png", directory / "net.json"
    command = [
        found() or "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={directory / 'profile'}", f"--window-size=1100,{height}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--enable-logging=stderr", "--v=0",
        f"--log-net-log={log}", "--net-log-capture-mode=Everything", f"--screenshot={picture}", page.as_uri(),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"the browser did not end:\n{output.decode(errors='replace')[-3000:]}") from None
    assert process.returncode == 0, output.decode(errors="replace")[-3000:]
    shutil.rmtree(directory / "profile", ignore_errors=True)
    return Seen(picture, requested(log), output.decode(errors="replace"))


def requested(log: Path) -> list[str]:
    """Return the addresses in a net log that a page asked for over a network."""
    text = log.read_text().rstrip()
    # A browser that is ended in a hurry leaves the list of events open.
    whole = text if text.endswith("}") and '"polledData"' in text else text.rstrip(",") + "]}"
    events = json.loads(whole)["events"]
    # The browser's own business (time, updates) has no origin; everything a page causes has one.
    asked = [event["params"] for event in events if event.get("params", {}).get("initiator", OWN) != OWN]
    return sorted({p["url"] for p in asked if p["url"].startswith(("http:", "https:", "ws:", "wss:"))})
