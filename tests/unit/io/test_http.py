"""The HTTP client: whole bodies or errors, connections that are kept, addresses that may not be reached."""

import os
from collections.abc import Iterator

import pytest

from mmtrain.io.addresses import is_public, public_addresses
from mmtrain.io.errors import (
    AddressRefusedError,
    InputError,
    NotFoundError,
    OptOutError,
    StorageError,
    TransientError,
)
from mmtrain.io.http import HttpClient
from tests.unit.io.site import CONTENT, Server, serve_site

CLIENT = HttpClient(timeout_seconds=2.0)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Server]]:
    with serve_site() as found:
        yield found


@pytest.fixture
def site(running: tuple[str, Server]) -> str:
    running[1].asked.clear()
    running[1].connections.clear()
    running[1].headers.clear()
    return running[0]


def read(url: str, client: HttpClient = CLIENT) -> bytes:
    return b"".join(client.stream(url))


def test_files_come_whole_over_one_kept_connection(site: str, running: tuple[str, Server]) -> None:
    client = HttpClient(timeout_seconds=2.5)
    for _ in range(3):
        assert read(f"{site}/file", client) == CONTENT
        assert client.read_range(f"{site}/file", 100, 300).content == CONTENT[100:300]
    assert len(running[1].connections) == 1
    assert read(f"{site}/turn", client) == CONTENT and read(f"{site}/chunks", client) == b"helloworld"


def test_ranges_are_what_was_asked_for(site: str) -> None:
    found = CLIENT.read_range(f"{site}/file", len(CONTENT) - 5, len(CONTENT) + 5)
    assert (found.content, found.total_bytes) == (CONTENT[-5:], len(CONTENT))
    assert CLIENT.read_range(f"{site}/whole_only", 0, 5) is None
    assert CLIENT.read_range(f"{site}/silent_range", 5, 10).content == CONTENT[5:10]
    for bad in ("wrong_range", "long_range"):
        with pytest.raises(TransientError, match="asked for 5 from 5"):
            CLIENT.read_range(f"{site}/{bad}", 5, 10)
    with pytest.raises(StorageError, match="HTTP 416"):
        CLIENT.read_range(f"{site}/file", 10**6, 10**6 + 5)


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("short", TransientError, "IncompleteRead|early"),
        ("torn_chunks", TransientError, "IncompleteRead|ProtocolError"),
        ("garbage", TransientError, "ProtocolError|BadStatusLine"),
        ("circle", StorageError, "too many redirects"),
        ("elsewhere/ftp://h/x", StorageError, "neither http nor https"),
        ("elsewhere/http://[::1/x", InputError, "is not an address"),
        *((f"status/{status}", NotFoundError, f"HTTP {status}") for status in (403, 404, 410)),
        *(
            (f"status/{status}", TransientError, f"HTTP {status}")
            for status in (408, 425, 429, 500, 502, 503, 504, 521)
        ),
        *((f"status/{status}", StorageError, f"HTTP {status}") for status in (400, 401, 405, 451, 501)),
    ],
)
def test_a_bad_answer_is_named_by_its_kind(site: str, path: str, kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        read(f"{site}/{path}")
    assert isinstance(caught.value, TransientError) == (kind is TransientError)


def test_a_stall_ends_by_the_idle_time_out(site: str) -> None:
    with pytest.raises(TransientError, match="ReadTimeout"):
        read(f"{site}/stall", HttpClient(timeout_seconds=0.1))
    assert len(read(f"{site}/trickle", HttpClient(timeout_seconds=1.0))) == 100
    with pytest.raises(TransientError, match="not whole after 0.1 s"):
        read(f"{site}/trickle", HttpClient(timeout_seconds=1.0, total_seconds=0.1))


@pytest.mark.parametrize(
    ("given", "seconds"), [("7", 7.0), ("soon", 0.0), ("-3", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)]
)
def test_retry_after_is_read(site: str, given: str, seconds: float) -> None:
    with pytest.raises(TransientError) as caught:
        read(f"{site}/later/{given}")
    assert caught.value.retry_after_seconds == seconds


def test_opt_outs_hold_where_they_are_honoured(site: str) -> None:
    assert read(f"{site}/refused") == b"image"
    with pytest.raises(OptOutError, match="noai"):
        read(f"{site}/refused", HttpClient(honour_opt_out=True))


def test_versions_are_told_by_head(site: str) -> None:
    assert CLIENT.describe(f"{site}/tagged") == {"Content-Length": str(len(CONTENT)), "ETag": '"v1"'}
    assert CLIENT.describe(f"{site}/status/405") == CLIENT.describe(f"{site}/status/404") == {}
    with pytest.raises(TransientError):
        CLIENT.describe(f"{site}/status/503")


def test_the_password_of_an_address_goes_in_its_header_only(site: str, running: tuple[str, Server]) -> None:
    assert read(site.replace("//", "//me:s%20x@") + "/file") == CONTENT
    assert running[1].headers[-1]["authorization"] == "Basic bWU6cyB4"
    assert "@" not in running[1].headers[-1]["host"]
    assert read(f"{site}/file") == CONTENT and "authorization" not in running[1].headers[-1]


def test_nobody_listening_may_pass(site: str) -> None:
    with pytest.raises(TransientError, match="refused"):
        read("http://127.0.0.1:9/x")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "198.51.100.1", "::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
     "2002:7f00:1::", "ff02::1"],
)  # fmt: skip
def test_an_address_that_is_not_public_is_told(address: str) -> None:
    assert not is_public(address)


