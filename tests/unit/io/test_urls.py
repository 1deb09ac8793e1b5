"""Addresses: told from local names, normalized once, joined with names of files."""

import pytest

from mmtrain.io.errors import InputError
from mmtrain.io.urls import (
    add_suffix,
    file_url_path,
    folder_url,
    has_suffix,
    is_remote,
    join_url,
    normalize_url,
    parse_url,
    scheme_of,
    strip_query,
    url_name,
)


@pytest.mark.parametrize(
    ("place", "scheme", "remote"),
    [
        ("HTTP://h/x", "http", True),
        ("s3://b/x", "s3", True),
        ("pipe:cat x", "pipe", True),
        ("file:///x", "file", False),
        ("data/train", "", False),
        ("a:b//c", "", False),
        ("://x", "", False),
        ("", "", False),
    ],
)
def test_addresses_are_told_from_local_names(place, scheme, remote):
    assert (scheme_of(place), is_remote(place)) == (scheme, remote)


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        ("http://h/set/x-000000.tar", "http://h/set/x-000000.tar"),
        ("HTTPS://h/x.tar?sig=a/b%2Fc&t=1#top", "https://h/x.tar?sig=a/b%2Fc&t=1"),
        ("http://h/a b/\u00e9.tar", "http://h/a%20b/%C3%A9.tar"),
        ("http://h/a%20b/100%.tar", "http://h/a%20b/100%25.tar"),
        ("http://h/x\udce9.tar", "http://h/x%E9.tar"),
        ("http://h/x\ud800.tar", "http://h/x%ED%A0%80.tar"),
        ("S3://b/a b#1?.tar", "s3://b/a b#1?.tar"),
        ("http://[::1/a.jpg", "http://[::1/a.jpg"),
        ("pipe:cat a b", "pipe:cat a b"),
        ("a b#c", "a b#c"),
    ],
)
def test_an_address_is_percent_encoded_once(address, normal):
    assert normalize_url(address) == normal
    assert normalize_url(normal) == normal


def test_the_parts_of_a_signed_address():
    address = "http://h/set a/x%20y.TAR?sig=1/2"
    assert url_name(address) == "x y.TAR" and has_suffix(address, (".tar",))
    assert add_suffix(address, ".index") == "http://h/set a/x%20y.TAR.index?sig=1/2"
    assert folder_url(address) == "http://h/set a?sig=1/2"
    assert folder_url(address, keep_query=False) == "http://h/set a"
    assert join_url(folder_url(address), "manifest.json") == "http://h/set a/manifest.json?sig=1/2"
    assert strip_query(address) == "http://h/set a/x%20y.TAR"
    assert add_suffix("s3://b/x?.tar", ".index") == "s3://b/x?.tar.index"


@pytest.mark.parametrize(
    "name", ["a#b.jpg", "a?b.jpg", "50%.jpg", "a%20b.jpg", "\u00e9 \u4e2d.jpg", "d/e.jpg", "\udcff.jpg"]
)
def test_the_name_of_a_file_survives_in_its_address(name):
    address = join_url("http://h/pics/", name)
    assert url_name(address) == name.rpartition("/")[2] and normalize_url(address) == address
    assert join_url("s3://b/pics", name) == f"s3://b/pics/{name}"


def test_file_addresses_are_local_names():
    assert file_url_path("file:///x/a%20b.tar") == "/x/a b.tar" == file_url_path("FILE://localhost/x/a%20b.tar")


@pytest.mark.parametrize("address", ["http://[::1/a.jpg", "http:///a.jpg", "http://h:port/a", "https://"])
def test_a_malformed_address_is_one_sentence(address):
    with pytest.raises(InputError, match="is not an address"):
        parse_url(address)
