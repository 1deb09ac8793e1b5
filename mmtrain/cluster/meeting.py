"""The nodes of a job meet before any of them starts to compute: at the address where their ranks will meet.

The first node listens there; the others come, say one line, wait for an answer, and so on. A node that cannot come
could not have joined the ranks either, which would have hung instead of naming it. Needs no torch.
"""

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

PAUSE_SECONDS = 0.2
HELLO_SECONDS = 10.0  # for a node that has come to say who it is: any stranger may knock


@dataclass(frozen=True)
class Place:
    """An address where nodes meet."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `host:port`; ValueError where it is none."""
        host, _, port = text.rpartition(":")
        if not host:
            raise ValueError(f"{text!r} is not host:port")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass
class Line:
    """A connection over which whole JSON values are said, one a line."""

    connection: socket.socket
    _rest: bytes = field(default=b"", init=False)

    def say(self, value: Any) -> None:
        """Send `value`; OSError where nobody listens any more."""
        self.connection.sendall(json.dumps(value).encode() + b"\n")

    def hear(self, seconds: float) -> Any:
        """The next value; OSError where none comes within `seconds`, ValueError where it is no JSON."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            self.connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = self.connection.recv(65_536)
            if not part:
                raise ConnectionError("the other end is gone")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


class Host:
    """The first node's side: it waits for the others, hears each, and answers."""

    def __init__(self, place: Place, guests: Sequence[str]) -> None:
        """Listen at the place; OSError where this node cannot."""
        self._guests = set(guests)
        self._lines: dict[str, Line] = {}
        self._server = socket.create_server(("", place.port), backlog=len(guests) + 8)

    def welcome(self, seconds: float) -> dict[str, Any]:
        """What every guest said that came within `seconds`, by its name."""
        deadline, said = time.monotonic() + seconds, {}
        while len(said) < len(self._guests) and (left := deadline - time.monotonic()) > 0:
            self._server.settimeout(left)
            try:
                line = Line(self._server.accept()[0])
                name, value = line.hear(min(HELLO_SECONDS, left))
            except (OSError, ValueError, TypeError):
                continue  # nobody came, or a stranger
            if name in self._guests:
                self._lines[name], said[name] = line, value
        return said

    def tell(self, value: Any) -> None:
        """Say the same to every guest that came."""
        for line in self._lines.values():
            try:
                line.say(value)
            except OSError:
                continue  # it will be missed when it is to answer

    def hear_all(self, seconds: float) -> dict[str, Any]:
        """The next words of every guest that has any within `seconds`."""
        deadline, said = time.monotonic() + seconds, {}
        for name, line in self._lines.items():
            try:
                said[name] = line.hear(max(deadline - time.monotonic(), 0.0))
            except (OSError, ValueError):
                continue
        return said

    def close(self) -> None:
        """Let everyone go."""
        for line in self._lines.values():
            line.connection.close()
        self._server.close()


def visit(place: Place, name: str, value: Any, seconds: float) -> Line:
    """Come to the place, trying for `seconds`, and say `value`; OSError with the last reason where it cannot be had."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            line = Line(socket.create_connection((place.host, place.port), timeout=max(deadline - time.monotonic(), 1)))
            line.say([name, value])
            return line
        except OSError:
            if time.monotonic() + PAUSE_SECONDS > deadline:
                raise
            time.sleep(PAUSE_SECONDS)