def test_public_addresses_are_told() -> None:
    assert all(map(is_public, ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808")))


@pytest.mark.parametrize("path", ["file", "turn", "status/404"])
def test_private_hosts_are_refused_where_asked(site: str, running: tuple[str, Server], path: str) -> None:
    client = HttpClient(private_addresses=False)
    for host in ("127.0.0.1", "localhost", "0", "0x7f.1", "2130706433"):
        with pytest.raises(AddressRefusedError, match="not one of the public internet"):
            read(f"{site.replace('127.0.0.1', host)}/{path}", client)
    assert not running[1].asked


def test_the_checked_address_is_the_one_connected_to(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A name that resolves to a public address when it is checked, and would to this machine a moment later.
    resolved: list[str] = []
    connected: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        resolved.append(host)
        return ["93.184.216.34"]

    def connect(address: tuple[str, int], *words: object) -> None:
        connected.append(address[0])
        raise OSError("not today")

    monkeypatch.setattr("mmtrain.io.addresses.public_addresses", resolve)
    monkeypatch.setattr("mmtrain.io.addresses.create_connection", connect)
    with pytest.raises(TransientError, match="not today"):
        read("http://rebinding.example/x", HttpClient(private_addresses=False, timeout_seconds=1.5))
    assert (resolved, connected) == (["rebinding.example"], ["93.184.216.34"])


def test_each_redirect_is_checked(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = site.rpartition(":")[2]

    def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "public.example" else public_addresses(host, port)

    monkeypatch.setattr("mmtrain.io.addresses.public_addresses", resolve)
    client = HttpClient(private_addresses=False, timeout_seconds=1.6)
    assert read(f"http://public.example:{port}/file", client) == CONTENT
    with pytest.raises(AddressRefusedError, match=r"127\.0\.0\.1"):
        read(f"http://public.example:{port}/elsewhere/http://127.0.0.1:{port}/file", client)


def test_a_forked_process_has_connections_of_its_own(site: str, running: tuple[str, Server]) -> None:
    client = HttpClient(timeout_seconds=3.0)
    assert read(f"{site}/file", client) == CONTENT
    pid = os.fork()
    if not pid:
        os._exit(0 if read(f"{site}/file", client) == CONTENT else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert read(f"{site}/file", client) == CONTENT and len(running[1].connections) == 2
