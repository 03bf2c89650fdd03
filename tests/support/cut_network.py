"""Machines on a network that can be cut, out of the kernel's network namespaces.

Each machine is a name space with one interface on a common bridge, which has a name space of its own. A
machine is cut off by taking its port out of the bridge: packets vanish, nothing is refused, and no interface
goes down. Processes share everything else, so files and memory are those of one machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType


def why_not() -> str:
    """Return why this machine cannot have such a network, "" if it can."""
    if shutil.which("ip") is None:
        return "needs ip (iproute2)"
    if os.geteuid() != 0:
        return "needs the right to make network namespaces"
    probe = subprocess.run(["ip", "netns", "add", f"hp{os.getpid()}x"], capture_output=True, check=False)
    if probe.returncode != 0:
        return f"no network namespaces: {probe.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "del", f"hp{os.getpid()}x"], check=True)
    return ""


class CutNetwork:
    """``machines`` machines, 10.77.0.1 and so on; the context takes them away again."""

    def __init__(self, machines: int) -> None:
        self._names = [f"hp{os.getpid()}-{i}" for i in range(machines)]
        self._bridge = f"hp{os.getpid()}-b"

    def __enter__(self) -> CutNetwork:
        try:
            self._build()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _build(self) -> None:
        _ip("netns", "add", self._bridge)
        self._in(self._bridge, "link", "add", "name", "switch", "type", "bridge", "forward_delay", "0")
        self._in(self._bridge, "link", "set", "switch", "up")
        for i, name in enumerate(self._names):
            _ip("netns", "add", name)
            port = f"port{i}"
            self._in(self._bridge, "link", "add", port, "type", "veth", "peer", "name", "net", "netns", name)
            self._in(self._bridge, "link", "set", port, "master", "switch", "up")
            self._in(name, "address", "add", f"{self.address(i)}/24", "dev", "net")
            self._in(name, "link", "set", "net", "up")
            self._in(name, "link", "set", "lo", "up")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in (*self._names, self._bridge):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def address(self, machine: int) -> str:
        return f"10.77.0.{machine + 1}"

    def on(self, machine: int) -> list[str]:
        """Return what to put before a command so that it runs on ``machine``."""
        return ["ip", "netns", "exec", self._names[machine]]

    def cut(self, machine: int) -> None:
        """Nothing goes to ``machine`` or comes from it any more."""
        self._in(self._bridge, "link", "set", f"port{machine}", "nomaster")

    def heal(self, machine: int) -> None:
        """``machine`` is back."""
        self._in(self._bridge, "link", "set", f"port{machine}", "master", "switch")

    def _in(self, name: str, *arguments: str) -> None:
        _ip("-n", name, *arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=10)
