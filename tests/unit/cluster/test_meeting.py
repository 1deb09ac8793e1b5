"""Nodes meet at an address: who came is known, who did not is missed, strangers change nothing."""

import socket
import threading
import time

import pytest

from mmtrain.cluster.meeting import Host, Place, visit
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
