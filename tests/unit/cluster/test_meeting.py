"""Nodes meet at an address: who came is known, who did not is missed, strangers change nothing."""

import hmac
import socket
import threading
import time

import pytest

from mmtrain.cluster.meeting import MAX_HELLO_BYTES, Host, Line, Place, visit
from tests.helpers import free_port

SECONDS = 10.0


@pytest.fixture
def place() -> Place:
    return Place("127.0.0.1", free_port())


def test_a_place_is_read_from_text() -> None:
    assert str(Place.parse("node1:29500")) == "node1:29500"
    for text in ("node1", "node1:", ":29500"):
        with pytest.raises(ValueError):
            Place.parse(text)


def test_guests_that_come_early_or_late_are_heard_and_told(place: Place) -> None:
    told = {}

    def come(name: str, pause: float) -> None:
        time.sleep(pause)
        line = visit(place, name, {"i am": name}, SECONDS)
        told[name] = line.hear(SECONDS)
        line.say([name, "done"])

    guests = [threading.Thread(target=come, args=guest) for guest in (("b", 0.0), ("c", 0.5))]
    guests[0].start()
    time.sleep(0.3)  # it knocks before anybody listens
    host = Host(place, ["b", "c"])
    guests[1].start()
    assert host.welcome(SECONDS) == {"b": {"i am": "b"}, "c": {"i am": "c"}}
    host.tell(True)
    assert host.hear_all(SECONDS) == {"b": ["b", "done"], "c": ["c", "done"]}
    for guest in guests:
        guest.join()
    host.close()
    assert told == {"b": True, "c": True}


def test_who_does_not_come_is_missed_in_time_and_strangers_are_not_counted(place: Place) -> None:
    host = Host(place, ["b", "c"])
    stranger = socket.create_connection((place.host, place.port))
    stranger.sendall(b"GET / HTTP/1.1\n")
    visit(place, "z", None, SECONDS)
    visit(place, "b", 1, SECONDS)
    assert host.welcome(1.0) == {"b": 1}
    host.close()
    stranger.close()


def test_a_guest_that_goes_without_a_word_is_missed(place: Place) -> None:
    host = Host(place, ["b"])
    line = visit(place, "b", 1, SECONDS)
    assert host.welcome(SECONDS) == {"b": 1}
    line.connection.close()
    assert host.hear_all(SECONDS) == {}
    host.tell(True)
    host.close()


def test_a_place_where_nobody_listens_is_an_error_in_time(place: Place) -> None:
    with pytest.raises(OSError):
        visit(place, "b", 1, 0.5)


SECRET = "of this job"
HELLO = b'["b", 1]'


def signed(body: bytes, secret: str = SECRET) -> bytes:
    return hmac.digest(secret.encode(), body, "sha256").hex().encode() + b" " + body + b"\n"


@pytest.mark.parametrize(
    "words",
    [
        HELLO + b"\n",
        signed(HELLO, "of another job"),
        signed(HELLO)[:-4] + b"3]\n",
        b"0" * 64 + b" " + HELLO + b"\n",
        signed(b'["z", 1]'),
        signed(b"7"),
        signed(b'["b"]'),
        signed(b'[["b"], 1]'),
        signed(b"[" * 100_000),
        b"\n",
        b"x" * (MAX_HELLO_BYTES + 1),
        b"\xff\xfe \x00\n",
        b"",
    ],
    ids=range(13),
)
def test_a_stranger_changes_nothing(place: Place, words: bytes) -> None:
    host = Host(place, ["b"], SECRET)
    stranger = socket.create_connection((place.host, place.port))
    stranger.sendall(words)
    line = visit(place, "b", "the true one", SECONDS, SECRET)
    assert host.welcome(SECONDS) == {"b": "the true one"}
    host.tell("go")
    assert line.hear(SECONDS) == "go"
    host.close()
    stranger.close()


def test_silent_strangers_keep_nobody_waiting(place: Place) -> None:
    host = Host(place, ["b"], SECRET)
    strangers = [socket.create_connection((place.host, place.port)) for _ in range(5)]
    guest = threading.Thread(target=visit, args=(place, "b", 1, SECONDS, SECRET))
    guest.start()
    # HELLO_SECONDS for each of them in turn would be more than this.
    assert host.welcome(SECONDS / 2) == {"b": 1}
    guest.join()
    host.close()
    for stranger in strangers:
        stranger.close()


def test_more_strangers_than_are_kept_are_let_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtrain.cluster.meeting.MAX_STRANGERS", 2)
    host = Host(place, ["b"], SECRET)
    strangers = [socket.create_connection((place.host, place.port)) for _ in range(4)]
    line = visit(place, "b", 1, SECONDS, SECRET)
    assert host.welcome(SECONDS) == {"b": 1}
    host.tell(2)
    assert line.hear(SECONDS) == 2
    assert strangers[0].recv(1) == b""
    host.close()


def test_a_host_of_another_job_is_not_believed(place: Place) -> None:
    host = Host(place, ["b"], "of another job")
    line = visit(place, "b", 1, SECONDS, SECRET)
    assert host.welcome(0.3) == {}
    with pytest.raises((OSError, ValueError)):
        line.hear(SECONDS)
    host.close()


def test_an_endless_line_is_cut(place: Place) -> None:
    ours, theirs = socket.socketpair()
    line = Line(ours, b"", max_bytes=1000)
    theirs.sendall(b"x" * 2000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        line.hear(1.0)
    ours.close()
    theirs.close()


def test_the_host_listens_only_where_it_is_reached(place: Place) -> None:
    host = Host(place, ["b"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.77", place.port), timeout=1)
    host.close()
    # An address that this node does not have is somebody else's translation of its own.
    host = Host(Place("198.51.100.1", place.port), ["b"])
    visit(place, "b", 1, SECONDS)
    assert host.welcome(SECONDS) == {"b": 1}
    host.close()
