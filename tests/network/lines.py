"""Bad lines: frames that go through this process, which delays, loses and doubles them.

As `tc netem` does, in user space, for not every kernel has that: two TAP devices, and a thread between them that keeps
each frame until its time. The kernel cuts what it hands to a TAP into frames of the line's size.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import threading
import time
from typing import NamedTuple

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 1 << 16
AT_ONCE = 64
"""Frames that are taken from a device before those that are due go on."""


class Quality(NamedTuple):
    """What a line does to each frame, either way: a delay in milliseconds, more or less by `jitter`, evenly; so many
    of a hundred are lost, so many arrive twice. Jitter puts frames out of order."""

    delay: float
    jitter: float = 0.0
    loss: float = 0.0
    twice: float = 0.0


class Line:
    """Frames from one TAP device to the other and back, until it is closed; chances follow from `seed`."""

    def __init__(self, ends: tuple[int, int], quality: Quality, seed: int) -> None:
        self.passed = self.lost = 0
        self._ends, self._quality, self._random = ends, quality, random.Random(seed)
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._numbers = itertools.count()
        self._wake, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it; what is under way is lost, and the devices are gone."""
        os.write(self._woken, b".")
        self._thread.join()
        for fd in (*self._ends, self._wake, self._woken):
            os.close(fd)

    def _run(self) -> None:
        over = dict(zip(self._ends, reversed(self._ends), strict=True))
        poll = select.poll()
        for fd in (*self._ends, self._wake):
            poll.register(fd, select.POLLIN)
        while True:
            due = self._waiting[0][0] - time.monotonic() if self._waiting else None
            for fd, _ in poll.poll(None if due is None else max(0.0, due * 1000)):
                if fd == self._wake:
                    return
                self._take(fd, over[fd])
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(self._waiting)
                try:
                    os.write(to, frame)
                except (BlockingIOError, OSError):
                    self.lost += 1  # its queue is full, or the device goes down
                else:
                    self.passed += 1

    def _take(self, fd: int, to: int) -> None:
        quality, chance = self._quality, self._random
        for _ in range(AT_ONCE):
            try:
                frame = os.read(fd, FRAME)
            except BlockingIOError:
                return
            if chance.random() * 100 < quality.loss:
                self.lost += 1
                continue
            for _ in range(2 if chance.random() * 100 < quality.twice else 1):
                late = (quality.delay + chance.uniform(-quality.jitter, quality.jitter)) / 1000
                heapq.heappush(self._waiting, (time.monotonic() + late, next(self._numbers), to, frame))


def tap(name: str) -> int:
    """A new TAP device in the network that the calling thread is in; it is gone when its descriptor is closed."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd
