"""Network namespaces: each member on a machine of its own as far as the network goes, all behind one switch.

A port of the switch can be moved to another, which cuts the network in two as a failed line would: packets vanish,
nothing is refused. Needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tests.network.lines import Line, Quality, tap

CLONE_NEWNET = 0x40000000
Result = TypeVar("Result")
_numbers = itertools.count()


def ip(*arguments: str) -> None:
    """Run iproute2's `ip`."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


class Namespace:
    """One member's own network: loopback, and `address` towards the others."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        self._inside = ThreadPoolExecutor(1, name, enter, (name,))

    @property
    def command(self) -> Sequence[str]:
        """What to put before a command that is to run inside; it is that process then."""
        return ["nsenter", f"--net=/run/netns/{self.name}", "--"]

    def run(self, function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """Call a function of this process whose sockets are inside."""
        return self._inside.submit(function, *arguments, **named).result()

    def refuse(self, addresses: Sequence[str]) -> None:
        """Neither reach these addresses nor be reached from there; what was refused before is allowed again."""
        ip("-n", self.name, "route", "flush", "type", "blackhole")
        for address in addresses:
            ip("-n", self.name, "route", "add", "blackhole", f"{address}/32")

    def close(self) -> None:
        """Remove it; processes inside keep their loopback and nothing else."""
        self._inside.shutdown()
        ip("netns", "del", self.name)


def enter(name: str) -> None:
    """Move the calling thread, and it alone, into a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(Path("/run/netns") / name, os.O_RDONLY)
    try:
        if libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


class Switch:
    """Namespaces that reach each other, unless they were parted. Use as a context manager."""

    def __init__(self) -> None:
        self._own = f"cairn-{os.getpid()}-{next(_numbers)}"
        self.members: dict[str, Namespace] = {}
        self.lines: dict[str, Line] = {}

    def __enter__(self) -> Switch:
        ip("netns", "add", self._own)
        return self

    def __exit__(self, *_: object) -> None:
        self.mend()
        for member in self.members.values():
            member.close()
        ip("netns", "del", self._own)

    def attach(self, name: str) -> Namespace:
        """A new namespace that all reach."""
        number = len(self.members)
        member = Namespace(f"{self._own}-{name}", f"10.77.0.{number + 1}")
        self.members[name] = member
        ip("link", "add", name, "netns", self._own, "type", "veth", "peer", "name", "eth0", "netns", member.name)
        ip("-n", self._own, "link", "add", f"s{number}", "type", "bridge")
        ip("-n", self._own, "link", "set", f"s{number}", "up")
        ip("-n", self._own, "link", "set", name, "master", "s0", "up")
        ip("-n", member.name, "address", "add", f"{member.address}/24", "dev", "eth0")
        ip("-n", member.name, "link", "set", "eth0", "up")
        return member

    def part(self, *groups: Sequence[str]) -> None:
        """Members reach those of their group alone; who is in none reaches nobody."""
        grouped = {name: group for group, names in enumerate(groups) for name in names}
        for number, name in enumerate(self.members):
            state = ["master", f"s{grouped[name]}", "up"] if name in grouped else ["down"]
            ip("-n", self._own, "link", "set", f"far{number}" if name in self.lines else name, *state)

    def join(self) -> None:
        """All reach all again."""
        self.part(list(self.members))

    def worsen(self, name: str, quality: Quality) -> None:
        """Put a bad line between a member and the switch: member - bridge - TAP - this process - TAP - switch."""
        number = list(self.members).index(name)
        near, far, bridge = f"near{number}", f"far{number}", f"l{number}"
        with ThreadPoolExecutor(1, name, enter, (self._own,)) as inside:
            ends = inside.submit(tap, near).result(), inside.submit(tap, far).result()
        ip("-n", self._own, "link", "add", bridge, "type", "bridge")
        for link, master in ((near, bridge), (far, "s0"), (name, bridge)):
            ip("-n", self._own, "link", "set", link, "master", master, "up")
        ip("-n", self._own, "link", "set", bridge, "up")
        self.lines[name] = Line(ends, quality, number)

    def mend(self) -> None:
        """Every line is as good as new."""
        for name, line in list(self.lines.items()):
            ip("-n", self._own, "link", "set", name, "master", "s0", "up")
            line.close()
            ip("-n", self._own, "link", "del", f"l{list(self.members).index(name)}")
            del self.lines[name]
