"""Rendezvous of a job's nodes before any of them computes: at the address where their ranks will meet.

The first node listens there; the others come, say who they are, wait for an answer, and so on. A node that cannot come
could not have joined the ranks either, which would have hung instead of naming it. Needs no torch.

Every line carries an HMAC under a secret that the job's nodes share: what strangers say is not believed, and however
many of them connect and whatever they send, nobody waits for them.
"""

import contextlib
import errno
import hmac
import json
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Self

from mmtrain.io.errors import RetriesExhaustedError
from mmtrain.io.retry import RetryPolicy

PAUSE_SECONDS = 0.2  # between attempts to connect
HELLO_SECONDS = 10.0  # for a node that has come to say who it is: any stranger may knock
MAX_LINE_BYTES = 4 * 2**20  # a result names at most every rank of the job
MAX_HELLO_BYTES = 2**18
MAX_STRANGERS = 256  # connections that have not said who they are; the oldest are closed beyond that
PIECE_BYTES = 65_536


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
    """A connection over which whole JSON values are said, one a line, each behind its HMAC-SHA256."""

    connection: socket.socket
    secret: bytes = b""
    max_bytes: int = MAX_LINE_BYTES
    _rest: bytearray = field(default_factory=bytearray, init=False)

    def say(self, value: Any) -> None:
        """Send `value`; OSError where nobody listens any more."""
        body = json.dumps(value).encode()
        self.connection.sendall(self._sign(body) + b" " + body + b"\n")

    def hear(self, seconds: float) -> Any:
        """The next value; OSError where none comes within `seconds`, ValueError where it is not one of this job."""
        deadline = time.monotonic() + seconds
        while not self.has_line():
            self.connection.settimeout(max(deadline - time.monotonic(), 0.001))
            self.receive()
        return self.take()

    def receive(self) -> None:
        """Take in what has come; OSError where the other end is gone, ValueError where its line is too long."""
        piece = self.connection.recv(PIECE_BYTES)
        if not piece:
            raise ConnectionError("the other end is gone")
        self._rest += piece
        if len(self._rest) > self.max_bytes and not self.has_line():
            raise ValueError(f"a line of more than {self.max_bytes} bytes")

    def has_line(self) -> bool:
        """Whether a whole line has come."""
        return b"\n" in self._rest

    def take(self) -> Any:
        """The value of the line that has come; ValueError where it is not of this job, or no JSON."""
        line, _, rest = self._rest.partition(b"\n")
        self._rest = bytearray(rest)
        signature, _, body = line.partition(b" ")
        if not hmac.compare_digest(bytes(signature), self._sign(bytes(body))):
            raise ValueError("a line that is not signed by this job")
        try:
            return json.loads(bytes(body))
        except RecursionError as error:
            raise ValueError("a line that is nested too deep") from error

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self.secret, body, "sha256").hex().encode()


class Host:
    """The first node's side: it waits for the others, hears each, and answers."""

    def __init__(self, place: Place, guests: Sequence[str], secret: str = "") -> None:
        """Listen at the place; OSError where this node cannot."""
        self._names, self._secret = tuple(guests), secret.encode()
        self._lines: dict[str, Line] = {}
        self._servers = _listen(place, len(guests) + 8)

    def welcome(self, seconds: float) -> dict[str, Any]:
        """What every guest said that came within `seconds`, by its name."""
        deadline, said = time.monotonic() + seconds, {}
        with _Reception(self._servers, self._secret) as reception:
            while len(said) < len(self._names) and (left := deadline - time.monotonic()) > 0:
                for line, value in reception.hear(left):
                    if not (isinstance(value, list) and len(value) == 2 and value[0] in self._names):
                        line.connection.close()  # no node of this job
                        continue
                    name, said[name] = value
                    if name in self._lines:  # it has come again
                        self._lines[name].connection.close()
                    self._lines[name] = line
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
        for server in self._servers:
            server.close()


class _Reception:
    """Takes in the first lines of all who connect, at the same time; whoever says nothing of this job is let go."""

    def __init__(self, servers: Sequence[socket.socket], secret: bytes) -> None:
        self._secret, self._selector = secret, selectors.DefaultSelector()
        self._strangers: dict[socket.socket, tuple[Line, float]] = {}  # and when each came; oldest first
        for server in servers:
            server.setblocking(False)
            self._selector.register(server, selectors.EVENT_READ, self._admit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for connection in list(self._strangers):
            self._dismiss(connection)
        self._selector.close()

    def hear(self, seconds: float) -> Iterator[tuple[Line, Any]]:
        """Connections with the values that they have said, of those that come within `seconds` or a second."""
        for key, _ in self._selector.select(min(seconds, 1.0)):
            if key.data is not None:
                self._admit(key.fileobj)
            elif key.fileobj in self._strangers and (heard := self._receive(key.fileobj)):
                yield heard
        for connection, (_, came) in list(self._strangers.items()):
            if time.monotonic() - came > HELLO_SECONDS:
                self._dismiss(connection)

    def _admit(self, server: socket.socket) -> None:
        try:
            connection = server.accept()[0]
        except OSError:
            return  # it has gone again
        if len(self._strangers) >= MAX_STRANGERS:
            self._dismiss(next(iter(self._strangers)))
        connection.setblocking(False)
        self._strangers[connection] = Line(connection, self._secret, MAX_HELLO_BYTES), time.monotonic()
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket) -> tuple[Line, Any] | None:
        line, _ = self._strangers[connection]
        try:
            line.receive()
            if not line.has_line():
                return None
            value = line.take()
        except BlockingIOError:
            return None
        except (OSError, ValueError):
            self._dismiss(connection)
            return None
        self._selector.unregister(connection)
        del self._strangers[connection]
        connection.setblocking(True)
        line.max_bytes = MAX_LINE_BYTES
        return line, value

    def _dismiss(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._strangers[connection]
        connection.close()


def visit(place: Place, name: str, value: Any, seconds: float, secret: str = "") -> Line:
    """Come to the place, trying for `seconds`, and say `value`; OSError with the last reason where it cannot be had."""
    deadline = time.monotonic() + seconds

    def come() -> Line:
        address = (place.host, place.port)
        line = Line(socket.create_connection(address, timeout=max(deadline - time.monotonic(), 1)), secret.encode())
        line.say([name, value])
        return line

    policy = RetryPolicy(None, PAUSE_SECONDS, growth=1.0, deadline_seconds=seconds)
    try:
        return policy.call(come, str(place), retry_on=lambda error: isinstance(error, OSError))
    except RetriesExhaustedError as error:
        raise error.last from None


def _listen(place: Place, backlog: int) -> list[socket.socket]:
    """Sockets at the addresses of the place, else at all of this node where its name leads elsewhere or to itself.

    Many a node knows its own name as 127.0.1.1, and behind a translation of addresses nobody has the public one.
    """
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        found = []
    addresses = dict.fromkeys((family, str(address[0])) for family, *_, address in found)
    if addresses and (_is_loopback(place.host) or not any(_is_loopback(address) for _, address in addresses)):
        with contextlib.ExitStack() as stack:
            try:
                servers = [stack.enter_context(_serve(*one, place.port, backlog)) for one in addresses]
                stack.pop_all()
                return servers
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
    return [socket.create_server(("", place.port), backlog=backlog)]


def _serve(family: int, address: str, port: int, backlog: int) -> socket.socket:
    return socket.create_server((address, port), family=family, backlog=backlog)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
