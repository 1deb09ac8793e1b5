"""Addresses are encoded once, joined by names, and never raise anything but InputError."""

import pytest

from mmtrain.io.errors import InputError
from mmtrain.io.urls import (
    add_suffix,
    encode_url,
    file_name,
    has_suffix,
    is_http,
    is_remote,
    join_url,
    name_of_url,
    normalize_url,
    parent_url,
    path_of_file_url,
    scheme_of,
    shown_name,
    strip_query,
)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("http://h/a b.tar", "http://h/a%20b.tar"),
        ("HTTP://H/x.TAR", "http://H/x.TAR"),
        ("http://h/é.tar", "http://h/%C3%A9.tar"),
        ("http://h/a%20b.tar", "http://h/a%20b.tar"),
        ("http://h/100%/a%20b", "http://h/100%25/a%20b"),
        ("http://h/x.tar?sig=a/b+c%3D&x=1#frag", "http://h/x.tar?sig=a/b+c%3D&x=1"),
        ("http://h/a\nb", "http://h/a%0Ab"),
        ("http://h", "http://h"),
        ("s3://bucket/a b#1.jpg", "s3://bucket/a b#1.jpg"),
    ],
)
def test_an_address_is_percent_encoded_once(given: str, sent: str) -> None:
    assert encode_url(given) == sent and encode_url(sent) == sent


@pytest.mark.parametrize(
    "given",
    [
        "http://[::1/a.jpg",
        "http:///a",
        "http://h:99999/a",
        "http://h:x/a",
        "http://a b/c",
        "http://h\n/a",
        "http://h:0/",
    ]
    + ["http://" + "a" * 70 + ".com/", "http://..com/", "http://h/\ud800", "nothing", "//h/a", "http://\ud800/a"],
)
def test_what_is_no_address_is_one_sentence(given: str) -> None:
    with pytest.raises(InputError, match="is not an address") as caught:
        encode_url(given) if is_http(given) else parent_url(f"http://{given}:x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "name", "joined"),
    [
        ("http://h/d/", "a#1%2?.jpg", "http://h/d/a%231%252%3F.jpg"),
        ("http://h/d", "/x/é a.jpg", "http://h/d/x/%C3%A9%20a.jpg"),
        ("http://h/d?sig=1/2", "a.jpg", "http://h/d/a.jpg?sig=1/2"),
        ("http://h", "\udce9.jpg", "http://h/%E9.jpg"),
        ("s3://b/d/", "a#1 %.jpg", "s3://b/d/a#1 %.jpg"),
    ],
)
def test_a_name_is_joined_as_a_name(folder: str, name: str, joined: str) -> None:
    assert join_url(folder, name) == joined


def test_parents_names_and_schemes() -> None:
    assert parent_url("http://h/d/x.csv?sig=1/2") == "http://h/d?sig=1/2"
    assert parent_url("s3://b/d/x.csv") == "s3://b/d"
    assert name_of_url("http://h/d/x.tar?sig=1/2#f") == "x.tar" and name_of_url("s3://b/x#1.tar") == "x#1.tar"
    assert scheme_of("GS://b") == "gs" and scheme_of("C:/x") == scheme_of("pipe:cat a://b") == scheme_of("a/b") == ""


@pytest.mark.parametrize(
    ("place", "remote"),
    [("HTTP://h/x", True), ("s3://b/x", True), ("pipe:cat x", True), ("file:///x", False), ("data/train", False)]
    + [("a:b//c", False), ("://x", False), ("", False)],
)
def test_addresses_are_told_from_local_names(place: str, remote: bool) -> None:
    assert is_remote(place) == remote


def test_schemes_become_lower_case_and_keys_of_stores_stay() -> None:
    assert normalize_url("S3://b/a b#1?.tar") == "s3://b/a b#1?.tar"
    assert normalize_url("HTTPS://h/a b.tar#f") == "https://h/a%20b.tar"
    assert [normalize_url(place) for place in ("a b#c", "pipe:cat a b")] == ["a b#c", "pipe:cat a b"]


def test_the_parts_of_a_signed_address() -> None:
    address = "http://h/set%20a/x%20y.TAR?sig=1/2"
    assert file_name(address) == "x y.TAR" and has_suffix(address, (".tar",))
    assert add_suffix(address, ".index") == "http://h/set%20a/x%20y.TAR.index?sig=1/2"
    assert join_url(parent_url(address), "manifest.json") == "http://h/set%20a/manifest.json?sig=1/2"
    assert strip_query(address) == "http://h/set%20a/x%20y.TAR"
    assert add_suffix("s3://b/x?.tar", ".index") == "s3://b/x?.tar.index"
    assert file_name("http://h/a%2Fb.tar") == "a%2Fb.tar"


@pytest.mark.parametrize("name", ["a#b.jpg", "a?b.jpg", "50%.jpg", "a%20b.jpg", "\u00e9 \u4e2d.jpg", "\udcff.jpg"])
def test_the_name_of_a_file_survives_in_its_address(name: str) -> None:
    address = join_url("http://h/pics/", name)
    assert file_name(address) == name and normalize_url(address) == address


def test_the_name_of_a_command_shows_no_secret() -> None:
    assert shown_name('pipe:curl -H "Authorization: Bearer s/ecret" http://h/x/a-0.tar?sig=t/ok') == "a-0.tar"
    assert shown_name("pipe:get s/ecret") == "pipe:***"


def test_file_addresses_are_local_names() -> None:
    assert path_of_file_url("file:///x/a%20b.tar") == "/x/a b.tar" == path_of_file_url("FILE://localhost/x/a%20b.tar")
