"""Text from outside on its way to terminals and published files."""

import pytest

from mmtrain.io.text import encodable, printable, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("two\nlines\r", r"two\nlines\r"),
        ("d\udce9t", r"d\xe9t"),
        ("half \ud83d", r"half \ud83d"),
        ("right‮left", r"right\u202eleft"),
        ("plain é 图", "plain é 图"),
    ],
)
def test_control_signs_and_surrogates_become_visible(text: str, shown: str) -> None:
    assert printable(text) == shown
    printable(text).encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://u:secret@h/a.tar", "https://***@h/a.tar"),
        ("s3://bucket/a.tar", "s3://bucket/a.tar"),
        ("http://h/x.tar?X-Amz-Signature=secret#secret", "http://h/x.tar?***#***"),
        ("reads http://h/x?sig=secret, then more", "reads http://h/x?***, then more"),
        ("http://u:secret@[::1/x?sig=secret", "http://***@[::1/x"),
        ("pipe:curl -H 'Authorization: Bearer secret' http://h", "pipe:***"),
        ("curl -H 'Authorization: Bearer secret' ...", "curl -H 'Authorization: ***' ..."),
        ("data/train", "data/train"),
    ],
)
def test_secrets_of_addresses_are_hidden(text: str, shown: str) -> None:
    assert "secret" not in redact(text)
    if "then" not in text:
        assert redact(text) == shown


def test_only_surrogates_are_escaped_where_text_is_kept() -> None:
    assert encodable("d\udce9t é\t\ud83d") == "d\\xe9t é\t\\ud83d"
